"""What the probes say of every program: python -m tests.programs.diagnosis [torch|keras] [part of a name ...]."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator

from tests.programs.diagnosis.corpus import Corpus, Program, Said, said


def main(arguments: list[str]) -> None:
    framework, wanted = (arguments or ["torch"])[0], arguments[1:]
    counts: dict[str, int] = {}
    for name, program in _programs(framework).items():
        if not wanted or any(part in name or part == program.fault for part in wanted):
            for mark in _lines(name, program):
                counts[mark] = counts.get(mark, 0) + 1
    _print("  ".join(f"{mark}: {count}" for mark, count in sorted(counts.items())))


def _programs(framework: str) -> Corpus:
    if framework == "keras":
        from tests.programs.diagnosis.keras_programs import PROGRAMS
    else:
        from tests.programs.diagnosis.torch_programs import PROGRAMS
    return PROGRAMS


def _lines(name: str, program: Program) -> Iterator[str]:
    for broken in [True, False] if program.fault else [False]:
        start = time.perf_counter()
        found = _asked(program, broken)
        mark = _broken(found, program) if broken else _healthy(found)
        fault = program.fault if broken else "-"
        named = found.names[0] if found.names else "-"
        seconds = time.perf_counter() - start
        _print(f"{mark:12} {name:34} {fault:26} {found.outcome:12} {named:26} {seconds:4.1f}  {found.first[:150]}")
        yield mark


def _asked(program: Program, broken: bool) -> Said:
    """A table has a line for every program: one that gets through as a traceback is an outcome of its own."""
    try:
        return said(program, broken)
    except Exception as error:
        return Said("traceback", (), f"{type(error).__name__}: {error}".splitlines()[0])


def _broken(found: Said, program: Program) -> str:
    if not found.refused:
        return "MISSED"
    if not found.names:
        return "unnamed"
    return "right" if found.names[0] in program.accepted else "wrong name"


def _healthy(found: Said) -> str:
    if found.outcome not in ("passed", "warning"):
        return "ALARM"
    return "false name" if found.names else "healthy"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
