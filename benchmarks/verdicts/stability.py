"""1,000 repeats of quick cases, and every verdict that differs: `python -m benchmarks.verdicts.stability --log FILE`.

`tests/programs/test_matrix.py` has the cases. It is run from 100 seeds in ten ways: orders, processes, workers, numbers
of threads, hash seeds, other plugins. Two questions are asked of the verdicts:

* one seed, any way: is the verdict identical? Outcome and steps must be, losses as far as float arithmetic allows;
* over the seeds: does any outcome differ?

It takes about half an hour. FILE, one JSON line a verdict, keeps what is done: run it again with `--minutes` until
all is there. The table is printed at the end of each call. Exit code 1: a verdict differs, or a run did not work.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "programs"))

from verdict_runs import Read, Way, differences, run_cases, spread, threads

SEEDS = 100
#: seeds that one process takes
BLOCK = 10

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
