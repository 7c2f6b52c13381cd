"""Weights that start at zero, all alike, or at a size from which nothing is learnt; ReLUs that never switch on."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.adapters.programs import Change, WeightFacts
from pytest_overfit.diagnosis.hypotheses import BROKEN, SUSPECT, Hypothesis
from pytest_overfit.diagnosis.levels import level
from pytest_overfit.diagnosis.symptoms import Symptoms

#: so many layers of ReLU, each drawn a little small, leave nothing of the signal
_DEEP = 3

#: sizes further off than this from the framework's own are suspicious
_LARGE, _SMALL = 5.0, 0.1

#: a layer with more dead units than this gives next to nothing on
_DEAD = 0.9


def suspected(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """The most telling state first."""
    matrices = [each for each in symptoms.matrices if len(each.shape) > 1]
    zero = [each for each in matrices if each.size == 0]
    alike = [each for each in matrices if each.equal_units and each.size > 0]
    sizes = [(each.size / each.usual, each) for each in matrices if each.usual and each.size]
    if zero and (len(zero) > 1 or len(zero) == len(matrices)):
        yield from _of_weights(symptoms, "zero_init", f"{_names(zero)} start at zero", BROKEN)
    if alike:
        what = f"all units of {_names(alike)} start alike, so they stay alike"
        yield from _of_weights(symptoms, "constant_init", what, BROKEN)
    large, small = max(sizes, default=None, key=_share), min(sizes, default=None, key=_share)
    if large is not None and large[0] > _LARGE:
        what = f"weights start {large[0]:.2g} times as large as usual ({large[1].name})"
        yield from _of_weights(symptoms, "too_large_init", what, BROKEN + 3)
    if small is not None and small[0] < _SMALL:
        what = f"weights start at {small[0]:.2g} of the usual size ({small[1].name})"
        yield from _of_weights(symptoms, "too_small_init", what, BROKEN + 3)
    rectified = [each for each in symptoms.hidden_activations if each.function == "relu"]
    dead = [each for each in rectified if each.dead > _DEAD]
    if dead:
        worst = max(dead, key=lambda each: each.dead)
        what = f"{worst.dead:.0%} of the units of {worst.where} are 0 for every row before the first update"
        yield from _of_weights(symptoms, "dead_relu", what, BROKEN + 2, broken=worst.dead == 1.0)
    elif rectified and max(each.dead for each in rectified) > _DEAD / 2:
        most = max(rectified, key=lambda each: each.dead)
        what = f"{most.dead:.0%} of the units of {most.where} are 0 for every row before the first update"
        yield from _of_weights(symptoms, "dead_relu", what, SUSPECT + 2)


def _share(sized: tuple[float, WeightFacts]) -> float:
    return sized[0]


def _names(weights: list[WeightFacts]) -> str:
    more = f" and {len(weights) - 2} more" if len(weights) > 2 else ""
    return " and ".join(each.name for each in weights[:2]) + more


def _of_weights(symptoms: Symptoms, fault: str, what: str, rank: int, broken: bool = False) -> Iterator[Hypothesis]:
    """As the framework draws them; where ReLUs follow each other, that may be too small by itself."""
    hidden = symptoms.hidden_activations
    changes = [(Change(kind="drawn_anew"), "with weights drawn as the framework draws them")]
    if sum(each.function == "relu" for each in hidden) >= _DEEP:
        changes.append((Change(kind="drawn_anew", value="relu"), "with a Kaiming initialisation"))
    for change, changed in changes:
        yield Hypothesis(
            fault=fault,
            family="initialisation",
            what=what,
            observed=level(symptoms),
            change=change,
            changed=changed,
            cure="leave the weights as the layer's class draws them, or use a Kaiming or Glorot initialisation",
            rank=rank,
            broken=broken,
        )
