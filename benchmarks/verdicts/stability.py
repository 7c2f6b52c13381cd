"""1,000 repeats of quick cases, and every verdict that differs: `python benchmarks/stability.py --log FILE`.

`tests/test_matrix.py` has the cases. It is run from 100 seeds in ten ways: orders, processes, workers, numbers of
threads, hash seeds, company. Two questions are asked of the verdicts:

* one seed, any way: is the verdict identical? Outcome and steps must be, losses as far as float arithmetic allows;
* over the seeds: does any outcome differ?

It takes about half an hour. FILE, one JSON line a verdict, keeps what is done: run it again with `--minutes` until
all is there. The table is printed at the end of each call. Exit code 1: a verdict differs, or a run did not work.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "test_matrix.py"
SEEDS = 100
#: seeds that one process takes
BLOCK = 10

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


WAYS = [
    Way("plain"),
    Way("another hash seed", environment={**threads(1), "PYTHONHASHSEED": "1"}),
    Way("shuffled", ["-p", "randomly", "--randomly-seed=1"]),
    Way("shuffled otherwise", ["-p", "randomly", "--randomly-seed=2"]),
    Way("2 workers", ["-n", "2"]),
    Way("2 workers, shuffled", ["-n", "2", "--dist=worksteal", "-p", "randomly", "--randomly-seed=3"]),
    Way("4 workers", ["-n", "4"]),
    Way("2 threads", environment=threads(2)),
    Way("2 workers, threads as they come", ["-n", "2"], threads(None)),
    Way("coverage and timeout", ["--cov=pytest_overfit", "--cov-report=", "--timeout=300"]),
]


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
    way: Way, seeds: Sequence[int], folder: Path, python: Sequence[str] = (sys.executable,)
) -> tuple[list[Read], str]:
    """Run the cases once in this way; the verdicts, and the output of pytest if the run was not a success."""
    report = folder / "verdicts.json"
    report.unlink(missing_ok=True)
    environment = dict(os.environ)
    changes = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3", "COVERAGE_FILE": str(folder / "coverage")}
    for name, value in {**changes, "OVERFIT_SEEDS": ",".join(map(str, seeds)), **way.environment}.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    # without this repository's conftest.py, which sets the number of threads
    command = [*python, "-m", "pytest", str(CASES), "-q", "--noconftest", f"--overfit-json={report}", *way.options]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    read = read_verdicts(report) if report.is_file() else []
    return read, "" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]


def read_verdicts(path: Path) -> list[Read]:
    found = json.loads(path.read_text(encoding="utf-8"))["verdicts"]
    return [
        Read(
            each["case"],
            int(each["seeds"][0]),
            each["outcome"],
            int(each["steps"]),
            tuple(float(loss) for loss in each["losses"]),
            each["summary"],
            int(each["attempts"]),
        )
        for each in found
    ]


def spread(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest difference of two curves, as a part of the first one's largest loss."""
    if len(first) != len(second):
        return math.inf
    scale = max((abs(each) for each in first if math.isfinite(each)), default=0.0) or 1.0
    gaps = [abs(a - b) / scale for a, b in zip(first, second, strict=True) if math.isfinite(a) or math.isfinite(b)]
    return max((math.inf if math.isnan(each) else each for each in gaps), default=0.0)


def differences(plain: Iterable[Read], other: Iterable[Read], slack: int = 0) -> list[str]:
    """Where verdicts differ from those of the plain run: missing ones, outcomes, steps by more than `slack`."""
    expected, seen = {(each.case, each.seed): each for each in plain}, set()
    lines = []
    for each in other:
        key = (each.case, each.seed)
        seen.add(key)
        first = expected.get(key)
        if first is None:
            lines.append(f"{key}: is not in the plain run")
        elif first.outcome != each.outcome or abs(first.steps - each.steps) > slack:
            lines.append(f"{key}: {first.outcome} at {first.steps} -> {each.outcome} at {each.steps}: {each.summary}")
    return lines + [f"{key}: no verdict" for key in expected if key not in seen]


