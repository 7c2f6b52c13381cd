"""How often is a curve that stands said to fall, and one that falls to stand? `python -m benchmarks.error_rates.trends`

Curves with 20 readings over 500 steps, of which `trend` looks at the last nine. Noise is white, or follows itself
with a correlation of 0.7 from reading to reading, as the noise of an optimizer does.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

from pytest_overfit.measures.memorising.trend import WINDOW, trend

CURVES = 4_000
STEPS = range(25, 501, 25)
GOAL = 0.05


def noise(draw: random.Random, size: float, memory: float) -> Iterator[float]:
    value = draw.gauss(0.0, size)
    while True:
        yield value
        value = memory * value + draw.gauss(0.0, size * math.sqrt(1 - memory**2))


def share_falling(fall: float, size: float, memory: float) -> float:
    """Share of curves, at half of the constant's loss, that are said to fall; `fall`: what they do in the window."""
    draw, rate = random.Random(0), fall / (WINDOW * STEPS[-1])
    found = 0
    for _ in range(CURVES):
        curve = zip(STEPS, noise(draw, size, memory), strict=False)
        values = [0.5 * math.exp(rate * (STEPS[-1] - step) + each) for step, each in curve]
        found += trend(STEPS, values, GOAL).still_falling
    return found / CURVES


def main() -> None:
    print("| noise | correlation | stands, said to fall | falls by 10 %, said to stand | by 30 % |")
    print("|---|---|---|---|---|")
    for size, memory in itertools.product((0.01, 0.03, 0.1), (0.0, 0.7)):
        stands, tenth, third = (share_falling(fall, size, memory) for fall in (0.0, 0.1, 0.3))
        print(f"| {size:.0%} | {memory} | {stands:.1%} | {1 - tenth:.1%} | {1 - third:.1%} |")


if __name__ == "__main__":
    main()
