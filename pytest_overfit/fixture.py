"""The ways in from a test: the fixture's methods and the parametrizing decorator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.core.bounds import with_bounds
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, NotApplicable, OverfitError, ProbeFailed, ProgramError, did_you_mean
from pytest_overfit.core.foreign import brief, describe
from pytest_overfit.core.limits import names_of
from pytest_overfit.report.text import failure_text
from pytest_overfit.run import applying_probes, checked_case, probes_named, run_probe
from pytest_overfit.settings import current_settings

if TYPE_CHECKING:
    import pytest

    from pytest_overfit.core.limits import Layer
    from pytest_overfit.core.verdict import Verdict


def demand(case: Case, probe: str, layers: Sequence[Layer] = ()) -> Verdict:
    """Run one probe and raise unless it passed: `ProbeFailed` (failed or inconclusive) or `NotApplicable`."""
    __tracebackhide__ = True
    selftest = current_settings().selftest
    if selftest is not None and (why := selftest.skips(probe)):
        raise NotApplicable(why)
    verdict = _without_our_frames(case, probe, layers)
    if selftest is not None:
        selftest.judged(case, probe, layers, verdict)
    if verdict.outcome == "not_applicable":
        raise NotApplicable(f"{verdict.case}: {verdict.probe}: {verdict.summary}")
    if not verdict.passed:
        raise ProbeFailed(failure_text(verdict.to_dict(), current_settings().command()), verdict)
    return verdict


def _without_our_frames(case: Case, probe: str, layers: Sequence[Layer]) -> Verdict:
    """Run the probe; an error of ours leaves here as if it had been raised on the user's line."""
    __tracebackhide__ = True
    try:
        return run_probe(case, probe, layers)
    except OverfitError as error:
        caught = error
    raise caught.with_traceback(None)


def call_marked(
    function: Callable[..., Any], available: Mapping[str, Any], probe: str, limits: Mapping[str, Any]
) -> None:
    """Call a test marked `overfit` with the fixtures it asks for, and run the probe on the case it returns."""
    __tracebackhide__ = True
    wanted = inspect.signature(function).parameters
    case = function(**{name: value for name, value in available.items() if name in wanted})
    if case is None:
        raise CaseError(
            "a test marked `overfit` returns its Case, this one returned None; end it with `return Case(...)`"
        )
    demand(checked_case(case), probe, [("marker", limits)])


class Overfit:
    """What the fixture `overfit` gives: one method a probe.

    Each runs its probe on a case, raises `ProbeFailed` (an `AssertionError`) when the verdict is not `passed`, and
    returns the verdict otherwise. Limits given here win over the marker's, the case's and the ini file's. Stateless.
    """

    def batch(self, case: Case, **limits: Any) -> Verdict:
        """The model memorises one batch: probe `overfit_batch`; see `pytest_overfit.probes.overfit_batch`.

        Limits: `steps`, `max_loss_ratio`, `min_accuracy`, `min_token_accuracy`, `min_near_rows`, `budget` (seconds).
        """
        __tracebackhide__ = True
        return demand(case, "overfit_batch", [("call", limits)])

    def wiring(self, case: Case, **limits: Any) -> Verdict:
        """Every part is connected: probe `wiring`; see `pytest_overfit.probes.wiring`."""
        __tracebackhide__ = True
        return demand(case, "wiring", [("call", limits)])

    def regularization(self, case: Case, **limits: Any) -> Verdict:
        """Regularisers do not harm, and do something: see `pytest_overfit.probes.regularization`.

        Limits: `margin`, `seeds`, `epochs`, `alpha`, `resplit`, `budget` (seconds).
        """
        __tracebackhide__ = True
        return demand(case, "regularization", [("call", limits)])

    def generalization_gap(self, case: Case, **limits: Any) -> Verdict:
        """Validation score and gap lie within bounds, above chance: probe `generalization_gap`.

        Limits: `max_gap`, `min_score`, `above_chance`, `seeds`, `epochs`, `alpha`, `controls`.
        """
        __tracebackhide__ = True
        return demand(case, "generalization_gap", [("call", limits)])

    def split_duplicates(self, case: Case, **limits: Any) -> Verdict:
        """No sample of a split also occurs in another: probe `split_duplicates`.

        Limits, each a share of the later split's rows: `max_rate`, `max_near`, `max_windows`, `max_groups`,
        `max_out_of_order`. `Duplicates(verdict.data).clean("test")` has the rows to keep.
        """
        __tracebackhide__ = True
        return demand(case, "split_duplicates", [("call", limits)])

    def early_accuracy(self, case: Case, **limits: Any) -> Verdict:
        """The scores of the first epochs are believable: see `pytest_overfit.probes.early_accuracy`.

        Limits: `epochs`, `alpha`, `repeats`, `max_copies`, `min_memorised`, `min_rows`.
        """
        __tracebackhide__ = True
        return demand(case, "early_accuracy", [("call", limits)])

    def inert_regularizer(self, case: Case, **limits: Any) -> Verdict:
        """Every regulariser does something: probe `inert_regularizer`; see `pytest_overfit.probes.inert_regularizer`.

        Limits: `min_decay`. Trains nothing.
        """
        __tracebackhide__ = True
        return demand(case, "inert_regularizer", [("call", limits)])

    def within(self, case: Case, **bounds: Any) -> Verdict:
        """Named quantities lie within bounds: probe `bounds`; `pytest --overfit-quantities` lists the quantities.

        `initial_loss=approx(2.30, 0.2)`, `val_score=at_least(chance + 0.5)`, `gap=(None, 0.1)`, `save_load=True`, or a
        function value -> bool; `at_least(calibrated)` where `pytest --overfit-calibrate` is to find the end. Bounds
        given here win over those in the case's options.
        Limits: `seeds`, `alpha`, `false_alarms`, `epochs`, `k`, `steps`.
        """
        __tracebackhide__ = True
        known = names_of(current_settings().probes()["bounds"].limits)
        limits = {name: value for name, value in bounds.items() if name in known}
        wanted = {name: value for name, value in bounds.items() if name not in known}
        if not wanted and not checked_case(case).options.get("bounds"):
            raise CaseError(f"Case {case.name!r}: within() was given no bound; write e.g. initial_loss=(2.0, 2.6)")
        return demand(with_bounds(checked_case(case), "bounds", wanted, "call"), "bounds", [("call", limits)])

    def __repr__(self) -> str:
        return "Overfit()"


