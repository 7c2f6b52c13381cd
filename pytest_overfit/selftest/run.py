"""Plant faults in a case and ask the probes about each."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_overfit.adapters.dispatch import guards, seed_everything
from pytest_overfit.adapters.planting import Ground
from pytest_overfit.adapters.programs import program_of
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, OverfitError, did_you_mean
from pytest_overfit.core.limits import Layer
from pytest_overfit.core.state import derived_seed, preserved
from pytest_overfit.core.verdict import Verdict
from pytest_overfit.data.telling import batch_of
from pytest_overfit.run import checked_case, learner_of, probes_named, resolved_limits, run_probe
from pytest_overfit.selftest.faults import FAULTS, PlantedFault, planted_in
from pytest_overfit.selftest.table import Mark, ProbeAnswer, SelfTest, of_columns
from pytest_overfit.settings import current_settings, set_settings

#: probes of this cost and more make whole training runs, several of them
REPEATED = 50

#: causes that a verdict's text prints
_PRINTED = 3


def run_selftest(
    case: Case,
    probes: Sequence[str] | None = None,
    *,
    faults: Sequence[str] | None = None,
    repeated: bool = False,
    tell: Callable[[str], object] | None = print,
    **limits: Any,
) -> SelfTest:
    """Plant faults in copies of a healthy case, run its probes on each, and return what was caught.

    `probes`: names; default: those that the case's fields allow, without those that train repeatedly (`repeated`).
    `faults`: names of faults to plant; default: all. `tell` gets the expected number of runs, before the first.
    `limits`: as for `run_probes`. Nothing is recorded, and the case, its models and its data stay as they are. Raises
    `CaseError` for a misuse.
    """
    checked_case(case)
    layers = [("call", limits)]
    names = _probes(case, probes, repeated)
    for name in names:
        resolved_limits(case, name, layers)
    chosen = _faults(faults)
    planted = plant(case, chosen)
    if tell is not None:
        tell(expected(case.name, planted, names))
    with _unrecorded():
        columns = [column(case, name, layers, _outcome(case, name, layers), planted) for name in names]
    found = of_columns(columns)
    return found[0] if found else SelfTest(case.name, (), {}, _reasons(planted), {})


def _probes(case: Case, names: Sequence[str] | None, repeated: bool) -> list[str]:
    if names is not None:
        return [each.name for each in probes_named(names)]
    return [each.name for each in probes_named() if (repeated or each.cost < REPEATED) and each.needs(case) is None]


def _faults(names: Sequence[str] | None) -> tuple[PlantedFault, ...]:
    known = {each.name: each for each in FAULTS}
    for name in names or ():
        if name not in known:
            raise CaseError(f"faults: {name!r} cannot be planted{did_you_mean(name, known)}")
    return FAULTS if names is None else tuple(known[name] for name in dict.fromkeys(names))


def expected(case: str, planted: Mapping[str, Case | str], probes: Sequence[str]) -> str:
    """The number of runs, in words."""
    count = sum(isinstance(each, Case) for each in planted.values())
    runs = (count + 1) * len(probes)
    return (
        f"self-test of {case!r}: {count} of {len(planted)} faults can be planted; {runs} runs: {len(probes)} probes on "
        "the case as it is and with each of them"
    )


def plant(case: Case, faults: Sequence[PlantedFault] = FAULTS) -> Mapping[str, Case | str]:
    """For each fault the case with it, or why it has no place in this one; everything global is then as it was."""
    settings = current_settings()
    seed = derived_seed(case.name, "selftest", settings.seed_of(case))
    with preserved(guards()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_everything(seed)
        ground, framework = _opened(case, seed)
        return planted_in(ground, framework, tuple(faults))


def _opened(case: Case, seed: int) -> tuple[Ground, str]:
    batch = batch_of(case)
    try:
        learner = learner_of(case, seed)
        ground = Ground(case=case, batch=batch, learner=learner, first=learner.read("fit"), seed=seed)
    except Exception:  # whatever keeps one from looking at the program, its data can be changed all the same
        return Ground(case=case, batch=batch, seed=seed), ""
    try:
        program = program_of(learner)
        anatomy = None if program is None else program.anatomy()
    except Exception:  # a program that nobody can look into has its data all the same
        anatomy = None
    return dataclasses.replace(ground, anatomy=anatomy), learner.framework


def _unrecorded() -> Any:
    """Inside, verdicts go nowhere."""
    settings = copy.copy(current_settings())
    settings.record, settings.record_error = lambda *_: None, lambda *_: None
    settings.selftest = None
    return _as_current(settings)


class _as_current:  # noqa: N801 - used like a function
    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def __enter__(self) -> None:
        self._reset = set_settings(self._settings)

    def __exit__(self, *_: object) -> None:
        self._reset()


# ---------------------------------------------------------------------------------------------- one probe's column


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a probe says of one case."""

    #: refused, passed, not_applicable
    what: str
    names: tuple[str, ...]
    first: str


def column(
    case: Case, probe: str, layers: Sequence[Layer], healthy: Outcome, planted: Mapping[str, Case | str]
) -> dict[str, Any]:
    """The plain form of one probe's answers; where it refuses the case as it is, planted faults are not tried."""
    answers: dict[str, ProbeAnswer] = {}
    if healthy.what != "refused":
        known = {each.name: each for each in FAULTS}
        with _unrecorded():
            for name, fault in planted.items():
                if isinstance(fault, Case):
                    answers[name] = _answer(_outcome(fault, probe, layers), known[name], healthy)
    return {
        "case": case.name,
        "probe": probe,
        "refused": healthy.first if healthy.what == "refused" else "",
        "planted": {name: dataclasses.asdict(each) for name, each in answers.items()},
        "not_planted": _reasons(planted),
    }


def _reasons(planted: Mapping[str, Case | str]) -> dict[str, str]:
    return {name: each for name, each in planted.items() if isinstance(each, str)}


def _outcome(case: Case, probe: str, layers: Sequence[Layer]) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # planted programs warn of what is wrong with them
        try:
            return outcome_of(run_probe(case, probe, layers))
        except OverfitError as error:
            return Outcome("refused", tuple(each.fault for each in error.diagnoses), str(error).splitlines()[0])
        except Exception as error:  # a test of the user's would end with it as well
            return Outcome("refused", (), f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")


def outcome_of(verdict: Verdict) -> Outcome:
    """A verdict in short."""
    refused = verdict.outcome in ("failed", "inconclusive")
    what = "refused" if refused else verdict.outcome
    return Outcome(what, tuple(each.fault for each in verdict.diagnoses), verdict.summary)


def _answer(found: Outcome, fault: PlantedFault, healthy: Outcome) -> ProbeAnswer:
    return ProbeAnswer(_mark(found, fault, healthy), found.names, found.first)


def _mark(found: Outcome, fault: PlantedFault, healthy: Outcome) -> Mark:
    """A name that the healthy case carries as well, in a warning, does not tell of the fault."""
    right = any(name in fault.accepted and name not in healthy.names for name in found.names[:_PRINTED])
    if found.what == "refused":
        return "named" if right else "caught"
    if found.what == "not_applicable":
        return ""
    return "warned" if right else "missed"
