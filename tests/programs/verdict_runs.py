"""Runs of `test_matrix.py` in many ways, and where their verdicts differ.

`.ci/matrix` compares orders, workers, plugins and processors with it, `benchmarks/verdicts/stability.py` 100 seeds.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).resolve().parent / "test_matrix.py"

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def threads(count: int | None) -> dict[str, str | None]:
    """The environment that gives frameworks so many threads; None: what they take by themselves.

    Threads that wait do not spin, which takes ten times as long where processes share cores, and changes no sum.
    """
    return {**dict.fromkeys(_THREADS, None if count is None else str(count)), "OMP_WAIT_POLICY": "PASSIVE"}


class Way(NamedTuple):
    """One way to run the cases: options of pytest, and environment variables (None removes one)."""

    name: str
    options: Sequence[str] = ()
    environment: Mapping[str, str | None] = threads(1)
    #: numbers are rounded as in the plain run, so that losses must be the same bits
    same_rounding: bool = True


class Read(NamedTuple):
    """What one verdict says."""

    case: str
    seed: int
    outcome: str
    steps: int
    losses: tuple[float, ...]
    summary: str
    attempts: int = 1


def run_cases(
    way: Way, seeds: Sequence[int], folder: Path, cases: Sequence[str] = (), python: Sequence[str] = (sys.executable,)
) -> tuple[list[Read], str]:
    """Run the cases of these names (default: all) once in this way.

    Returns the verdicts, and the output of pytest if the run was not a success.
    """
    report = folder / "verdicts.json"
    report.unlink(missing_ok=True)
    environment = dict(os.environ)
    changes = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "COVERAGE_FILE": str(folder / "coverage")}
    for name, value in {**changes, "OVERFIT_SEEDS": ",".join(map(str, seeds)), **way.environment}.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    chosen = ["-k", " or ".join(cases)] if cases else []
    # without this repository's conftest.py, which sets the number of threads
    command = [*python, "-m", "pytest", str(CASES), "-q", "--noconftest", f"--overfit-json={report}", *chosen]
    command += way.options
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    verdicts = read_verdicts(report) if report.is_file() else []
    return verdicts, "" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]


def read_verdicts(path: Path) -> list[Read]:
    """The verdicts of a file that `--overfit-json` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))["verdicts"]
    return [
        Read(
            verdict["case"],
            int(verdict["seeds"][0]),
            verdict["outcome"],
            int(verdict["steps"]),
            tuple(float(loss) for loss in verdict["losses"]),
            verdict["summary"],
            int(verdict["attempts"]),
        )
        for verdict in found
    ]


def spread(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest difference of two curves, as a part of the first one's largest loss."""
    if len(first) != len(second):
        return math.inf
    scale = max((abs(loss) for loss in first if math.isfinite(loss)), default=0.0) or 1.0
    gaps = [abs(a - b) / scale for a, b in zip(first, second, strict=True) if math.isfinite(a) or math.isfinite(b)]
    return max((math.inf if math.isnan(gap) else gap for gap in gaps), default=0.0)


def differences(plain: Iterable[Read], other: Iterable[Read], slack: float = 0) -> list[str]:
    """Where verdicts differ from those of the plain run: missing ones, outcomes, steps by more than `slack`."""
    expected, seen = {(read.case, read.seed): read for read in plain}, set()
    lines = []
    for read in other:
        key = (read.case, read.seed)
        seen.add(key)
        first = expected.get(key)
        if first is None:
            lines.append(f"{key}: is not in the plain run")
        elif first.outcome != read.outcome or abs(first.steps - read.steps) > slack:
            lines.append(f"{key}: {first.outcome} at {first.steps} -> {read.outcome} at {read.steps}: {read.summary}")
    return lines + [f"{key}: no verdict" for key in expected if key not in seen]
