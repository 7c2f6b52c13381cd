"""Which compiled loss looks at which output and which target."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from pytest_overfit.adapters.base import Plain
from pytest_overfit.core.arrays import Array

Family = Literal["sparse", "one_hot", "binary", "values", "hinge", ""]


class LossKind(NamedTuple):
    """What a loss function of Keras compares."""

    family: Family
    plain: Plain = ""
    #: its least value is 0 whatever the targets
    never_negative: bool = False


#: all others are not scored
_KINDS = {
    keras.losses.sparse_categorical_crossentropy: LossKind("sparse", "cross_entropy", True),
    keras.losses.categorical_crossentropy: LossKind("one_hot", "cross_entropy"),
    keras.losses.categorical_focal_crossentropy: LossKind("one_hot"),
    keras.losses.categorical_hinge: LossKind("one_hot"),
    keras.losses.kl_divergence: LossKind("one_hot"),
    keras.losses.binary_crossentropy: LossKind("binary", "binary_cross_entropy"),
    keras.losses.binary_focal_crossentropy: LossKind("binary"),
    keras.losses.hinge: LossKind("hinge", never_negative=True),
    keras.losses.squared_hinge: LossKind("hinge", never_negative=True),
    keras.losses.mean_squared_error: LossKind("values", "squared_error", True),
    keras.losses.mean_absolute_error: LossKind("values", "absolute_error", True),
    keras.losses.mean_absolute_percentage_error: LossKind("values", never_negative=True),
    keras.losses.mean_squared_logarithmic_error: LossKind("values", never_negative=True),
    keras.losses.huber: LossKind("values", never_negative=True),
    keras.losses.log_cosh: LossKind("values", never_negative=True),
    keras.losses.poisson: LossKind("values"),
}
_UNKNOWN = LossKind("")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossFacts:
    """What is known of one compiled loss."""

    name: str
    kind: LossKind = _UNKNOWN
    from_logits: bool = False
    smoothing: float = 0.0
    ignore_class: int | None = None
    axis: int = -1
    reduction: str = "sum_over_batch_size"


@dataclasses.dataclass(frozen=True)
class Pair:
    """One output with its target and the loss between them."""

    name: str
    #: position among the flattened outputs
    output: int
    targets: Array
    loss: LossFacts
    weighted: bool
    #: weight of each row (or place) of the targets; None: there are none
    weights: Array | None = None


def facts_of(identifier: Any) -> LossFacts:
    """Recognise a loss as it was given to `compile`: a name, a function or an instance."""
    loss = identifier
    if isinstance(identifier, (str, dict)):
        try:
            loss = keras.losses.get(identifier)
        except ValueError:  # e.g. "crossentropy", which Keras resolves by shapes
            return LossFacts(name=str(identifier))
    function = loss
    if isinstance(loss, keras.losses.Loss):
        calls_function = type(loss).call is keras.losses.MeanSquaredError.call
        function = getattr(loss, "fn", None) if calls_function else None
    kind = _KINDS.get(function, _UNKNOWN) if callable(function) else _UNKNOWN
    name = getattr(function, "__name__", None) or getattr(loss, "name", None) or type(loss).__name__
    return LossFacts(
        name=str(name),
        kind=kind,
        from_logits=bool(getattr(loss, "from_logits", False)),
        smoothing=float(getattr(loss, "label_smoothing", 0.0) or 0.0),
        ignore_class=getattr(loss, "ignore_class", None),
        axis=getattr(loss, "axis", -1) if isinstance(getattr(loss, "axis", -1), int) else -1,
        reduction=str(getattr(loss, "reduction", "sum_over_batch_size")),
    )


def pairs_of(model: Any, outputs: Any, targets: Any, weights: Any = None) -> list[Pair]:
    """Line outputs, targets and losses up by name or position; an empty list where they do not line up."""
    if model.loss is None or targets is None:
        return []
    names = _names(model, outputs)
    if names is None:
        return []
    count = len(names)
    sides = [_by_output(each, names, outputs) for each in (targets, model.loss, _loss_weights(model), weights)]
    their_targets, losses, factors, of_rows = sides
    if their_targets is None or losses is None or factors is None:
        return []
    order = [0] if count == 1 and not _nested(outputs) else _positions(outputs, names)
    found = []
    of_rows = of_rows or [None] * count
    for name, position, target, loss, factor, rows in zip(
        names, order, their_targets, losses, factors, of_rows, strict=True
    ):
        if loss is None or target is None or _nested(target) or _nested(loss):
            continue
        weighted = factor is not None and factor != 1
        found.append(Pair(name if count > 1 else "", position, np.asarray(target), facts_of(loss), weighted, rows))
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
        # positions of a list where outputs are a dict are a matter of Keras' flattening: not guessed
        return None if isinstance(outputs, dict) else list(value)
    plain = value is None or isinstance(value, (str, float, int)) or hasattr(value, "shape")
    if plain or callable(value) or len(names) == 1 or _is_config(value):
        return [value] * len(names)
    return None


def _is_config(value: Any) -> bool:
    return isinstance(value, dict) and "class_name" in value


def _loss_weights(model: Any) -> Any:
    """`loss_weights` of `compile`; Keras keeps them in its private CompileLoss only."""
    return getattr(getattr(model, "_compile_loss", None), "_user_loss_weights", None)
