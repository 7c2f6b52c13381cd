"""Targets that a loss refuses: labels beyond the units, another width, other rows, another dtype."""

from __future__ import annotations

import re

import torch
from torch import nn

from pytest_overfit.adapters.causes.table import MessageRule, likely, on, shown
from pytest_overfit.adapters.torch.causes.scene import Compared, Scene, described, dtype_of, shape_of
from pytest_overfit.core.verdict import Diagnosis

Tensor = torch.Tensor

_CLASS_LOSSES = ("cross_entropy", "nll_loss", "multi_margin_loss")
_BINARY_LOSSES = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
#: these take outputs and targets of two shapes, and warn
_BROADCASTING = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
#: classes from which on whole numbers that fill the units are labels of them, and not a measured quantity
_CLASSES = 3


def refused(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """What does not fit between outputs and targets; None: no loss was running, or another thing is wrong."""
    pair = scene.compared
    if pair is None or not pair.outputs.ndim or not pair.targets.ndim:
        return None
    return _rows(pair) or _of_classes(pair, scene) or _of_widths(pair, scene)


def _told(pair: Compared) -> str:
    what = f"{pair.function} got " if pair.function else ""
    return f"{what}outputs {shape_of(pair.outputs)} and targets {described(pair.targets)}"


def _rows(pair: Compared) -> Diagnosis | None:
    if len(pair.outputs) == len(pair.targets):
        return None
    cure = "keep one row a sample, x.flatten(1) and not x.view(-1, n), or flatten outputs and targets alike"
    return shown("shape_mismatch", f"{_told(pair)}: other rows", cure)


def _whole(targets: Tensor) -> bool:
    return not targets.is_floating_point() or bool((targets == targets.round()).all())


def _of_classes(pair: Compared, scene: Scene) -> Diagnosis | None:
    """A loss of class labels, one a place."""
    if pair.function not in _CLASS_LOSSES:
        return None
    outputs, targets = tuple(pair.outputs.shape), tuple(pair.targets.shape)
    places = outputs[:1] + outputs[2:]
    if len(outputs) > 2 and targets == outputs[:-1]:
        cure = "put the classes in axis 1: outputs.movedim(-1, 1)"
        return shown("shape_mismatch", f"{_told(pair)}: the classes are in the last axis", cure)
    if targets != places and _squeezed(targets) == _squeezed(places):
        lone = next((axis for axis, size in enumerate(targets) if axis and size == 1), 1)
        more = "" if not pair.targets.is_floating_point() else ".long()"
        return shown("shape_mismatch", f"{_told(pair)}, for one label a row", f"write targets.squeeze({lone}){more}")
    if targets == outputs and not pair.targets.is_floating_point():
        evidence = f"{_told(pair)}: one number a class, which are probabilities, are integers"
        return shown("dtype_mismatch", evidence, "write targets.float(), or one label a row: targets.argmax(1)")
    if targets == places:
        return _of_labels(pair)
    if len(targets) == len(outputs) == 2:
        return _wrong_units(pair, scene)
    evidence = f"{_told(pair)}, and takes targets {places}, one label for each place of the outputs"
    pooled = f", or pool the outputs to {outputs[:2]}: outputs.flatten(2).mean(-1)" if len(targets) == 1 else ""
    return shown("shape_mismatch", evidence, f"give targets of shape {places}{pooled}")


def _of_labels(pair: Compared) -> Diagnosis | None:
    """One label a place, of a dtype that is none of labels."""
    if pair.targets.dtype == torch.int64:
        return None
    if _whole(pair.targets):
        evidence = f"{_told(pair)}, and takes labels of dtype int64"
        return shown("dtype_mismatch", evidence, "write targets.long()")
    evidence = f"{_told(pair)} with fractions, and takes labels"
    return shown("wrong_loss", evidence, "write mse_loss, and one unit, for a quantity")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _of_widths(pair: Compared, scene: Scene) -> Diagnosis | None:
    """Losses that compare number by number."""
    outputs, targets = tuple(pair.outputs.shape), tuple(pair.targets.shape)
    if outputs == targets:
        return None
    if _squeezed(outputs) == _squeezed(targets):
        longer, name = (outputs, "outputs") if len(outputs) > len(targets) else (targets, "targets")
        axis = next((axis for axis, size in enumerate(longer) if axis and size == 1), 1)
        if pair.function in _BROADCASTING:  # a warning of torch's, where warnings are errors
            return shown("target_broadcast", f"{_told(pair)}, which become a table", f"write {name}.squeeze({axis})")
        return shown("shape_mismatch", f"{_told(pair)}: an axis of one in one of them", f"write {name}.squeeze({axis})")
    if len(outputs) == 2 and _squeezed(targets) == _squeezed(outputs[:1]):
        units, labels = outputs[1], pair.targets
        if units >= _CLASSES and _whole(labels) and 1 < int(labels.max()) < units and int(labels.min()) >= 0:
            evidence = f"{_told(pair)}, which are whole numbers from {int(labels.min())} to {int(labels.max())}"
            return likely("wrong_loss", evidence, f"write cross_entropy, which takes one label a row for {units} units")
    return _wrong_units(pair, scene) if len(outputs) == 2 and len(targets) <= 2 else None


def _wrong_units(pair: Compared, scene: Scene) -> Diagnosis | None:
    """Outputs of another width than the targets."""
    there, wanted = int(pair.outputs.shape[-1]), int(pair.targets.shape[-1]) if pair.targets.ndim > 1 else 1
    if there == wanted:
        return None
    name = _head(scene.model, there)
    evidence = f"{_told(pair)}: {there} units for {wanted} number{'s' * (wanted > 1)} a row"
    return shown("wrong_output_units", evidence, f"write out_features={wanted} in {name}, or targets of {there}")


def _head(model: nn.Module | None, units: int) -> str:
    """The last linear layer of so many units, by its name."""
    layers = [] if model is None else list(model.named_modules())
    found = [name for name, each in layers if getattr(each, "out_features", None) == units]
    return f"{found[-1] or 'the model'} (Linear)" if found else "the last layer"


def _out_of_range(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    """A label that no unit stands for; which labels and units there are, where a loss was running."""
    pair, cure = scene.compared, "give the model one unit a class, or number the classes from 0"
    if pair is None or pair.targets.is_floating_point() or pair.outputs.ndim < 1:
        return shown("label_out_of_range", match.group(), cure) if "arget" in match.group() else None
    units = int(pair.outputs.shape[1] if pair.outputs.ndim > 1 else pair.outputs.shape[0])
    low, high = int(pair.targets.min()), int(pair.targets.max())
    if low >= 0 and high < units:
        return None
    if low >= 1 and high == units:
        cure = "number the classes from 0: y - 1"
    elif low >= 0:
        cure = f"write out_features={high + 1} in {_head(scene.model, units)}, one unit a class"
    evidence = f"labels go from {low} to {high}, and the outputs {shape_of(pair.outputs)} have {units} units"
    return shown("label_out_of_range", evidence, cure)


def _one_hot(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    """Labels turned to one-hot rows of too few classes; in the model's own code they need not be labels."""
    if scene.calls:
        return None
    low = "negative" in match.group()
    cure = "number the classes from 0" if low else f"write as many classes as there are in `{scene.line}`"
    return shown("label_out_of_range", f"{match.group().rstrip('.')}, in {scene.place}", cure)


def _not_probabilities(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    """Binary cross-entropy of what is not a probability."""
    pair, side = scene.compared, match.group(1)
    values = None if pair is None else pair.outputs if side == "input" else pair.targets
    span = "" if values is None else f", got {float(values.min()):.4g} to {float(values.max()):.4g}"
    if side == "target":
        cure = "map the targets to 0 and 1, or write cross_entropy and one unit a class"
        return shown("label_out_of_range", f"{match.group()}{span}", cure)
    if values is not None and bool(values.isnan().any()):
        return None
    cure = "write binary_cross_entropy_with_logits (BCEWithLogitsLoss), or end the model with a sigmoid"
    return shown("missing_sigmoid", f"{match.group()}{span}", cure)


def _binary_dtype(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """Numbers for a loss that compares number by number."""
    pair = scene.compared
    if pair is None or pair.function not in (*_BINARY_LOSSES, *_BROADCASTING):
        return None
    if pair.outputs.dtype == pair.targets.dtype:
        return None
    wanted = dtype_of(pair.outputs)
    evidence = f"{_told(pair)}, and takes both of one dtype ({wanted})"
    change = "targets.float()" if wanted == "float32" else f"targets.to(torch.{wanted})"
    return shown("dtype_mismatch", evidence, f"write {change}")


_REFUSED = (
    r"Expected input batch_size .* to match target batch_size",
    r"Expected target size",
    r"multi-target not supported",
    r"only batches of spatial targets supported",
    r"size mismatch \(got input",
    r"Expected floating point type for target with class probabilities",
    r"[Tt]arget size .* (must be the same as|that is different to the) input size",
    r"The size of tensor a \(\d+\) must match the size of tensor b",
    r"inconsistent target size",
    r"[Tt]arget and input must have the same",
    r"expected target dtype to be Long",
    r"expected scalar type Long but found",
    r"nll_loss\w*\"? not implemented for",
)

RULES: tuple[MessageRule[Scene], ...] = (
    on(r"Target -?\d+ is out of bounds|target out of range|index -?\d+ is out of bounds", _out_of_range),
    on(r"Class values must be (smaller than num_classes|non-negative)\.", _one_hot),
    on(r"all elements of (input|target) should be between 0 and 1", _not_probabilities),
    *(on(pattern, refused) for pattern in _REFUSED),
    on(r"Found dtype \w+ but expected|result type \w+ can't be cast", _binary_dtype),
)
