"""The operations between a model's variables and the loss of its step, as a graph: nothing of it is executed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.adapters.keras.wires.slopes import without_updates

#: where `tf.custom_gradient` is written
_DECORATOR = "tensorflow/python/ops/custom_gradient.py"

#: operations that read a tensor's shape, not its numbers
_OF_SHAPE = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})

#: operations whose slope is 0 or other than that of their value, on purpose
_NOT_SMOOTH = frozenset(
    {"StopGradient", "PreventGradient", "ArgMax", "ArgMin", "Round", "Rint", "Floor", "Ceil", "Sign", "PyFunc",
     "EagerPyFunc", "PyFuncStateless", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxArgs"}
)  # fmt: skip


class TracedStep:
    """One training step without its update."""

    def __init__(self, model: Any, data: Any, optimizers: list[Any]) -> None:
        #: what the step differentiates
        self._targets: list[Any] = []
        #: by each layer's id what its calls gave
        self._outputs: dict[int, list[Any]] = {}
        self._operations = self._trace(model, data, optimizers)

    def _trace(self, model: Any, data: Any, optimizers: list[Any]) -> list[Any]:
        def gradient(_: Any, target: Any, sources: Any, *__: Any, **___: Any) -> Any:
            self._targets += tf.nest.flatten(target)
            return tf.nest.map_structure(lambda each: tf.zeros(each.shape, each.dtype), sources)

        def note(layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given = own(*args, **kwargs)
            self._outputs.setdefault(id(layer), []).extend(keras.tree.flatten(given))
            return given

        def step() -> None:
            model.train_step(data)

        everything = layers.layers_of(model)
        with held(model), without_updates(optimizers, gradient), layers.called_through(everything, note):
            graph = tf.function(step, autograph=False).get_concrete_function().graph
        return list(graph.get_operations())

    @property
    def smooth(self) -> bool:
        """Nothing in it is detached, discrete, or has a backward pass of its own."""
        return not any(each.type in _NOT_SMOOTH or _by_hand(each) for each in self._before(self._targets))

    @property
    def by_hand(self) -> bool:
        """Something in it has a backward pass of its own."""
        return any(map(_by_hand, self._before(self._targets)))

    def _before(self, targets: Iterable[Any]) -> list[Any]:
        """The operations that the targets are computed by."""
        waiting, seen = [each.op for each in targets if tf.is_symbolic_tensor(each)], dict[int, Any]()
        while waiting:
            operation = waiting.pop()
            if id(operation) not in seen:
                seen[id(operation)] = operation
                waiting += [each.op for each in operation.inputs] + list(operation.control_inputs)
        return list(seen.values())

    def silenced(self, given: Sequence[Any]) -> bool:
        """What these layers give comes to the loss only through factors of one number each, which is exactly 0."""
        outputs = [each for layer in given for each in self._outputs.get(id(layer), ())]
        leading = {id(each) for each in self._before(self._targets)}
        targets = {id(each) for each in self._targets}
        known: dict[int, tuple[bool, bool]] = {}

        def ways(tensor: Any) -> tuple[bool, bool]:
            """Whether some way to the loss is open, and whether some is shut."""
            if id(tensor) not in known:
                known[id(tensor)] = (id(tensor) in targets, False)  # against circles
                found = [way(each, tensor) for each in tensor.consumers() if id(each) in leading]
                is_open = id(tensor) in targets or any(each[0] for each in found)
                known[id(tensor)] = (is_open, any(each[1] for each in found))
            return known[id(tensor)]

        def way(operation: Any, tensor: Any) -> tuple[bool, bool]:
            if operation.type in _OF_SHAPE:
                return False, False
            if operation.type in ("Mul", "MulNoNan") and any(_is_zero(o) for o in operation.inputs if o is not tensor):
                return False, True
            found = [ways(each) for each in operation.outputs]
            return any(each[0] for each in found), any(each[1] for each in found)

        seen = [ways(each) for each in outputs if tf.is_symbolic_tensor(each)]
        return any(shut for _, shut in seen) and not any(is_open for is_open, _ in seen)


def _is_zero(tensor: Any) -> bool:
    value = tf.get_static_value(tensor)
    return value is not None and np.size(value) == 1 and not np.any(value)


def _by_hand(operation: Any) -> bool:
    """A `tf.custom_gradient`, and none of TensorFlow's own, such as that of silu."""
    try:
        operation.get_attr("_gradient_op_type")
    except ValueError:
        return False
    files = [each.filename.replace("\\", "/") for each in operation.traceback]
    caller = next((before for before, file in itertools.pairwise(files) if file.endswith(_DECORATOR)), "")
    return "tensorflow/python/" not in caller
