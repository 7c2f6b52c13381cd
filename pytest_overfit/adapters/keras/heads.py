"""Which compiled loss looks at which output and which target, and what that pair can be scored as.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras

from pytest_overfit.adapters.base import Head, Plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Family = Literal["sparse", "one_hot", "binary", "values", "hinge", ""]

#: Keras' loss functions by what they compare; all others are not scored
_FAMILIES: dict[Any, Family] = {
    keras.losses.sparse_categorical_crossentropy: "sparse",
    keras.losses.categorical_crossentropy: "one_hot",
    keras.losses.categorical_focal_crossentropy: "one_hot",
    keras.losses.categorical_hinge: "one_hot",
    keras.losses.kl_divergence: "one_hot",
    keras.losses.binary_crossentropy: "binary",
    keras.losses.binary_focal_crossentropy: "binary",
    keras.losses.hinge: "hinge",
    keras.losses.squared_hinge: "hinge",
    keras.losses.mean_squared_error: "values",
    keras.losses.mean_absolute_error: "values",
    keras.losses.mean_absolute_percentage_error: "values",
    keras.losses.mean_squared_logarithmic_error: "values",
    keras.losses.huber: "values",
    keras.losses.log_cosh: "values",
    keras.losses.poisson: "values",
}

_PLAIN: dict[str, Plain] = {
    "sparse_categorical_crossentropy": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "binary_crossentropy": "binary_cross_entropy",
    "mean_squared_error": "squared_error",
    "mean_absolute_error": "absolute_error",
}

#: losses whose least value is 0 whatever the targets
_NEVER_NEGATIVE = (
    "sparse_categorical_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "hinge",
    "squared_hinge",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossFacts:
    """What is known of one compiled loss."""

    name: str
    family: Family
    from_logits: bool = False
    smoothing: float = 0.0
    ignore_class: int | None = None
    axis: int = -1
    reduction: str = "sum_over_batch_size"


@dataclasses.dataclass(frozen=True)
class Pair:
    """One output beside its target and the loss between them."""

    name: str
    #: position among the flattened outputs
    output: int
    targets: Array
    loss: LossFacts
    weighted: bool


def facts_of(identifier: Any) -> LossFacts:
    """Recognise a loss as it was given to `compile`: a name, a function or an instance."""
    loss = identifier
    if isinstance(identifier, (str, dict)):
        try:
            loss = keras.losses.get(identifier)
        except ValueError:  # e.g. "crossentropy", which Keras resolves by shapes
            return LossFacts(name=str(identifier), family="")
    function = loss
    if isinstance(loss, keras.losses.Loss):
        calls_function = type(loss).call is keras.losses.MeanSquaredError.call
        function = getattr(loss, "fn", None) if calls_function else None
    family = _FAMILIES.get(function, "") if callable(function) else ""
    name = getattr(function, "__name__", None) or getattr(loss, "name", None) or type(loss).__name__
    return LossFacts(
        name=str(name),
        family=family,
        from_logits=bool(getattr(loss, "from_logits", False)),
        smoothing=float(getattr(loss, "label_smoothing", 0.0) or 0.0),
        ignore_class=getattr(loss, "ignore_class", None),
        axis=getattr(loss, "axis", -1) if isinstance(getattr(loss, "axis", -1), int) else -1,
        reduction=str(getattr(loss, "reduction", "sum_over_batch_size")),
    )


def pairs_of(model: Any, outputs: Any, targets: Any) -> list[Pair]:
    """Line outputs, targets and losses up by name or position; an empty list where they do not line up."""
    import numpy as np

    if model.loss is None or targets is None:
        return []
    names = _names(model, outputs)
    if names is None:
        return []
    count = len(names)
    sides = [_by_output(each, names, outputs) for each in (targets, model.loss, _loss_weights(model))]
    their_targets, losses, weights = sides
    if their_targets is None or losses is None or weights is None:
        return []
    order = [0] if count == 1 and not _nested(outputs) else _positions(outputs, names)
    found = []
    for name, position, target, loss, weight in zip(names, order, their_targets, losses, weights, strict=True):
        if loss is None or target is None or _nested(target) or _nested(loss):
            continue
        weighted = weight is not None and weight != 1
        found.append(Pair(name if count > 1 else "", position, np.asarray(target), facts_of(loss), weighted))
    return found


def _nested(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict))


def _names(model: Any, outputs: Any) -> list[str] | None:
    if isinstance(outputs, dict):
        return None if any(_nested(each) for each in outputs.values()) else list(outputs)
    if isinstance(outputs, (list, tuple)):
        if any(_nested(each) for each in outputs):
            return None
        names = list(getattr(model, "output_names", None) or ())
        return names if len(names) == len(outputs) else [f"output_{index}" for index in range(len(outputs))]
    names = list(getattr(model, "output_names", None) or ())
    return names if len(names) == 1 else ["output"]


def _positions(outputs: Any, names: list[str]) -> list[int]:
    """Where each output stands among the flattened ones, which for a dict may be another order."""
    numbered = keras.tree.pack_sequence_as(outputs, list(range(len(names))))
    return [numbered[name] for name in names] if isinstance(outputs, dict) else list(numbered)


def _by_output(value: Any, names: list[str], outputs: Any) -> list[Any] | None:
    """One entry an output: by name from a dict, by position from a list, the same for all where it is one thing."""
    if isinstance(value, dict) and not _is_config(value):
        return [value.get(name) for name in names] if set(value) <= set(names) else None
    if isinstance(value, (list, tuple)):
        if len(value) != len(names):
            return None
        # positions of a list beside outputs in a dict are a matter of Keras' flattening: not guessed
        return None if isinstance(outputs, dict) else list(value)
    if value is None or isinstance(value, (str, float, int)) or callable(value) or len(names) == 1 or _is_config(value):
        return [value] * len(names)
    return None


def _is_config(value: Any) -> bool:
    return isinstance(value, dict) and "class_name" in value


def _loss_weights(model: Any) -> Any:
    """`loss_weights` of `compile`; Keras keeps them in its private CompileLoss only."""
    return getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)


def heads_of(
    pairs: Sequence[Pair], outputs: Sequence[Array], masks: Sequence[Any], *, plain: bool, weighted: bool
) -> tuple[Head, ...]:
    """Heads of one reading. `plain`: the data term is the compiled losses; `weighted`: samples have weights."""
    alone = plain and not weighted and len(pairs) == 1 and len(outputs) == 1
    found = []
    for pair in pairs:
        mask = masks[pair.output] if pair.output < len(masks) else None
        found.append(_head(pair, outputs[pair.output], mask, alone and not pair.weighted, plain and not weighted))
    return tuple(found)


def _head(pair: Pair, outputs: Array, mask: Any, alone: bool, trusted: bool) -> Head:
    maker = {"sparse": _sparse, "one_hot": _one_hot, "binary": _binary, "hinge": _hinge, "values": _values}
    loss = pair.loss
    if loss.family not in maker:
        return Head(name=pair.name, kind="unknown", outputs=outputs, targets=pair.targets, loss_name=loss.name)
    head = maker[loss.family](pair, outputs)
    if mask is not None and mask.shape == _unit_shape(head):
        both = mask.astype(bool) if head.mask is None else head.mask & mask.astype(bool)
        head = dataclasses.replace(head, mask=both)
    exact = alone and mask is None and head.mask is None and not loss.smoothing and _fits(head)
    form = _PLAIN.get(loss.name, "") if exact and loss.reduction in _SCALED else ""
    scale = _summed(head) if form and loss.reduction == "sum" else 1.0
    minimum = 0.0 if trusted and not loss.smoothing and _never_negative(head, loss) else None
    return dataclasses.replace(head, name=pair.name, loss_name=loss.name, plain=form, scale=scale, minimum=minimum)


#: reductions that leave an average, or a sum, of all losses
_SCALED = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum")


def _unit_shape(head: Head) -> tuple[int, ...]:
    """Shape of what is counted: the targets without the class axis."""
    if head.kind == "classes" and head.targets.ndim == head.outputs.ndim:
        return head.targets.shape[:-1]
    return head.targets.shape


def _fits(head: Head) -> bool:
    """Shapes and values are those the closed forms are for."""
    import numpy as np

    targets = head.targets
    if head.kind == "values":
        return targets.shape == head.outputs.shape
    if head.kind == "binary":
        return targets.shape == head.outputs.shape and bool(((targets >= 0) & (targets <= 1)).all())
    if head.class_axis not in (-1, head.outputs.ndim - 1):
        return False
    if targets.ndim == head.outputs.ndim:
        return bool((targets >= 0).all()) and bool(np.allclose(targets.sum(axis=-1), 1.0, atol=1e-4))
    return targets.shape == head.outputs.shape[:-1]


def _summed(head: Head) -> float:
    """How many averages a sum adds up: one a label, or one a vector of the last axis."""
    shape = head.outputs.shape[:-1] if head.outputs.ndim > 1 else (1,)
    size = 1
    for each in shape:
        size *= each
    return float(size)


def _never_negative(head: Head, loss: LossFacts) -> bool:
    import numpy as np

    if loss.name in _NEVER_NEGATIVE:
        return True
    # with soft targets the least value is their own entropy
    return loss.name in _PLAIN and bool(np.isin(head.targets, (0, 1)).all())


def _domain(loss: LossFacts) -> Literal["unbounded", "probabilities"]:
    unbounded = loss.from_logits or loss.name.endswith("hinge")
    return "unbounded" if unbounded else "probabilities"


def _sparse(pair: Pair, outputs: Array) -> Head:
    import numpy as np

    targets = pair.targets
    if targets.ndim == outputs.ndim and targets.shape[-1] == 1:
        targets = targets[..., 0]
    labels = np.round(targets).astype(np.int64)
    mask = None if pair.loss.ignore_class is None else labels != pair.loss.ignore_class
    return Head(
        kind="classes", outputs=outputs, targets=labels, class_axis=pair.loss.axis, mask=mask, domain=_domain(pair.loss)
    )


def _one_hot(pair: Pair, outputs: Array) -> Head:
    import numpy as np

    return Head(
        kind="classes",
        outputs=outputs,
        targets=pair.targets.astype(np.float64),
        class_axis=pair.loss.axis,
        domain=_domain(pair.loss),
    )


def _binary(pair: Pair, outputs: Array) -> Head:
    import numpy as np

    targets = _as_outputs(pair.targets, outputs).astype(np.float64)
    return Head(kind="binary", outputs=outputs, targets=targets, domain=_domain(pair.loss))


def _hinge(pair: Pair, outputs: Array) -> Head:
    """Keras takes labels of 0 and 1 for -1 and 1; here it is the other way round."""
    import numpy as np

    targets = (_as_outputs(pair.targets, outputs) > 0).astype(np.float64)
    return Head(kind="binary", outputs=outputs, targets=targets)


def _values(pair: Pair, outputs: Array) -> Head:
    return Head(kind="values", outputs=outputs, targets=_as_outputs(pair.targets, outputs))


def _as_outputs(targets: Array, outputs: Array) -> Array:
    """Targets in the outputs' shape where they differ by axes of length one, which Keras adds or takes away."""
    return targets.reshape(outputs.shape) if targets.size == outputs.size else targets
