"""CPU seconds of single answers that were once too dear.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.cpu_seconds [tiles] [keras] [--runs 5]

`tiles`: near-copies among 135 colour tiles of 32 x 32 (3,072 columns) of a photograph that scikit-learn ships, 45 of
them brighter by one in the other split. `keras`: the probe `regularization` on a small network on digits, TensorFlow on
one thread, tracing included in the first run, which is a process's first. Prints each run and the median.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
from collections.abc import Callable

import numpy as np


def cpu_seconds(ask: Callable[[], str]) -> tuple[float, str]:
    """CPU time of this process for one answer, and the answer."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    said = ask()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, said


def tiles() -> Callable[[], str]:
    """The search among tiles."""
    from sklearn.datasets import load_sample_image

    from pytest_overfit import find_duplicates

    picture, side = load_sample_image("china.jpg"), 32
    corners = [(top, left) for top in range(0, 384, side) for left in range(0, 608, side)][:135]
    cut = np.stack([picture[top : top + side, left : left + side] for top, left in corners])
    brighter = np.minimum(cut[45:90], 254) + 1
    return lambda: str(find_duplicates(train=cut, val=brighter)).splitlines()[0][:100]


def keras() -> Callable[[], str]:
    """The probe on digits."""
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
    import keras
    from sklearn.datasets import load_digits

    from pytest_overfit import Case, run_probes

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")

    def model() -> keras.Model:
        made = keras.Sequential(
            [keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dropout(0.3)]
        )
        made.add(keras.layers.Dense(10))
        made.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return made

    case = Case(name="digits", model=model, train=(x[:1000], y[:1000]), val=(x[1000:], y[1000:]))
    return lambda: run_probes(case, ["regularization"])[0].summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["tiles", "keras"])
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    for name in given.what:
        ask = {"tiles": tiles, "keras": keras}[name]()
        runs = [cpu_seconds(ask) for _ in range(given.runs)]
        shown = " ".join(f"{seconds:.2f}" for seconds, _ in runs)
        print(f"{name}: {shown}, median {statistics.median(seconds for seconds, _ in runs):.2f} s; {runs[-1][1]}")


if __name__ == "__main__":
    main()
