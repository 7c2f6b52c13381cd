"""Lists for the command line, made only when they are asked for.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations


def quantity_lines() -> list[str]:
    """Every quantity that can be bounded: name, unit, what it is, cost."""
    from pytest_overfit.probes.bounds import quantity_lines as lines

    return lines()
