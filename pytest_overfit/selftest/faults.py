"""The faults that a self-test plants, by their names in the fault vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pytest_overfit.adapters.planting import Ground, Plant, plants_of
from pytest_overfit.adapters.programs import UnchangeableError
from pytest_overfit.core.case import Case
from pytest_overfit.selftest.data import PLANTS as IN_DATA


@dataclasses.dataclass(frozen=True)
class PlantedFault:
    """One fault that can be planted."""

    name: str
    #: what is planted, in words
    what: str
    #: other names that are true of it as well
    also: tuple[str, ...] = ()
    #: what the adapters call it; "": by its name
    plant: str = ""

    @property
    def accepted(self) -> tuple[str, ...]:
        return (self.name, *self.also)


_SOFTMAX_AXIS = ("batch_mixing", "double_softmax")
_NOT_LEARNT = ("optimizer_wrong_params", "unregistered_parameters")

#: in the order of the table
FAULTS: tuple[PlantedFault, ...] = (
    PlantedFault("double_softmax", "a softmax on top of the scores", ("bounded_logits",)),
    PlantedFault("double_sigmoid", "a sigmoid on top of the scores", ("bounded_logits",)),
    PlantedFault("missing_softmax", "the last softmax is taken off", ("softmax_without_log",)),
    PlantedFault("missing_sigmoid", "the last sigmoid is taken off"),
    PlantedFault("softmax_wrong_axis", "a softmax over the rows", _SOFTMAX_AXIS),
    PlantedFault("relu_on_logits", "a ReLU on top of the scores"),
    PlantedFault("output_range", "a sigmoid on top of the predicted quantities", ("unnormalised_target",)),
    PlantedFault("wrong_loss", "squared error of class numbers, or cross-entropy of quantities",
                 ("target_broadcast", "label_out_of_range")),
    PlantedFault("target_broadcast", "targets (n,) against outputs (n, 1)"),
    PlantedFault("wrong_reduction", "the loss is a sum in place of a mean"),
    PlantedFault("dropout_on_output", "dropout of a half after the last layer", ("excessive_dropout",)),
    PlantedFault("detached_graph", "the outputs are detached"),
    PlantedFault("cut_gradient", "what the last layer is given is detached", ("detached_graph",)),
    PlantedFault("frozen_parameters", "all but the last layer is frozen"),
    PlantedFault("unregistered_parameters", "the framework does not know of the first layer", _NOT_LEARNT),
    PlantedFault("unused_parameters", "a branch is multiplied by zero"),
    PlantedFault("optimizer_wrong_params", "the optimizer holds the last layer only"),
    PlantedFault("missing_zero_grad", "gradients pile up from step to step"),
    PlantedFault("gradient_ascent", "the loss has the other sign"),
    PlantedFault("update_skipped", "the optimizer makes no update"),
    PlantedFault("grad_clip_too_small", "gradients are clipped to a norm of 1e-6", ("lr_too_low",)),
    PlantedFault("lr_zero", "the learning rate is 0"),
    PlantedFault("lr_too_low", "the learning rate times 1e-4"),
    PlantedFault("lr_too_high", "the learning rate times 1e4"),
    PlantedFault("bad_adam_epsilon", "an epsilon of 1e4", ("lr_too_low",)),
    PlantedFault("schedule_kills_rate", "the learning rate times 0.7 after each step"),
    PlantedFault("excessive_weight_decay", "weight decay that halves the weights in each step"),
    PlantedFault("zero_init", "all matrices start at zero"),
    PlantedFault("constant_init", "all units of a layer start alike"),
    PlantedFault("over_confident_start", "the last layer starts a hundred times as large", ("too_large_init",)),
    PlantedFault("dead_relu", "biases of -1e4 before each ReLU"),
    PlantedFault("nan_parameter", "one weight starts as NaN"),
    PlantedFault("excessive_dropout", "dropout of 99 % before the last layer"),
    PlantedFault("random_in_eval", "dropout that stays on in evaluation"),
    PlantedFault("inert_regularizer", "dropout that never drops", plant="never_drops"),
    PlantedFault("batchnorm_eval_mismatch", "running statistics that never move"),
    PlantedFault("batch_mixing", "each output has that of the row before added"),
    PlantedFault("input_ignored", "the inputs are multiplied by zero", ("constant_input", "input_unused")),
    PlantedFault("sqrt_zero_gradient", "a square root at zero in the loss", ("nan_parameter",)),
    PlantedFault("constant_input", "every row has the inputs of the first", ("input_ignored", "conflicting_labels")),
    PlantedFault("nan_in_input", "one number of the inputs is NaN"),
    PlantedFault("unnormalised_input", "the inputs times 1e4"),
    PlantedFault("unnormalised_target", "the target quantities times 1e4"),
    PlantedFault("labels_collapsed", "every row has the targets of the first"),
    PlantedFault("label_off_by_one", "classes are counted from 1", ("label_out_of_range", "wrong_output_units")),
    PlantedFault("conflicting_labels", "every second row has the inputs of the one before"),
    PlantedFault("misaligned_labels", "the targets of train= are shuffled among its rows"),
    PlantedFault("classes_renumbered", "the classes of val= or test= carry other numbers", ("misaligned_labels",)),
    PlantedFault("unseen_class", "train= has no row of the last class"),
    PlantedFault("label_in_input", "the last column of the inputs is the target"),
    PlantedFault("split_leak", "half of the rows of val= or test= are rows of train="),
)  # fmt: skip


def planted_in(ground: Ground, framework: str, faults: tuple[PlantedFault, ...]) -> Mapping[str, Case | str]:
    """For each fault the case with it, or why it has no place in this one."""
    plants: dict[str, Plant] = {**IN_DATA, **plants_of(framework)}
    return {each.name: _planted(ground, plants.get(each.plant or each.name), framework) for each in faults}


def _planted(ground: Ground, plant: Plant | None, framework: str) -> Case | str:
    if plant is None:
        where = {"keras": "in Keras the framework does this itself"}
        return where.get(framework, "a loop around neither torch nor Keras cannot be changed from outside")
    try:
        return plant(ground)
    except UnchangeableError as reason:
        return str(reason)
    except Exception as error:  # whatever the program meets where it is changed
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
