"""What one pass of a model calls: layers with weights, functions between them, and what follows what directly."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast, get_args

import keras
import numpy as np

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.losses import facts_of
from pytest_overfit.adapters.keras.programs.functions import Hooked
from pytest_overfit.adapters.keras.programs.original import everything
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.programs import Function
from pytest_overfit.core.arrays import Array

#: functions that are known by name, and others that Keras computes by calling these
KNOWN: tuple[str, ...] = tuple(each for each in get_args(Function) if each != "other")
HOOKED: tuple[str, ...] = (
    *KNOWN,
    *("relu6", "silu", "swish", "leaky_relu", "elu", "selu", "gelu", "celu", "glu", "mish", "softsign", "crelu"),
    *("hard_sigmoid", "hard_silu", "hard_tanh", "tanh_shrink", "soft_shrink", "hard_shrink", "threshold", "sparsemax"),
    *("exponential", "log_softmax_v2", "squareplus", "sparse_plus", "sparse_sigmoid"),
)

#: layers whose functions are their own affair: gates, attention weights
_CLOSED = (
    keras.layers.RNN,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
    keras.layers.BatchNormalization,
)

_CONVOLUTIONS = tuple(each for each in keras.layers.Conv2D.__mro__ if each.__name__ == "BaseConv")
#: layers that are linear but for their activation
_LINEAR = (keras.layers.Dense, keras.layers.EinsumDense, *_CONVOLUTIONS)
#: layers behind which the composition of linear maps is still one
_PASSING = (
    *(keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute, keras.layers.Identity),
    *(keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.GaussianNoise, keras.layers.BatchNormalization),
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D),
    *(keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D),
    *(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D),
)

#: attribute of a tensor under which Keras keeps what its softmax or sigmoid was made of, for the loss
LOGITS = "_keras_logits"

#: share of the range of a sigmoid or tanh at each end that counts as its end
_END = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spot:
    """Where a function is called: the place of the layer whose code calls it, and how many it called before."""

    layer: int
    ordinal: int


@dataclasses.dataclass(kw_only=True)
class FunctionCall:
    """One call of a function between layers, with what it gave."""

    spot: Spot
    function: Function
    #: its name, of others as well
    name: str
    where: str
    axis: int | None
    units: int
    dead: float
    saturated: float
    given: Array
    last: bool = False
    #: what it was called with
    taken: Array | None = None
    #: what it gives is what the function that makes the answer is called with
    feeds_last: bool = False
    #: number of layers with weights that were called before it
    behind: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstGiven:
    """What a layer with weights was given that no other one had a part in."""

    #: its place
    layer: int
    values: Array


@dataclasses.dataclass(kw_only=True)
class Structure:
    """What one pass called."""

    given: list[FirstGiven] = dataclasses.field(default_factory=list)

    functions: list[FunctionCall] = dataclasses.field(default_factory=list)
    #: places of the layers with weights, in the order in which their first calls ended
    weighted: list[int] = dataclasses.field(default_factory=list)
    #: places of pairs of linear layers of which one takes what the other gave
    direct: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    #: places of all layers in the order of their calls
    order: list[int] = dataclasses.field(default_factory=list)


class Frames:
    """Which layer's code is running, and how many functions it has called."""

    def __init__(self, model: Any) -> None:
        self._layers = everything(model)
        self._places = {id(each): place for place, each in enumerate(self._layers)}
        self._stack: list[list[Any]] = []

    def spot(self) -> Spot | None:
        """That of the function which is called now; None where functions are not counted."""
        if not self._stack or any(isinstance(layer, _CLOSED) for layer, _ in self._stack):
            return None
        frame = self._stack[-1]
        frame[1] += 1
        return Spot(layer=self._places[id(frame[0])], ordinal=frame[1] - 1)

    def top(self) -> Any:
        """The layer whose code is running."""
        return self._stack[-1][0]

    @contextlib.contextmanager
    def entered(self, layer: Any, hooked: Hooked) -> Iterator[None]:
        """Inside runs a call of this layer, whose functions go through the hook."""
        self._stack.append([layer, 0])
        activation = vars(layer).get("activation")
        name = str(getattr(activation, "__name__", type(activation).__name__))
        undo = None
        if callable(activation) and name != "linear":
            undo = layers.substitute(layer, "activation", hooked.through(name, activation))
        try:
            with hooked.active():
                yield
        finally:
            self._stack.pop()
            if undo is not None:
                undo()


def hookable(model: Any) -> list[Any]:
    """The layers whose calls are followed; the model among them where it has a call."""
    return [each for each in everything(model) if each is not model or stepping.own(model, "call")]


def structure_of(model: Any, forward: Callable[[], Any], known_as: Sequence[Any]) -> Structure:
    """Follow one uncompiled pass of a built model. The caller puts back what the pass changes.

    `known_as`: for each layer the one whose name the owner knows; Keras numbers the layers of each new model on.
    """
    return _Follower(model, known_as).follow(forward)