class BoundProbe:
    """One probe for the argument `probe` of a test under `parametrize_with_probes`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, case: Case, **limits: Any) -> Verdict:
        """Run this probe on the case; raises like the fixture's methods."""
        __tracebackhide__ = True
        if self.name == "bounds" and limits:  # takes bounds beside limits
            return Overfit().within(case, **limits)
        return demand(case, self.name, [("call", limits)])

    def __repr__(self) -> str:
        return f"BoundProbe({self.name!r})"


def parametrize_with_probes(
    cases: Sequence[Case],
    probes: Sequence[str] | None = None,
    *,
    expected_failures: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Parametrize a test with the arguments `case` and `probe`: every case with every probe, id `case-probe`.

    Without `probes`: the default set, less what the fields of a case rule out, which is counted at the end of the run.
    The test calls `probe(case)`. `expected_failures` maps an id, or a case's name for all its probes, to the reason;
    such a test must not pass (a strict xfail that takes `ProbeFailed` and `ProgramError`, so that a misuse is still
    an error). Raises `CaseError` for two cases of one name, an unknown probe, or an expected failure of no test.
    """
    import pytest

    chosen = _distinct(cases)
    pairs = [(case, name) for case in chosen for name in _names(case, probes)]
    reasons = _reasons(expected_failures, [f"{case.name}-{name}" for case, name in pairs], chosen)
    parameters = [
        pytest.param(case, BoundProbe(name), id=f"{case.name}-{name}", marks=_marks(pytest, reasons, case.name, name))
        for case, name in pairs
    ]
    return pytest.mark.parametrize(("case", "probe"), parameters)


def _names(case: Case, given: Sequence[str] | None) -> list[str]:
    return applying_probes(case) if given is None else [each.name for each in probes_named(given)]


def _distinct(cases: Any) -> list[Case]:
    if isinstance(cases, (Case, str, Mapping)) or not isinstance(cases, Iterable):
        raise CaseError(
            f"cases: expected a list of cases, got {describe(cases)}; write parametrize_with_probes([case])"
        )
    chosen = [checked_case(case) for case in cases]
    names = [case.name for case in chosen]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise CaseError(f"two cases are called {twice[0]!r}; names make the test ids, give each case its own")
    return chosen


def _reasons(given: Any, tests: Sequence[str], cases: Sequence[Case]) -> Mapping[str, str]:
    """The expected failures, each for a test that exists and with a reason."""
    if given is None:
        return {}
    example = "write expected_failures={'cnn-overfit_batch': 'the reason'}"
    if not isinstance(given, Mapping):
        raise CaseError(f"expected_failures: expected a dict of ids and reasons, got {describe(given)}; {example}")
    known = {*tests, *(case.name for case in cases)}
    for key, reason in given.items():
        if key not in known:
            raise CaseError(f"expected_failures: there is no test {brief(key)}{did_you_mean(key, known)}")
        if not isinstance(reason, str) or not reason.strip():
            raise CaseError(
                f"expected_failures[{brief(key)}]: expected the reason, in words, got {brief(reason)}; {example}"
            )
    return given


def _marks(pytest: Any, reasons: Mapping[str, str], case: str, probe: str) -> list[Any]:
    reason = reasons.get(f"{case}-{probe}", reasons.get(case))
    if reason is None:
        return []
    return [pytest.mark.xfail(reason=reason, raises=(ProbeFailed, ProgramError), strict=True)]
