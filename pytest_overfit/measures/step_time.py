"""How long a training step takes, beside a fixed piece of arithmetic.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

#: size of the two float32 matrices whose product is the reference: 34 million operations
SIZE = 256

#: turns of both; the median is untouched by the few in which something else had the processor
_TURNS = 15

#: seconds of one turn at least, so that clocks and calls are small beside it
_TURN = 2e-3

#: calls of one turn at most
_MOST = 50


def step_time(
    train: Callable[[int], object], kernel: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Median ratio of one step's seconds to one call's of `kernel`, measured in turns.

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

    train(1)
    kernel()
    steps, calls = _count(seconds(lambda: train(1))), _count(seconds(kernel))
    turns = [(seconds(lambda: train(steps)) / steps, seconds(lambda: kernels(calls)) / calls) for _ in range(_TURNS)]
    return statistics.median(step / max(call, 1e-12) for step, call in turns)


def _count(once: float) -> int:
    """How many make up a turn."""
    return max(2, min(_MOST, math.ceil(_TURN / max(once, 1e-9))))


def numpy_kernel() -> Callable[[], object]:
    """The reference where the framework brings none of its own."""
    import numpy as np

    matrix = np.linspace(-1.0, 1.0, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    return lambda: matrix @ matrix
