"""One fault in a training program: what the default probes, torchtest2 and pytest-torch say of the same programs.

    pip install -c constraints.txt -e '.[test]' pytest-torch torchtest2
    OMP_NUM_THREADS=1 python -m benchmarks.verdicts.diagnosis_rivals             # by tool, and by fault
    OMP_NUM_THREADS=1 python -m benchmarks.verdicts.diagnosis_rivals --only wine # programs with this in their names

The programs are those of `tests/programs/diagnosis`, each with a healthy twin in which that one fault is undone. A tool
that is not installed is left out. How the rivals are asked is told in `benchmarks.verdicts.wiring_rivals`; where a
program has a data set in place of a batch, they get its first 32 rows.

*Caught*: refused, or warned of under a fault's name. *Right first*: the first name is that of the fault, or another one
that is true of the program as well; of a rival any check that failed or warned and may mean it. *Cure true*: the first
name is right, and undoing this fault makes the program pass every probe. *Proved*: the changed program memorised.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.machine import machine
from benchmarks.verdicts import wiring_rivals as rivals
from benchmarks.verdicts.wiring_rivals import Answer
from pytest_overfit import Case, OverfitError, run_probes
from tests.programs.diagnosis.corpus import Fields, Program, said
from tests.programs.diagnosis.torch_programs import PROGRAMS

#: rows that a rival is asked with where a program has no batch of its own
_ROWS = 32

RIVALS: dict[str, tuple[str, Callable[[Fields], Answer]]] = {
    "torchtest2, `check_model`": ("torchtest2", rivals.torchtest2),
    "pytest-torch": ("pytest_torch", rivals.pytest_torch),
}


@dataclasses.dataclass(frozen=True)
class Told:
    """What a tool says of one program."""

    caught: bool
    #: in their order; a rival's have none
    names: tuple[str, ...]
    seconds: float
    proved: bool = False
    answered: bool = True


def ours(program: Program, broken: bool) -> Told:
    start = time.perf_counter()
    try:
        found = said(program, broken)
    except Exception:  # a traceback of a probe is no verdict
        return Told(False, (), time.perf_counter() - start, answered=False)
    caught = found.refused if broken else found.outcome not in ("passed", "warning")
    return Told(caught, found.names, time.perf_counter() - start)


def is_proved(program: Program) -> bool:
    """The first diagnosis of the run on one batch comes from a changed program that memorised."""
    try:
        (verdict,) = run_probes(Case(name="case", **program.make(True)), ["overfit_batch"])
    except OverfitError:
        return False
    first = verdict.diagnoses[:1]
    return bool(first) and first[0].fault in program.accepted and first[0].confidence == "proved"


def theirs(ask: Callable[[Fields], Answer], program: Program, broken: bool) -> Told:
    start = time.perf_counter()
    answer = rivals.answer_of(lambda fields: ask(_with_batch(fields)), program.make(broken))
    seconds = time.perf_counter() - start
    if answer is None:
        return Told(False, (), seconds, answered=False)
    return Told(answer.refused or answer.warned, tuple(sorted(answer.names)), seconds)


def _with_batch(fields: Fields) -> Fields:
    """A batch as a function, as `wiring_rivals` has them."""
    given = fields["batch"] if "batch" in fields else fields["train"]
    given = given() if callable(given) else given
    if "batch" not in fields and isinstance(given, tuple):
        given = tuple(each[:_ROWS] for each in given)
    elif "batch" not in fields:
        given = next(iter(given))
    return {**fields, "batch": lambda: given}


@dataclasses.dataclass
class Tally:
    """Counts of one tool, or of ours for one fault."""

    faults: int = 0
    caught: int = 0
    right: int = 0
    cured: int = 0
    proved: int = 0
    healthy: int = 0
    refused: int = 0
    named: int = 0
    unanswered: int = 0
    seconds: float = 0.0

    def add_broken(self, program: Program, told: Told, twin_passes: bool, any_name: bool = False) -> None:
        right = bool(set(told.names if any_name else told.names[:1]) & set(program.accepted))
        self.faults, self.caught = self.faults + 1, self.caught + told.caught
        self.right, self.cured = self.right + right, self.cured + (right and twin_passes)
        self.proved += told.proved
        self._add(told)

    def add_healthy(self, told: Told) -> None:
        self.healthy, self.refused = self.healthy + 1, self.refused + told.caught
        self.named += bool(told.names)
        self._add(told)

    def _add(self, told: Told) -> None:
        self.unanswered, self.seconds = self.unanswered + (not told.answered), self.seconds + told.seconds


OURS = "pytest-overfit, default probes"


def asked(only: list[str], proofs: bool) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """Counts by tool, and of ours by fault."""
    tools, faults = {OURS: Tally()}, {}
    installed = {name: ask for name, (module, ask) in RIVALS.items() if importlib.util.find_spec(module)}
    tools |= {name: Tally() for name in installed}
    for name, program in PROGRAMS.items():
        if only and not any(part in name for part in only):
            continue
        twin = ours(program, False)
        tools[OURS].add_healthy(twin)
        for tool, ask in installed.items():
            tools[tool].add_healthy(theirs(ask, program, False))
        if program.fault:
            told = ours(program, True)
            told = dataclasses.replace(told, proved=proofs and is_proved(program))
            for tally in (tools[OURS], faults.setdefault(program.fault, Tally())):
                tally.add_broken(program, told, not twin.caught)
            for tool, ask in installed.items():
                tools[tool].add_broken(program, theirs(ask, program, True), False, any_name=True)
        so_far = ", ".join(f"{each.caught} caught, {each.right} right of {each.faults}" for each in tools.values())
        print(f"{name}: {so_far}", file=sys.stderr, flush=True)  # the whole takes many minutes
    return tools, dict(sorted(faults.items()))


def by_tool(tools: dict[str, Tally]) -> Iterator[str]:
    first = next(iter(tools.values()))
    yield (
        f"| tool | of {first.faults} faults caught | right first | cure true | of {first.healthy} healthy refused | "
        "with a fault's name | without an answer | time, as a multiple of ours |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for name, each in tools.items():
        cured: Any = each.cured if name == OURS else "-"
        numbers = (each.caught, each.right, cured, each.refused, each.named, each.unanswered)
        yield f"| {name} | {' | '.join(map(str, numbers))} | {each.seconds / first.seconds:.2f} |"


def by_fault(faults: dict[str, Tally], proofs: bool) -> Iterator[str]:
    yield f"| fault | programs | caught | right first | cure true |{' proved |' if proofs else ''}"
    yield f"|---|---:|---:|---:|---:|{'---:|' if proofs else ''}"
    for name, each in faults.items():
        proved = f" {each.proved} |" if proofs else ""
        yield f"| `{name}` | {each.faults} | {each.caught} | {each.right} | {each.cured} |{proved}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="parts of names")
    parser.add_argument("--proofs", action="store_true", help="count proofs as well, which asks a second time")
    arguments = parser.parse_args()
    missing = [name for name, (module, _) in RIVALS.items() if not importlib.util.find_spec(module)]
    if missing:
        print(f"left out, not installed: {', '.join(missing)}; pip install pytest-torch torchtest2\n")
    print(machine(), "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tools, faults = asked(arguments.only, arguments.proofs)
    print("\n".join([*by_tool(tools), "", *by_fault(faults, arguments.proofs)]))


if __name__ == "__main__":
    main()
