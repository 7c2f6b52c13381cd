"""What the plugin adds to every start of pytest.

    python -m benchmarks.speed.start_up

Each number is from a fresh interpreter, with compiled modules, as after an installation. The variants take turns, so
that a busy machine slows all of them, and each is there twice (A/A), which shows how far to believe the differences.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

RUNS = 21
TARGET = 10.0

_START = "pytest.main(['-qq', '--collect-only', '--disable-plugin-autoload', '-p', 'no:cacheprovider'{more}])"

#: timed after `import pytest`
VARIANTS = {
    "import pytest, once more": "import pytest",
    "import pytest_overfit.plugin": "import pytest_overfit.plugin",
    "pytest in an empty folder, without the plugin": _START.format(more=""),
    "pytest in an empty folder, with it": _START.format(more=", '-p', 'pytest_overfit.plugin'"),
}


def milliseconds(statement: str, environment: dict[str, str], folder: str) -> float:
    """Time of a statement after `import pytest`, in a fresh interpreter."""
    program = (
        "import sys, time, pytest\n"
        "start = time.perf_counter()\n"
        f"{statement}\n"
        "print((time.perf_counter() - start) * 1e3, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    return float(done.stderr.split()[-1])


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for statement in VARIANTS.values():  # compiles the modules
            milliseconds(statement, environment, folder)
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(RUNS):
            for twin in (0, 1):
                for name, statement in VARIANTS.items():
                    times.setdefault((name, twin), []).append(milliseconds(statement, environment, folder))
    print(f"milliseconds after `import pytest`, median of {RUNS} fresh interpreters, twice")
    for name in VARIANTS:
        print(f"  {name:46} {statistics.median(times[name, 0]):8.2f} {statistics.median(times[name, 1]):8.2f}")
    medians = [statistics.median([*times[name, 0], *times[name, 1]]) for name in VARIANTS]
    print(f"import of the plugin: {medians[1] - medians[0]:.2f} ms; whole start: {medians[3] - medians[2]:.2f} ms")
    print(f"target: below {TARGET:g} ms: {'met' if medians[1] - medians[0] < TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
