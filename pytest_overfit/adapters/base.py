"""What an adapter must offer: a `Learner`, which a probe can step, read and question.

Everything that crosses this border is a float, a string or a numpy array.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from pytest_overfit.core.arrays import Array

#: how the model is switched while it is read:
#: "fit"          stochastic layers off, batch normalisation on the batch's own statistics (left unchanged)
#: "eval"         as the framework evaluates
#: "train"        as the framework trains, but nothing is updated
#: "reestimated"  as "eval", with running statistics first re-estimated on this batch (restored after)
Mode = Literal["fit", "eval", "train", "reestimated"]

#: what is drawn at random each time a loss is computed, by design:
#: ""         nothing
#: "loss"     something in the loss, or in a step of the user's, besides the model's dropout
#: "targets"  what the loss compares predictions with: noise added to targets
#: "task"     what the model hands to its loss beside predictions: noise to be predicted, a mask
#: "inputs"   something inside the model, where the loss is made of the inputs alone: perhaps such a task
Drawn = Literal["", "loss", "targets", "task", "inputs"]

#: losses with a closed form; "" for all others
Plain = Literal["", "cross_entropy", "binary_cross_entropy", "squared_error", "absolute_error"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """One prediction with its target, as the loss saw them."""

    #: "" where there is one head only
    name: str = ""
    #: what the pair can be scored as
    kind: Literal["classes", "binary", "values"]
    #: (rows, ...), floating point
    outputs: Array
    #: (rows, ...); class indices without the class axis, or probabilities with it
    targets: Array
    #: axis of `outputs` that holds the classes
    class_axis: int = -1
    #: what the outputs are on: decides the threshold of "binary" and what free outputs may be
    domain: Literal["unbounded", "probabilities", "log_probabilities"] = "unbounded"
    #: shape of `targets`, without the class axis: True where a target counts; None: all count
    mask: Array | None = None
    #: the loss is exactly this one, times `scale`, averaged over the counted targets; and nothing else is in it
    plain: Plain = ""
    scale: float = 1.0
    #: least value a recognised loss can have when it is used as documented; None: unknown
    minimum: float | None = None
    #: name of the recognised loss function, for messages
    loss_name: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """The model's answer on the batch in one mode, without any update."""

    #: the data term of the user's loss: penalties on weights are taken off; None where it cannot be read
    loss: float | None
    #: the raw outputs, leaf by leaf; empty where there are none
    outputs: tuple[Array, ...] = ()
    #: predictions with their targets, of recognised losses only
    heads: tuple[Head, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterFacts:
    """What the steps made so far did to the parameters."""

    #: number of scalar parameters that the optimizer may change
    trainable: int
    #: scalar parameters frozen by their owner
    frozen: int
    #: names of trainable parameters whose gradient was missing or exactly zero at the last step
    without_gradient: tuple[str, ...] = ()
    #: names of trainable parameters that are, to the bit, what they were at the start
    unchanged: tuple[str, ...] = ()
    #: how many trainable parameters (tensors) there are
    tensors: int = 0
    #: |change since the start| / |start|, over all trainable parameters together; None: not measured
    moved: float | None = None
    #: parameters, gradients and floating buffers that are NaN, or infinite where they were finite before the first
    #: update: one sentence each, in the order of the modules
    not_finite: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningStatistics:
    """How far one normalisation layer's running statistics have moved towards the batch's."""

    name: str
    #: weight of the new batch in one update, torch's convention (Keras' momentum is 1 minus this)
    momentum: float | None
    #: distance now / distance at the start, of running statistics to this batch's; 1.0: not moved
    remaining: float
    #: share of the running means' movement that leads elsewhere than to this batch's
    stray: float = 0.0
    #: how often one pass of the model calls the layer, each call with statistics of its own
    calls: int = 1
    #: how far from this batch's they come to rest where training goes on and the weights stand still, in spreads of the
    #: batch and beyond what two training passes differ; None: not measured
    off: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtRest:
    """Where running statistics come to rest when training goes on and the weights stand still."""

    #: by the layer's name, as `RunningStatistics.off`
    off: Mapping[str, float]
    #: evaluation with them
    reading: Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """One place of a model that changes its input at random: dropout of any kind, noise, an augmentation layer."""

    kind: Literal["dropout", "noise", "augmentation"]
    #: what and where, e.g. "Dropout block1.drop"
    name: str
    #: the declared probability; None: it declares none, so it is unknown whether it should have changed something
    rate: float | None
    #: measured size of the change in a training pass: the share of entries that were dropped, or the relative
    #: difference of two answers to one input; 0.0: none, None: unknown (its inputs are zeros)
    training: float | None
    #: the same in an evaluation pass; 0.0 also where evaluation does not come by, None: unknown, or no pass was made
    evaluation: float | None
    #: it was called in training
    called: bool = True
    #: the module around it was called in training
    reached: bool = True
    #: the model's outputs depend on what it gave; None: not known
    used: bool | None = None
    #: it was in evaluation mode while the model trained
    switched_off: bool = False
    #: so was a whole part around it, all of whose parameters are frozen
    frozen: bool = False
    #: it makes one thing of an input, the same in training and in evaluation, and not the input itself
    fixed: bool = False
    #: the module around it is of an installed library, whose author may have made it for other settings
    of_library: bool = False
    #: the class that it is made from, where that changes this input in training and this one's own call does not
    held_back: str = ""
    #: what its owner should know of it, in words
    why: str = ""
    #: why its effect in training is unknown, in words
    doubt: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shrinkage:
    """What pulls weights towards zero: weight decay of an optimizer, or a penalty in the loss."""

    kind: Literal["weight decay", "penalty"]
    #: e.g. "weight_decay 0.01 of AdamW", "L2 of dense_1"
    name: str
    #: share of the weights' length that one step takes away, beyond what it does without; None: not measured
    rate: float | None
    #: tensors that it is declared for, and how many of them it reached
    tensors: int
    reached: int
    #: the rate that the declared numbers stand for without momentum and scaling: learning rate times decay
    nominal: float | None = None
    #: share of a weight that its number type rounds away
    rounding: float = 0.0
    #: learning rate that was used, the highest that a schedule declares
    learning_rate: float | None = None
    #: the number is the optimizer's own default, which its owner may not know of
    by_default: bool = False
    #: share of the training loss; None: not a penalty, or not measured
    share: float | None = None
    #: what its owner should know of it, in words
    why: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regularizers:
    """What regularises a learner's training, as measured."""

    noises: tuple[Noise, ...] = ()
    shrinkages: tuple[Shrinkage, ...] = ()
    #: places whose probability is 0
    off: tuple[str, ...] = ()
    #: what could not be looked at, in words
    remarks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class GradientsInParts:
    """Each gradient is one vector of all trainable parameters."""

    whole: Array
    #: the same a second time: what differs is drawn at random
    again: Array
    #: rows and gradient of each part
    parts: Sequence[tuple[int, Array]]
    #: computed in half precision, at least in part
    coarse: bool = False


class Learner(Protocol):
    """One live model with its loss and optimizer, on one batch.

    A learner may be stepped and read in any order. Reading never changes what later steps do. What has a body here is
    optional: it answers that it is not known.
    """

    framework: str
    #: leaves of the inputs and of the targets, rows first, as numpy arrays
    inputs: tuple[Array, ...]
    targets: tuple[Array, ...]
    #: a learning-rate schedule may still change what a step does
    has_schedule: bool
    #: how the loss was stepped and read, for the verdict: plain words, "" where there is nothing to say
    remarks: tuple[str, ...]
    #: the model draws noise and scales it itself (latent samples): random by design, also where it evaluates
    samples: bool

    def train(self, steps: int) -> list[float]:
        """Make `steps` updates and return the training loss of each, as the user's loop would print it."""

    def schedule_is_declared(self) -> bool:
        """A schedule was declared: a run ends where it was planned to end. A step of the user's may hide one."""
        return self.has_schedule

    def last_pass(self) -> Reading | None:
        """What the last training step saw before its update, as `read("fit")` would have; None: it saw other things.

        Free of cost where training and "fit" are the same: no dropout, nothing random. Before the first step it is a
        training pass that the learner was made with.
        """
        return None

    def read(self, mode: Mode) -> Reading:
        """Read loss and outputs of the whole batch."""

    def outputs_for(self, rows: Sequence[int]) -> tuple[Array, ...] | None:
        """Eval-mode outputs for a batch made of these rows; None where the model cannot be asked."""

    def draws_in_evaluation(self) -> bool | None:
        """Asked where evaluation answers one input in two ways: by random numbers? None: not known.

        False where it also does when all random numbers are the same: something outside keeps state.
        """
        return None

    def drawn(self) -> Drawn:
        """What the loss draws of its own. Asked where a run did not end well, because it may cost a few steps."""
        return ""

    def outputs_along(self, axis: int, order: Sequence[int]) -> tuple[Array, ...] | None:
        """Eval-mode outputs with this axis of the inputs in another order; None: not known, or rows come first."""
        del axis, order
        return None

    def loss_and_gradient(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        """The data term with `outputs` in place of the model's, and its gradient; None: cannot be substituted."""
        del outputs
        return None

    def heads_for(self, outputs: Sequence[Array]) -> tuple[Head, ...]:
        """The heads of the loss with `outputs` in place of the model's; empty where they cannot be substituted."""
        del outputs
        return ()

    def shared_outputs(self) -> Sequence[int]:
        """For each output the first one that is the same function of another input (siamese nets), else itself."""
        return range(len(self.read("fit").outputs))

    def loss_needs_targets(self) -> bool:
        """False where the loss is made of the inputs alone: there are no targets, or a step does not look at them."""

    def blinded(self) -> Learner:
        """A new learner from the same factory and seed whose inputs are row 0 repeated; targets as they are."""

    def score(self) -> float | None:
        """The case's own `score`, or None."""

    def parameters(self) -> ParameterFacts:
        """What training has done to the parameters so far."""

    def scale_rate(self, factor: float) -> bool:
        """Multiply the learning rate; False: it cannot be set, or a schedule would set it again."""
        del factor
        return False

    def equal_units(self) -> Sequence[str]:
        """Names of weights whose units started equal and are so still: these cannot learn different things."""
        return ()

    def statistics(self) -> list[RunningStatistics]:
        """Running statistics of normalisation layers that are updated in training."""
        return []

    def at_rest(self) -> AtRest | None:
        """Repeat training passes while the weights stand still; None: they cannot be repeated.

        Asked after the last step: a step of the user's moves its optimizer on, and its schedule.
        """
        return None

    def differing_module(self, first: Mode, second: Mode) -> str | None:
        """Name of the first module, innermost first, that answers the same input differently in the two modes.

        With "eval" twice: the module that is random in evaluation. None: there is none, or it cannot be found.
        """
        del first, second
        return None
