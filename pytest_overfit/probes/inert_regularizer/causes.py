"""The faults that regularisers show which do nothing, or too much, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_overfit.core.verdict import Cause, FindingOutcome

Values = Mapping[str, Any]

_INERT = "inert_regularizer"


def of_noise(noise: Values, outcome: FindingOutcome, always_on: bool) -> Cause | None:
    """Dropout, noise and augmentation layers that failed."""
    if outcome != "failed":
        return None
    name = noise["name"]
    if noise["evaluation"] and not always_on:
        return Cause("random_in_eval", f"let {name} follow the mode of the model: a layer, or training=self.training")
    if not noise["called"]:
        return Cause(_INERT, f"call {name} in the forward pass, or take it out")
    if noise["training"] and noise["used"] is False:
        return Cause(_INERT, f"go on with the result of {name}: x = dropout(x)")
    if noise["switched_off"]:
        return Cause(_INERT, f"set {name} to training mode before the loop: model.train()")
    return Cause(_INERT, f"give {name} a rate that drops something in training, or take it out")


def of_shrinkage(given: Values, outcome: FindingOutcome, nothing: bool) -> Cause | None:
    """Weight decay and penalties that failed; one that does something, but less than was asked, shows no fault."""
    if outcome != "failed" or not nothing:
        return None
    name = given["name"]
    if given["learning_rate"] == 0:
        return Cause("lr_zero", "set a learning rate above 0")
    if given["kind"] == "penalty":
        return Cause("regularizer_not_in_loss", f"add {name} to the loss that the training step differentiates")
    if not given["reached"] and not given["why"]:
        return Cause(_INERT, f"let {name} reach parameters that have a gradient: unfreeze them, or use them in forward")
    return Cause(_INERT, f"raise {name} until learning rate times decay is seen by the weights, or take it out")


def of_data(given: Values) -> Cause | None:
    """Augmentation that makes the same of a sample each time, and random data in evaluation."""
    name, varies = given["split"], given["varies"]
    if given["trains"]:
        return None if varies else Cause(_INERT, f"give {name}= a transform that draws anew for each reading")
    return Cause("random_in_eval", f"give {name}= a transform without random parts") if varies else None
