"""How long a training step takes, beside a fixed piece of arithmetic."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

#: size of the two float32 matrices whose product is the reference: 34 million operations
SIZE = 256

#: turns of both. The least time of each counts: whatever else a machine does makes a turn longer, never shorter. With
#: five jobs on two cores, an MLP's median of 15 ratios had a spread of 30 % from run to run, the least of 30 turns 8 %
_TURNS = 30

#: seconds of one turn at least, so that clocks and calls are small beside it
_TURN = 2e-3

#: calls of one turn at most
_MOST = 50


def step_time(
    train: Callable[[int], object], kernel: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """One step's seconds over one call's of `kernel`: the least of each over turns that they take one after the other.

    `train(steps)` makes so many steps and returns when they are done. What is done once (tracing, making an
    optimizer's state) is over before the first turn.
    """

    def seconds(run: Callable[[], object]) -> float:
        start = clock()
        run()
        return clock() - start

    def kernels(count: int) -> None:
        for _ in range(count):
            kernel()

    def count(run: Callable[[], object]) -> int:
        """How many make up a turn."""
        once = min(seconds(run) for _ in range(3))
        return max(1, min(_MOST, math.ceil(_TURN / max(once, 1e-9))))

    train(1)
    kernel()
    steps, calls = count(lambda: train(1)), count(kernel)
    turns = [(seconds(lambda: train(steps)) / steps, seconds(lambda: kernels(calls)) / calls) for _ in range(_TURNS)]
    return min(step for step, _ in turns) / max(min(call for _, call in turns), 1e-12)


def numpy_kernel() -> Callable[[], object]:
    """The reference where the framework brings none of its own."""
    matrix = np.linspace(-1.0, 1.0, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    return lambda: matrix @ matrix