# ----------------------------------------------------------------------------------------------------------------- log


def load(log: Path) -> dict[str, list[Read]]:
    """What was done so far: the way's name -> its verdicts."""
    done: dict[str, list[Read]] = defaultdict(list)
    if log.is_file():
        for line in log.read_text(encoding="utf-8").splitlines():
            way, *fields = json.loads(line)
            fields[4] = tuple(float(loss) for loss in fields[4])
            done[way].append(Read(*fields))
    return done


def plain_numbers(losses: Iterable[float]) -> list[Any]:
    return [each if math.isfinite(each) else str(each) for each in losses]


def continue_until(deadline: float, log: Path, seeds: int) -> str:
    """Run what is missing in the log, block by block; the output of the first run that did not work."""
    done = load(log)
    blocks = [range(start, min(start + BLOCK, seeds)) for start in range(0, seeds, BLOCK)]
    for block in blocks:
        for way in WAYS:
            if time.monotonic() >= deadline:
                return ""
            if {each.seed for each in done[way.name]} >= set(block):
                continue
            with tempfile.TemporaryDirectory() as folder:
                start = time.monotonic()
                found, trouble = run_cases(way, list(block), Path(folder))
            seconds = time.monotonic() - start
            print(f"{way.name}, seeds {block.start} to {block[-1]}: {len(found)} in {seconds:.0f} s", flush=True)
            if not found:
                return trouble
            with log.open("a", encoding="utf-8") as file:
                file.writelines(
                    json.dumps([way.name, *each[:4], plain_numbers(each.losses), each.summary]) + "\n" for each in found
                )
            if trouble:
                print(trouble)
    return ""


# --------------------------------------------------------------------------------------------------------------- table


def table(done: Mapping[str, Sequence[Read]]) -> bool:
    """Print what was seen; True if no verdict differs."""
    plain = done.get("plain", [])
    print("| way | verdicts | other outcome or steps | largest difference of a loss |")
    print("|---|---|---|---|")
    differing = []
    for way in (each.name for each in WAYS if each.name in done):
        keys = {(each.case, each.seed) for each in done[way]}
        first = {(each.case, each.seed): each for each in plain if (each.case, each.seed) in keys}
        lines = differences(first.values(), [each for each in done[way] if (each.case, each.seed) in first])
        gaps = [spread(first[each.case, each.seed].losses, each.losses) for each in done[way] if each[:2] in first]
        print(f"| {way} | {len(done[way])} | {len(lines)} | {max(gaps, default=0.0):.1g} |")
        differing += [f"{way}: {line}" for line in lines]
    print("\n| case | verdicts | seeds | outcomes | steps |\n|---|---|---|---|---|")
    everything = [each for reads in done.values() for each in reads]
    for case in dict.fromkeys(each.case for each in everything):
        own = [each for each in everything if each.case == case]
        outcomes = Counter(each.outcome for each in own)
        counted = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        steps = f"{min(each.steps for each in own)} to {max(each.steps for each in own)}"
        print(f"| {case} | {len(own)} | {len({each.seed for each in own})} | {counted} | {steps} |")
        if len(outcomes) > 1:
            rare = outcomes.most_common()[-1][0]
            differing += [f"{case}: seed {each.seed}: {rare}: {each.summary}" for each in own if each.outcome == rare]
    print(f"\n{len(everything)} verdicts, {len(differing)} differ")
    print("\n".join(differing[:40]))
    return not differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, default=Path("stability.jsonl"), help="where the verdicts are kept")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no further run after so many minutes")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds (default %(default)s)")
    given = parser.parse_args()
    trouble = continue_until(time.monotonic() + 60 * given.minutes, given.log, given.seeds)
    if trouble:
        print(trouble)
    return 0 if table(load(given.log)) and not trouble else 1


if __name__ == "__main__":
    sys.exit(main())
