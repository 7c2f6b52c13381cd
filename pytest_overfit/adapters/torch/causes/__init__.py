"""Which fault an exception of PyTorch shows, by its message and by what it was raised on."""

from __future__ import annotations

from pytest_overfit.adapters.causes.table import Crash, first
from pytest_overfit.adapters.torch.causes import dtypes, graph, optimizers, shapes, targets
from pytest_overfit.adapters.torch.causes.scene import Scene
from pytest_overfit.core.verdict import Diagnosis

#: in this order: what a loss function refuses is a matter of targets before it is one of shapes
_RULES = (*targets.RULES, *shapes.RULES, *dtypes.RULES, *graph.RULES, *optimizers.RULES)


def cause_of(crash: Crash) -> Diagnosis | None:
    """The fault that the message shows, with names and sizes off the traceback; None: it shows none."""
    return first(_RULES, Scene(crash.error, crash.call))