class _Follower:
    def __init__(self, model: Any, known_as: Sequence[Any]) -> None:
        self._model, self._frames, self._known_as = model, Frames(model), known_as
        self._hooked = Hooked(HOOKED, self._noted)
        self._places = {id(each): place for place, each in enumerate(everything(model))}
        self._found = Structure()
        #: the linear layer that gave a tensor, by the tensor's id; tensors are kept so that ids stay theirs
        self._givers: dict[int, int] = {}
        self._kept: list[Any] = []

    def follow(self, forward: Callable[[], Any]) -> Structure:
        with layers.called_through(hookable(self._model), self._called):
            outputs = forward()
        scores = _takes_scores(self._model)
        for tensor in (each for each in keras.tree.flatten(outputs) if keras.ops.is_tensor(each)):
            answer = numbers(tensor).ravel()
            made = [each for each in self._found.functions if np.array_equal(each.given.ravel(), answer)]
            for function in made[-1:]:
                function.last = True
                self._mark_before(function)
                if scores and hasattr(tensor, LOGITS):
                    self._found.functions.remove(function)
        return self._found

    def _mark_before(self, last: FunctionCall) -> None:
        taken = last.taken
        for each in self._found.functions:
            if each is not last and taken is not None and np.array_equal(each.given.ravel(), taken.ravel()):
                each.feeds_last = True

    def _called(self, layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place, found = self._places[id(layer)], self._found
        if place not in found.order:
            found.order.append(place)
        if layer._trainable_variables and place and not found.weighted:
            self._note_first(place, args[0] if args else None)
        with self._frames.entered(layer, self._hooked):
            outputs = own(*args, **kwargs)
        if layer._trainable_variables and place not in found.weighted:
            found.weighted.append(place)
        self._link(layer, place, args[0] if args else None, outputs)
        return outputs

    def _note_first(self, place: int, given: Any) -> None:
        known = any(each.layer == place for each in self._found.given)
        if not known and keras.ops.is_tensor(given) and "float" in str(given.dtype) and len(given.shape) > 1:
            self._found.given.append(FirstGiven(layer=place, values=numbers(given)))

    def _link(self, layer: Any, place: int, given: Any, outputs: Any) -> None:
        giver = self._givers.get(id(given))
        if isinstance(layer, _LINEAR):
            if giver is not None and (giver, place) not in self._found.direct:
                self._found.direct.append((giver, place))
            giver = place if _has_no_activation(layer) else None
        elif not (isinstance(layer, _PASSING) or _does_nothing(layer)):
            return
        if giver is not None:
            self._givers[id(outputs)] = giver
            self._kept.append(outputs)

    def _noted(self, name: str, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outputs = own(*args, **kwargs)
        spot = self._frames.spot()
        known = [each.spot for each in self._found.functions]
        if spot is not None and spot not in known and keras.ops.is_tensor(outputs):
            with contextlib.suppress(Exception):  # inside a function that is being traced there are no numbers
                self._found.functions.append(self._call(spot, name, args, kwargs, numbers(outputs)))
        return outputs

    def _call(self, spot: Spot, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], given: Array) -> FunctionCall:
        function = function_named(name, args, kwargs)
        layer = self._frames.top()
        channels = 1 if getattr(layer, "data_format", None) == "channels_first" and given.ndim > 2 else given.ndim - 1
        rows = np.moveaxis(given, channels, -1).reshape(given.shape[0], -1, given.shape[channels])
        return FunctionCall(
            spot=spot,
            function=function,
            name=name,
            where=where(self._known_as[spot.layer], name),
            axis=_axis(args, kwargs, given.ndim) if "softmax" in function else None,
            units=given.shape[channels],
            dead=dead(function, rows),
            saturated=saturated(function, given),
            given=given,
            taken=numbers(args[0]) if args and keras.ops.is_tensor(args[0]) else None,
            behind=len(self._found.weighted) + bool(layer._trainable_variables and layer is not self._model),
        )


def _takes_scores(model: Any) -> bool:
    """Its loss takes raw scores. Of a softmax or sigmoid of Keras' it then takes what that was made of.

    So such a function is not there for the training, whatever the layer contains.
    """
    if model.loss is None or any(stepping.own(model, name) for name in ("train_step", "compute_loss")):
        return False
    given = model.loss.values() if isinstance(model.loss, dict) else model.loss
    losses = list(given) if isinstance(given, (list, tuple)) or given is not model.loss else [given]
    return all(facts_of(each).from_logits for each in losses if each is not None)


def function_named(name: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Function:
    """A known function by the name that Keras or TensorFlow gives it. A ReLU with a slope or a limit is another one."""
    name = {"softmax_v2": "softmax", "log_softmax_v2": "log_softmax"}.get(name, name)
    plain = name != "relu" or not any([*args[1:], *(kwargs or {}).values()])
    return cast("Function", name) if name in KNOWN and plain else "other"


def _axis(args: tuple[Any, ...], kwargs: dict[str, Any], rank: int) -> int | None:
    axis = args[1] if len(args) > 1 else kwargs.get("axis", -1)
    return int(axis) % rank if isinstance(axis, int) else rank - 1 if axis is None else None


def where(layer: Any, name: str) -> str:
    """Where a function is called, as its owner knows it."""
    kind, own = type(layer).__name__, f"{type(layer).__name__} {layer.name!r}"
    if callable(vars(layer).get("activation")) and not isinstance(layer, keras.layers.Activation):
        return f"activation of {own}"
    return own if kind.lower().replace("_", "") == name.replace("_", "") or kind == "Activation" else f"{name} in {own}"


def dead(function: str, rows: Array) -> float:
    """Share of units, the last of three axes, that give the same for every row."""
    if function == "relu":
        return float((rows == 0).all(axis=(0, 1)).mean())
    return float((rows == rows[:1]).all(axis=(0, 1)).mean()) if len(rows) > 1 else 0.0


def saturated(function: str, given: Array) -> float:
    """Share of values near an end of the function's range."""
    if function not in ("sigmoid", "tanh"):
        return 0.0
    shares = given if function == "sigmoid" else (given + 1.0) / 2.0
    return float(((shares < _END) | (shares > 1.0 - _END)).mean())


def _does_nothing(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Activation) and _has_no_activation(layer)


def _has_no_activation(layer: Any) -> bool:
    activation = vars(layer).get("activation")
    return activation is None or getattr(activation, "__name__", "") == "linear"
