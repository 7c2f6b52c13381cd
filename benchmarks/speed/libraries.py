"""What a library in place of code of ours would cost: CPU seconds of the first verdict of a fresh process.

    OMP_NUM_THREADS=1 python benchmarks/speed/libraries.py

Each program runs in a process of its own that imports the library first, and its CPU time is divided by the same time
without that import, all other imports included. The rule: a library is taken where verdicts stay the same and the first
verdict takes at most 1.2 times as long. Printed: medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

#: program, library -> what it would do there
PAIRS = {
    ("smoothed", "scipy.optimize"): "reference losses without a closed form: L-BFGS-B (taken)",
    ("early", "scipy.special"): "binomial and Poisson tails (taken)",
    ("early", "sklearn.linear_model"): "the linear baseline (kept)",
    ("early", "sklearn.neighbors"): "the nearest neighbour as a baseline (kept)",
    ("near", "scipy.spatial"): "neighbour search of near-copies (kept)",
    ("near", "sklearn.neighbors"): "the same (kept)",
}

PROGRAM = """
import resource, sys, time
import numpy as np
what, library = sys.argv[1:]
spent = time.process_time()
__import__(library)
spent = time.process_time() - spent
random = np.random.default_rng(0)
if what == "near":
    from pytest_overfit import find_duplicates
    train, test = random.normal(size=(4000, 20)), random.normal(size=(1000, 20))
    test[:10] = train[:10] + 1e-4
    find_duplicates(train=train, test=test)
else:
    import torch
    from torch import nn
    from pytest_overfit import Case, run_probes
    x = random.normal(size=(600, 64)).astype("float32")
    y = (x @ random.normal(size=(64, 10))).argmax(1)
    x, y = torch.tensor(x), torch.tensor(y)
    common = dict(
        name="mlp",
        model=lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)),
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    )
    if what == "smoothed":
        loss = nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.arange(1.0, 11.0))
        case, probe = Case(**common, loss=loss, batch=(x[:32], y[:32])), "overfit_batch"
    else:
        case = Case(**common, loss=nn.functional.cross_entropy, train=(x[:400], y[:400]), val=(x[400:], y[400:]))
        probe = "early_accuracy"
    assert run_probes(case, [probe])[0].passed
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, spent)
"""


def seconds(program: str, library: str) -> tuple[float, float]:
    """CPU time without and with the import of the library."""
    command = [sys.executable, "-c", PROGRAM, program, library]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    total, spent = map(float, done.stdout.split()[-2:])
    return total - spent, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    print("| program | library | it would do | without it, s | ratio |\n|---|---|---|---:|---:|")
    for (program, library), purpose in PAIRS.items():
        runs = [seconds(program, library) for _ in range(repeats)]
        ratio = statistics.median(after / before for before, after in runs)
        print(f"| {program} | {library} | {purpose} | {statistics.median(run[0] for run in runs):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
