"""What each tensor of a step was computed from: which variables, and what cut their gradient on the way.

TensorFlow's operations of a step that runs eagerly are followed, up to what the step differentiates. Imported only
where TensorFlow is Keras' backend.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.tapes import tapes_answering
from pytest_overfit.adapters.programs import Cut

#: TensorFlow's operations without a slope, by the names that their users know
_FLAT = {
    "Round": "round",
    "Rint": "round",
    "Floor": "floor",
    "Ceil": "ceil",
    "Sign": "sign",
    "FloorDiv": "floor",
    "ArgMax": "argmax",
    "ArgMin": "argmin",
    "Greater": "greater",
    "GreaterEqual": "ge",
    "Less": "less",
    "LessEqual": "le",
    "Equal": "eq",
    "NotEqual": "ne",
    "Bucketize": "bucketize",
}

_COMPARING = ("greater", "ge", "less", "le", "eq", "ne")

#: what says of itself that the gradient ends here
_STOPPING = {"StopGradient": "stop_gradient", "PreventGradient": "stop_gradient"}


@dataclasses.dataclass(frozen=True)
class _Past:
    variables: frozenset[str] = frozenset()
    cuts: tuple[Cut, ...] = ()


_NONE = _Past()


class StepFollower:
    """Follows one step of one model. `names`: of its variables, by the id of each Keras variable."""

    def __init__(self, model: Any, names: Mapping[int, str], owners: Mapping[int, str]) -> None:
        self._model, self._owners = model, owners
        held = [(each.value.handle, names[id(each)]) for each in model.variables if id(each) in names]
        self._past = {handle._id: _Past(frozenset((name,))) for handle, name in held}
        #: ids stay those of their tensors while these are kept
        self._kept: list[Any] = [handle for handle, _ in held]
        self._stack: list[str] = []
        self._resting = False
        #: what was differentiated
        self.roots: list[_Past] = []

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, operations that run eagerly are followed."""
        from tensorflow.python.framework import op_callbacks

        with contextlib.ExitStack() as stack:
            whole = [self._model, *layers.layers_of(self._model)]
            stack.enter_context(layers.called_through(whole, self._called))
            stack.enter_context(self._roots_noted())
            op_callbacks.add_op_callback(self._noted)
            stack.callback(op_callbacks.remove_op_callback, self._noted)
            yield

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """On the way to what was differentiated, the first of each operation, with all that is behind its like.

        Comparisons stand last: others are made of them.
        """
        first: dict[tuple[str, bool], Cut] = {}
        for each in (cut for root in self.roots for cut in root.cuts):
            known = first.get((each.operation, each.smooth), each)
            behind = tuple(sorted({*each.behind, *known.behind}))
            first[each.operation, each.smooth] = dataclasses.replace(known, behind=behind)
        return tuple(sorted(first.values(), key=lambda each: each.operation in _COMPARING))

    @property
    def depends(self) -> bool | None:
        """What was differentiated was computed from some variable; None: nothing was seen to be differentiated."""
        return any(each.variables for each in self.roots) if self.roots else None

    def _called(self, layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._stack.append(self._owners.get(id(layer), ""))
        try:
            return own(*args, **kwargs)
        finally:
            self._stack.pop()

    @contextlib.contextmanager
    def _roots_noted(self) -> Iterator[None]:
        own = tf.GradientTape.gradient

        def gradient(tape: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            found = [self._past.get(each._id, _NONE) for each in keras.tree.flatten(target) if _is_eager(each)]
            self.roots += found
            self._resting = True
            try:
                return own(tape, target, *args, **kwargs)
            finally:
                self._resting = False

        with tapes_answering(gradient):
            yield

    def _noted(self, kind: str, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
        del attrs, op_name
        if graph is not None or self._resting:
            return
        pasts = [found for each in inputs if _is_eager(each) and (found := self._past.get(each._id)) is not None]
        if not pasts:
            return
        before = pasts[0] if len(pasts) == 1 else _joined(pasts)
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        after = self._through(kind, inputs, outputs, before)
        self._kept += [each for each in outputs if _is_eager(each)]
        self._past.update({each._id: after for each in outputs if _is_eager(each)})

    def _through(self, kind: str, inputs: Any, outputs: Any, before: _Past) -> _Past:
        flat = _FLAT.get(kind, "")
        if kind == "Cast" and inputs[0].dtype.is_floating and not outputs[0].dtype.is_floating:
            flat = "int"
        operation = flat or _STOPPING.get(kind, "")
        if not operation:
            return before
        where = next((each for each in reversed(self._stack) if each), "")
        cut = Cut(operation=operation, where=where, smooth=not flat, behind=tuple(sorted(before.variables)))
        return _Past(before.variables, (*before.cuts, cut))


def _joined(pasts: list[_Past]) -> _Past:
    variables = frozenset().union(*(each.variables for each in pasts))
    return _Past(variables, tuple(dict.fromkeys(cut for each in pasts for cut in each.cuts)))


def _is_eager(tensor: Any) -> bool:
    return hasattr(tensor, "_id") and isinstance(tensor, tf.Tensor)


def without_a_slope(model: Any, step: Callable[[], Any]) -> str:
    """An operation on the way to what this step differentiates that has no slope; "": none, or it was not seen."""
    variables = model.trainable_variables
    following = StepFollower(model, {id(each): each.path for each in variables}, {})
    with contextlib.suppress(Exception), following.active():  # that it raises is why one asks
        step()
    return next((each.operation for each in following.cuts if not each.smooth), "")
