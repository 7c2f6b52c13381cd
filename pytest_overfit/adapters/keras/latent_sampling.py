"""Does a model sample by design? Seen in the compiled step: normal noise that something trainable scales.

That is the reparameterisation trick (mean + noise * deviation, with the deviation a result of the model). Dropout draws
no normal noise, and a noise layer adds noise of a fixed size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from pytest_overfit.adapters.keras.layers import layers_of

_SOURCES = frozenset(
    {"RandomStandardNormal", "StatelessRandomNormal", "StatelessRandomNormalV2", "StatefulStandardNormalV2"}
)

#: noise stays noise under these as long as everything else is a constant
_SCALINGS = frozenset({"Mul", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})

_MOVES = frozenset({"Cast", "Reshape", "Identity", "ExpandDims", "Squeeze", "Transpose", "StridedSlice", "BroadcastTo"})


#: operations that draw random numbers
_DRAWING = (
    "Random",
    "StatelessRandom",
    "StatefulStandardNormal",
    "StatefulRandom",
    "StatefulUniform",
    "Multinomial",
    "StatelessMultinomial",
)


def scales_noise(graph: Any, variables: Iterable[Any]) -> bool:
    """True if normal noise is multiplied by what depends on one of these variables, in this graph of one step."""
    operations = graph.get_operations()
    if not any(each.type in _SOURCES for each in operations):
        return False
    trained = _depending(graph, operations, {id(each.value.handle) for each in variables})
    noise: set[str] = set()
    for operation in operations:
        others = [one for one in operation.inputs if one.name not in noise]
        if operation.type in _SOURCES:
            noise.update(one.name for one in operation.outputs)
        elif len(others) < len(operation.inputs):
            if operation.type in _SCALINGS and any(one.op.name in trained for one in others):
                return True
            if operation.type in _SCALINGS or operation.type in _MOVES or _adds_nothing(operation, others):
                noise.update(one.name for one in operation.outputs)
    return False


def _adds_nothing(operation: Any, others: Iterable[Any]) -> bool:
    if operation.type not in ("Add", "AddV2"):
        return False
    values = [tf.get_static_value(each) for each in others]
    return all(each is not None and not each.any() for each in values)


def _depending(graph: Any, operations: Iterable[Any], handles: set[int]) -> set[str]:
    """Names of the operations that depend on a variable with one of these handles."""
    inner = {id(inside): outside for outside, inside in graph.captures}
    found: set[str] = set()
    for operation in operations:  # in the order in which they were made: what an operation needs comes before it
        reads = operation.type == "ReadVariableOp" and id(_origin(operation.inputs[0], inner)) in handles
        if reads or any(one.op.name in found for one in operation.inputs):
            found.add(operation.name)
    return found


def _origin(tensor: Any, inner: dict[int, Any]) -> Any:
    """The handle outside of all graphs that a placeholder inside stands for."""
    while id(tensor) in inner:
        tensor = inner[id(tensor)]
        captures = [] if hasattr(tensor, "numpy") else tensor.graph.captures
        inner = {id(inside): outside for outside, inside in captures}
    return tensor


def draws_of_its_own(model: Any, graph: Any) -> bool:
    """The compiled step draws random numbers, and no layer of Keras' in the model is one that does."""
    if any(getattr(each, "seed_generator", None) is not None for each in layers_of(model)):
        return False
    return any(each.type.startswith(_DRAWING) for each in graph.get_operations())
