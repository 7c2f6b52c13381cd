"""Weights that never changed although the answers hang on them: training does not reach a part of the model.

Asked of runs that do not fit. Each module's main weight that is to the bit what it was is moved by a tenth; where that
moves the outputs, the forward pass uses it. What moves nothing (an idle branch, a head for another task) is no fault.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pytest_overfit.adapters.base import Learner
from pytest_overfit.adapters.regularizer_effects.names import listed
from pytest_overfit.adapters.wires import Wires, wires_of
from pytest_overfit.core.verdict import Cause, Finding

#: noise on a weight, as a share of its size, and how far outputs go that it moves
_NOISE, _MOVES = 0.1, 1e-5

#: a run of fewer updates tells nothing: some weights change only when others have
_FEWEST = 10

#: weights that are moved one by one; more are not looked at
_MOST = 16

#: names in a sentence
_NAMED = 3

_CUT = Cause(
    "cut_gradient",
    "look behind these layers for what cuts the graph: detach(), .data, .item(), numpy, argmax, rounding, no_grad(), "
    "stop_gradient; if they are meant to stay, freeze them",
)
_LEFT_OUT = Cause(
    "optimizer_wrong_params",
    "give the optimizer all of model.parameters(), with a rate above 0; what is meant to stay, freeze with "
    "requires_grad_(False)",
    "likely",
)


def measured_untrained(
    learner: Learner, parameters: Mapping[str, Any], steps: int, declared: Sequence[str]
) -> dict[str, Any] | None:
    """Names of the parameters that never changed and count, and of those that do not; None: this was not looked at.

    `declared`: patterns of what is to stay as it is.
    """
    unchanged = parameters["unchanged"]
    still = [each for each in unchanged if not any(fnmatchcase(each, one) for one in declared)]
    if steps < _FEWEST or not 0 < len(unchanged) < parameters["tensors"]:
        return None
    if not still:
        return {"used": [], "unused": [], "cut": False}
    try:
        wires = wires_of(learner)
        return None if wires is None else _sorted(wires, still, parameters["without_gradient"])
    except Exception:  # a model may refuse any look inside; it is judged without
        return None


def _sorted(wires: Wires, still: Sequence[str], without_gradient: Collection[str]) -> dict[str, Any]:
    module = {each.name: each.module for each in wires.weights()}
    mains = [each.name for each in wires.weights() if each.main and each.name in still][:_MOST]
    counting = {module[name] for name in mains if _counts(wires, name)}
    used = [name for name in still if module.get(name) in counting]
    return {
        "used": used,
        "unused": [name for name in mains if name not in used],
        "cut": all(name in without_gradient for name in used),
    }


def _counts(wires: Wires, name: str) -> bool:
    """A part of what answers: no teacher that only a loss looks through."""
    moved = wires.moved_by([name], _NOISE)
    return ((moved.outputs if moved.answers is None else moved.answers) or 0.0) > _MOVES


def untrained_findings(measured: Mapping[str, Any]) -> list[Finding]:
    """A fault where the outputs depend on some of them."""
    found = measured.get("untrained")
    if not found or not found["used"]:
        return []
    why = "no gradient reaches them" if found["cut"] else "they have a gradient, and no update uses it"
    count = f"{len(found['used'])} of {measured['parameters']['tensors']} trainable parameters never changed"
    message = f"{count}: {listed(found['used'], _NAMED)}, although the outputs depend on them ({why})"
    return [Finding.failed("never_trained", None, message, _CUT if found["cut"] else _LEFT_OUT)]
