"""What the probe of the wiring asks a framework: whose parameters, what one update does to them, what moves what.

Torch and Keras give these primitives; the experiments with them are written once, in the probe. Everything that crosses
this border is a float, a string or a numpy array.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from pytest_overfit.adapters.base import Learner, Reading
from pytest_overfit.adapters.frameworks import part_of
from pytest_overfit.core.arrays import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weight:
    """One parameter (a tensor), by the name that its owner knows."""

    name: str
    #: path of the module or layer that owns it, "" for the model itself
    module: str
    #: what that module is, for messages
    kind: str
    #: its owner lets it be trained
    trainable: bool
    #: it is its module's main one, not a bias or a scale beside it
    main: bool = False
    #: the module around its own is of an installed library, whose author may have made it for other settings
    of_library: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackwardPass:
    """One computation of gradients."""

    #: norm of what it added to each trainable parameter's gradient; None: it did not come by
    gradients: Mapping[str, float | None]
    #: parameters whose gradient was not zero before it
    onto: frozenset[str] = frozenset()
    #: those of which it was, to the bit, what an optimizer had last stepped with
    carried: frozenset[str] = frozenset()
    #: what was differentiated, where it is one number
    value: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerStep:
    """One call of an optimizer's `step`."""

    #: which optimizer, numbered as they were first seen
    optimizer: int
    #: its class, for messages
    kind: str
    #: what it holds, group by group
    groups: tuple[tuple[str, ...], ...]
    #: highest learning rate of its groups; None: not known
    rate: float | None
    #: what the call changed
    changed: frozenset[str]
    #: largest product of rate and weight decay: the share of the weights that one step takes; None: not known
    decay: float | None = None
    #: size of the gradients that it was given, as a share of what the last backward pass left
    kept: Mapping[str, float] = dataclasses.field(default_factory=dict)
    #: another optimizer made it as a part of its own step
    inside: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unscaling:
    """A GradScaler divided the gradients."""

    factor: float
    #: what was differentiated had been multiplied
    scaled: bool
    #: something had changed the gradients since the backward pass
    touched: bool


Event = BackwardPass | OptimizerStep | Unscaling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """What one call of the case's own step did, in order."""

    loss: float
    events: tuple[Event, ...]
    #: parameters that are other than before the call, trainable or not
    changed: frozenset[str]
    #: buffers that are other than before the call
    buffers: frozenset[str] = frozenset()
    #: modules that were called
    called: frozenset[str] = frozenset()
    #: rows of each pass that was differentiated
    rows: tuple[int, ...] = ()
    #: the whole model was in evaluation mode in all of these
    in_evaluation: bool = False
    #: parameters that are other tensors than before the call
    replaced: frozenset[str] = frozenset()
    #: share of the last optimizer step that something took back before the call ended
    undone: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moved:
    """How far outputs and loss went when something was changed, as a share of their own size; None: not measured."""

    outputs: float | None
    loss: float | None
    #: what the model answers when it is asked itself; None: these are the outputs
    answers: float | None = None
    #: the losses that its layers add, penalties on weights left out; None: there are none
    added: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descent:
    """What the loss does along one update."""

    #: loss before it
    loss: float
    #: change of the loss that the gradient promises for the whole update
    promised: float
    #: for each short way along it: promised and real change
    changes: tuple[tuple[float, float], ...]
    #: change of the loss by the whole update
    whole: float
    #: nothing on the graph has a backward pass of its own, is detached or discrete
    smooth: bool
    #: a schedule may still change the rate
    scheduled: bool
    #: `wrong_functions` looks at every hand-written backward pass; what then differs is detached or discrete by design
    checked: bool


#: updates that a way along one may be long: a straight line through more is none that training takes
_LONGEST = 10.0


def short_ways(shares: Sequence[float], loss: float, promised: float) -> list[float]:
    """Ways along an update, in updates, that should change the loss by these shares; those too long are left out."""
    if not promised or not math.isfinite(promised) or not math.isfinite(loss):
        return []
    ways = (share * abs(loss) / abs(promised) for share in shares)
    return [way for way in ways if way <= _LONGEST]


class Wires(Protocol):
    """A learner with its insides open. Only `update` changes the model."""

    #: what cannot be looked at in this model, in words
    remarks: tuple[str, ...]

    def weights(self) -> Sequence[Weight]:
        """All parameters, trainable or not; one that stands under two names is there once."""

    def update(self) -> Update:
        """One call of the case's own step, watched."""

    def gradients(self) -> Mapping[str, float | None] | None:
        """Norms of the gradient of the case's loss by each trainable parameter, as in training; None: not known."""

    def moved_by(self, names: Sequence[str], share: float) -> Moved:
        """What noise of this share of its own size, added to each of these parameters, does; then they are put back."""

    def silent(self, names: Sequence[str]) -> bool:
        """The modules' outputs are multiplied by one number, which is exactly 0."""

    def unregistered(self) -> Sequence[str]:
        """Tensors that the loss depends on, kept in the model where neither it nor an optimizer knows them."""

    def wrong_functions(self) -> Sequence[str]:
        """Hand-written backward passes that differ from finite differences, by name."""

    def rates(self, steps: int) -> Sequence[float]:
        """Learning rates that the schedule still gives, for so many steps; empty: there is none."""

    def should_move(self, name: str) -> bool:
        """Rate times gradient exceed what the parameter's dtype can tell apart from it, at the last update."""

    def shaken(self, share: float, index: int) -> Reading | None:
        """A reading with noise of this share of its size on every trainable parameter; None: it cannot be read so."""

    def descent(self, shares: Sequence[float]) -> Descent | None:
        """Make one update and follow it for ways that should change the loss by these shares; None: not readable."""

    def inputs(self) -> Mapping[str, Array]:
        """The batch's inputs, targets left out, by the names that the model takes them by."""

    def arguments(self) -> frozenset[str]:
        """Those of the inputs that the model names as its own; others come along in a dict, to be read or not."""

    def answer(self, inputs: Mapping[str, Array], training: bool = False) -> tuple[Array, ...] | None:
        """Outputs for other values of the inputs, with the same random numbers each time; None: it cannot be asked.

        In evaluation, or as in training.
        """

    def masks(self) -> Sequence[tuple[str, Array]]:
        """Masks that the framework makes of the inputs and hands on itself, by name: True where a place is real."""

    def answer_repadded(self, mask: str, repadded: Callable[[Array], Array]) -> tuple[Array, ...] | None:
        """The answer with other values at the places that such a mask leaves out; None: it cannot be asked."""

    def buffers(self) -> Sequence[str]:
        """Names of what the model keeps beside its parameters."""

    def strides(self) -> bool:
        """Some layer steps over its input, so that a border of it may be left over."""


def wires_of(learner: Learner) -> Wires | None:
    """None: a loop of the user's own around neither framework has no insides that we can open."""
    module = part_of(learner.framework, "wires")
    return None if module is None else cast("Wires", cast("Any", module).open_wires(learner))
