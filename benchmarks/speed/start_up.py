"""What the plugin adds to every start of pytest, in whole processes.

    python -m benchmarks.speed.start_up [--runs 40]

Each run is one process of pytest with one trivial test, nothing else loaded: without a plugin, with an empty plugin,
with ours, and without one once more (A/A). The variants take turns, so that a busy machine slows all of them. Measured:
CPU seconds of the process, with compiled modules, as after an installation; differences are medians over the turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

#: share of pytest's own start that the plugin may add
MOST = 0.05

VARIANTS = {"pytest alone": [], "an empty plugin": ["-p", "empty"], "ours": ["-p", "pytest_overfit.plugin"], "A/A": []}


def milliseconds(options: list[str], environment: dict[str, str], folder: str) -> float:
    """CPU time of one pytest process."""
    command = [sys.executable, "-m", "pytest", "-q", "--disable-plugin-autoload", "-p", "no:cacheprovider", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_trivial.py").write_text("def test_it():\n    pass\n", encoding="utf-8")
        Path(folder, "empty.py").write_text("", encoding="utf-8")
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, root])}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for options in VARIANTS.values():  # compiles the modules
            milliseconds(options, environment, folder)
        turns = [[milliseconds(each, environment, folder) for each in VARIANTS.values()] for _ in range(runs)]
    alone = statistics.median(turn[0] for turn in turns)
    print(f"| {runs} turns | CPU ms | more than pytest alone |\n|---|---:|---:|")
    for number, name in enumerate(VARIANTS):
        more = statistics.median(turn[number] - turn[0] for turn in turns)
        print(f"| {name} | {statistics.median(turn[number] for turn in turns):.1f} | {more / alone:.1%} |")
    print(f"wanted: at most {MOST:.0%}")


if __name__ == "__main__":
    main()
