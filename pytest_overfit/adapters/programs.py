"""What a diagnosis asks of a framework: what a program is made of, and the same program with one thing changed.

Torch and Keras give these primitives; which change is tried when, and what a cure proves, is written once, in the
diagnosis. Everything that crosses this border is a float, a string, a numpy array or a `Learner`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol, cast

from pytest_overfit.adapters.base import Learner
from pytest_overfit.adapters.frameworks import part_of

#: functions between layers that are known by name; "other" for one that is not
Function = Literal["relu", "sigmoid", "tanh", "softmax", "log_softmax", "log_sigmoid", "softplus", "other"]

#: what a change does to the program; `Change.value`, `Change.factor` and `Change.at` say more
Kind = Literal[
    "rate",  # every learning rate times `factor`
    "rate_to",  # every learning rate is `factor`, without a schedule
    "reversed",  # updates go the other way
    "negated",  # the loss has the other sign
    "epsilon",  # the optimizer's epsilon is `factor`
    "without",  # `value`: "dropout", "decay" (weight decay and penalties), "clipping", "schedule"
    "activation",  # that number `at` is taken off, or is `value` instead, with the axis `factor` where it is a softmax
    "activations",  # all hidden ones are `value` instead, and weights are drawn anew for it
    "between",  # `value` is put between layers that follow each other directly
    "on_top",  # `value` is put on top of the outputs
    "loss",  # `value` is the loss: "cross_entropy", "binary_cross_entropy", "squared_error"; of raw scores
    "standardised",  # `value`: "inputs", "targets", or "given" (to `Anatomy.given`): columns have mean 0 and spread 1
    "targets_shaped",  # targets have the shape of the outputs
    "drawn_anew",  # weights are drawn as the framework draws them; `value` "relu": for layers of it
    "pooled",  # recurrent layers give the greatest of all steps so far
    "all_trained",  # every parameter is trainable and in the optimizer
    "zero_grad",  # gradients are zero before each step
    "attached",  # what detaches a part of the graph, or rounds inside it, does not
    "shortcuts",  # each layer of one size adds what it was given to what its activation gives
    "wider",  # hidden layers have `factor` times the units
    "rows_first",  # layers that mix rows take the rows where the batch has them
    "guarded",  # logarithms, roots and divisions keep a small distance from where they have no value or slope
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is done to a program."""

    kind: Kind
    value: str = ""
    factor: float = 1.0
    #: which one of `Anatomy.activations`
    at: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation:
    """One call of a function between layers, or after the last."""

    function: Function
    #: where, as its owner knows it: "Softmax 4", "torch.softmax in Net", "activation of Dense 'dense_2'"
    where: str
    #: axis of a softmax, counted from the front; None for others
    axis: int | None = None
    #: size of its last axis, or of the axis of units behind a convolution
    units: int = 0
    #: it makes what the model answers, but for reshapes
    last: bool = False
    #: the function that makes what the model answers takes what it gives, but for reshapes
    feeds_last: bool = False
    #: share of its units that give the same for every row: ReLUs 0
    dead: float = 0.0
    #: share of its values that are within 1 % of the end of its range: sigmoid and tanh only
    saturated: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dropping:
    """Dropout of any kind."""

    where: str
    rate: float
    #: behind the last layer with weights
    last: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightFacts:
    """One parameter as the factory made it."""

    name: str
    #: what its module is, for messages: "Linear"
    kind: str
    shape: tuple[int, ...]
    #: of its module: outputs of a linear layer, channels of a convolution; 0: it has none of its own
    units: int = 0
    #: the main one of its module: a matrix or a kernel, no bias, scale or embedding
    main: bool
    trainable: bool
    #: an optimizer holds it; None: not known
    held: bool | None
    #: root of the mean of squares
    size: float
    #: the same as the framework's own initialisation makes it, 1 / sqrt(inputs of a unit); 0.0: not known
    usual: float = 0.0
    #: all its units are the same
    equal_units: bool = False
    #: norm of the first gradient over root of the number of weights; None: none came, or it is not known
    gradient: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerFacts:
    """What an optimizer was made with; of several, the first."""

    kind: str
    #: None: not known
    rate: float | None = None
    epsilon: float | None = None
    #: the largest weight decay
    decay: float = 0.0
    #: gradients are clipped to this norm or value; None: not by the optimizer
    clipping: float | None = None
    scheduled: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """An operation on the way to what a step differentiates, behind which no gradient comes."""

    #: as a person would call it: "detach", "no_grad", "argmax", "round"
    operation: str
    #: module or layer, as its owner knows it; "" where it is not known
    where: str
    #: False: it has no slope itself, so that nothing that leaves the graph whole would help
    smooth: bool
    #: parameters that it was computed from
    behind: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """What a first layer with weights is given."""

    #: the layer, as its owner knows it
    where: str
    #: root of the mean of squares of all numbers
    size: float
    #: some row of it differs from the first
    varies: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What a program is made of, before its first update."""

    #: in the order of the calls
    activations: tuple[Activation, ...] = ()
    #: in the order of the layers
    weights: tuple[WeightFacts, ...] = ()
    dropping: tuple[Dropping, ...] = ()
    optimizer: OptimizerFacts | None = None
    #: pairs of layers with weights that follow each other with nothing between them
    direct: tuple[tuple[str, str], ...] = ()
    #: penalties on weights or outputs, in words
    penalties: tuple[str, ...] = ()
    #: functions that the loss calls, by the names that their owner knows
    losses: tuple[str, ...] = ()
    #: floating point inputs as the first layers with weights get them
    given: tuple[Given, ...] = ()
    #: tensors to be trained that a pass uses, kept in the model where its framework does not look
    unregistered: tuple[str, ...] = ()
    #: what cuts the first step's gradient; looked for where some parameter gets none
    cuts: tuple[Cut, ...] = ()
    #: what the first step differentiates depends on some parameter; None: not known
    depends: bool | None = None
    #: share of the gradient that clipping leaves the optimizer in the first step; None: not known
    kept: float | None = None
    #: gradient of the first step of a sequence that a recurrent layer reads, over the largest; None: it reads none
    faded: float | None = None
    #: by which the step takes numbers out of the graph: "item", "numpy"
    taken_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the first number came from that is not finite."""

    #: the step in which it came, from 1
    step: int
    #: module or layer, as its owner knows it; "the loss"; "" where it is not known
    where: str
    #: "log", "sqrt", "div", "pow", "exp", ... in small letters; "" where it is not known
    operation: str
    #: it came in the backward pass of that operation
    backward: bool
    #: what the operation was given, e.g. 0.0 for a logarithm of zero; None: not known
    given: float | None = None


class UnchangeableError(Exception):
    """A program cannot be changed so; the message is the reason, in words."""


class Program(Protocol):
    """A case on its batch, to be changed and built again. The learner that it was opened on stays as it is."""

    def anatomy(self) -> Anatomy:
        """What it is made of; costs one build, a forward and a backward pass."""

    def changed(self, change: Change) -> Learner:
        """A new learner of the changed program, from the same seed. Raises `UnchangeableError`."""

    def again(self, seed: int) -> Program:
        """The same program from another seed."""

    def origin(self, steps: int) -> Origin | None:
        """Train anew, watched, for at most so many steps, until something is not finite; None: nothing was."""


def program_of(learner: Learner) -> Program | None:
    """None: a loop of the user's own around neither framework, which nobody can change from outside."""
    module = part_of(learner.framework, "programs")
    return None if module is None else cast("Program", cast("Any", module).open_program(learner))
