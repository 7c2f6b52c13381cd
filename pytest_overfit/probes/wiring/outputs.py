"""Do the outputs fit the loss and the targets?

What the outputs can be is seen by shaking the weights (`forms`), how the loss takes them from its value. A mistake is
refused where the least loss that such outputs can reach exceeds what memorising may leave, as a share of that of the
best constant output; else it is a warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from pytest_overfit.adapters.base import Head, Reading
from pytest_overfit.adapters.wires import Wires
from pytest_overfit.probes.wiring.faults import Fault
from pytest_overfit.probes.wiring.forms import SHARES, form_of
from pytest_overfit.probes.wiring.recognised import BY_HAND

#: nearer to a bound than this share of its width, values have reached it
_NEAR = 0.05

#: two losses that differ by less than this share are one
_SAME = 1e-3

#: what memorising may leave, as `overfit_batch` has it by default
_MOST = 0.05

#: share of outputs that stand at their bounds to the bit, above which that is not saturation but a clamp
_CLAMPED = 0.1

#: the most that a sigmoid can make of another one's answer
_SIGMOID_OF_ONE = 1.0 / (1.0 + math.exp(-1.0))

#: logits bounded by no more than this are looked at: at 30 a softmax is certain to the last bit of float32
_WIDE = 30.0


def look(wires: Wires, first: Reading, classes: bool, reconstructs: bool = False) -> dict[str, Any] | None:
    """What one head's outputs can be, and what the loss makes of them; None: there is not one head to look at.

    `classes`: the case says that its targets are classes; `reconstructs`: they are the inputs, whose pixels are summed.
    """
    if len(first.heads) != 1 or first.loss is None:
        return None
    head = first.heads[0]
    found = form_of(wires, head)
    if found is None:
        return None
    form, low, high = found
    return {
        "kind": head.kind,
        "loss": head.loss_name or BY_HAND,
        "plain": head.plain,
        "taken_as": _taken_as(head, first.loss),
        "form": form,
        "low": low,
        "high": high,
        "clamped": float(np.isin(head.outputs, (low, high)).mean()) if form == "bounded" else 0.0,
        "units": int(head.outputs.shape[head.class_axis]) if head.kind == "classes" else 1,
        "scale": head.scale if head.plain and not reconstructs else None,
        "counted": int(head.targets.size if head.mask is None else head.mask.sum()),
        "wrong_loss": classes and head.kind == "values" and not (head.targets % 1).any() and head.targets.max() > 1,
        **_of_targets(head),
    }


def _of_targets(head: Head) -> dict[str, Any]:
    """Constant's loss, and for values how far they lie outside of what the outputs reach."""
    if head.kind == "classes" and head.targets.ndim < head.outputs.ndim:
        labels = head.targets[head.mask] if head.mask is not None else head.targets
        shares = np.unique(labels, return_counts=True)[1] / max(1, labels.size)
        return {
            "constant": float(-(shares * np.log(shares)).sum()),
        }
    targets = head.targets.astype(np.float64)
    if head.kind == "binary":
        share = float(targets.mean())
        inside = 0.0 < share < 1.0
        entropy = -(share * math.log(share) + (1 - share) * math.log(1 - share)) if inside else 0.0
        return {"constant": entropy, "positive": share}
    return {"constant": float(targets.var()), "targets": [float(targets.min()), float(targets.max())]}


def _taken_as(head: Head, loss: float) -> Literal["logits", "probabilities", "log_probabilities", ""]:
    """How the loss reads the outputs of classes: as whatever gives its value; "": neither does."""
    if head.domain != "unbounded":
        return head.domain
    if head.kind == "values" or head.targets.ndim == head.outputs.ndim:
        return "logits" if head.kind == "binary" and head.plain else ""
    outputs = np.moveaxis(head.outputs.astype(np.float64), head.class_axis, -1)
    labels = np.clip(head.targets, 0, outputs.shape[-1] - 1).astype(np.int64)
    chosen = np.take_along_axis(outputs, labels[..., None], axis=-1)[..., 0]
    counted = np.ones(chosen.shape, bool) if head.mask is None else head.mask
    as_logits = (np.log(np.exp(outputs - outputs.max(-1, keepdims=True)).sum(-1)) + outputs.max(-1) - chosen)[counted]
    if math.isclose(float(as_logits.mean()), loss, rel_tol=_SAME):
        return "logits"
    with np.errstate(divide="ignore", invalid="ignore"):
        as_shares = -np.log(np.clip(chosen / outputs.sum(-1), 1e-7, 1.0))[counted]
    return "probabilities" if math.isclose(float(as_shares.mean()), loss, rel_tol=_SAME) else ""


def _least(measured: Mapping[str, Any]) -> float:
    """The least loss that such outputs can reach, as a share of the constant's."""
    classes, constant = measured["units"], measured["constant"]
    if constant <= 0:
        return 0.0
    low, high = (0.0, 1.0) if measured["form"] in SHARES else (measured["low"], measured["high"])
    if measured["kind"] == "classes":
        least = np.log1p((classes - 1) * np.exp(min(0.0, low - high)))
    else:
        positive = measured["positive"]
        least = positive * np.logaddexp(0.0, -high) + (1 - positive) * np.logaddexp(0.0, low)
    return float(least) / float(constant)


def faults(measured: Mapping[str, Any] | None) -> Iterator[Fault]:
    if measured is None:
        return
    form, taken = measured["form"], measured["taken_as"]
    if measured["wrong_loss"]:
        yield Fault(
            name="wrong_loss",
            outcome="warning",
            subjects=(),
            evidence=f"the numbers of classes are the targets of {measured['loss']}, as if class 4 were twice class 2",
            cure="use cross_entropy with one output for each class",
        )
    if form in _WRONG_AXES and measured["kind"] != "values":
        yield _wrong_axis(_WRONG_AXES[form])
    elif form == "one":
        yield _one()
    elif measured["kind"] == "classes" and measured["units"] == 1:
        yield _one_class(measured["loss"])
    elif taken == "logits":
        yield from _as_logits(measured)
    elif taken in ("probabilities", "log_probabilities"):
        yield from _as_probabilities(measured)
    elif measured["kind"] == "values" and measured["plain"] in ("squared_error", "absolute_error"):
        yield from _values(measured)
    if measured["scale"] and measured["counted"] > 1 and math.isclose(measured["scale"], measured["counted"]):
        yield Fault(
            name="wrong_reduction",
            outcome="warning",
            subjects=(),
            evidence=f"{measured['loss']} is the sum over {measured['counted']} targets, so that its gradient grows "
            "with the batch",
            cure="use reduction='mean', or a learning rate for this batch size",
        )


_WRONG_AXES = {"shares_of_rows": "rows of the batch", "shares_of_places": "places of each row"}


def _wrong_axis(over: str) -> Fault:
    return Fault(
        name="softmax_wrong_axis",
        outcome="failed",
        subjects=(),
        evidence=f"probabilities sum to 1 over the {over} in place of the classes, whatever the weights",
        cure="take the softmax over the axis of the classes, or leave it to the loss",
    )


def _one() -> Fault:
    return Fault(
        name="softmax_single_unit",
        outcome="failed",
        subjects=(),
        evidence="the output is 1 for every row, whatever the weights: softmax over one unit",
        cure="use a sigmoid for one unit, or as many units as there are classes",
    )


def _one_class(loss: str) -> Fault:
    return Fault(
        name="wrong_loss",
        outcome="failed",
        subjects=(),
        evidence=f"{loss} compares classes, and there is one output: whatever it is, its share is 1 and its loss 0",
        cure="use binary cross-entropy for one output, or give the last layer one for each class",
    )


def _as_logits(measured: Mapping[str, Any]) -> Iterator[Fault]:
    form, least = measured["form"], _least(measured)
    between = f"between {measured['low']:.3g} and {measured['high']:.3g}"
    what = {**dict.fromkeys(SHARES, "probabilities (a softmax)"), "bounded": between}
    outcome: Literal["failed", "warning"] = "failed" if least > _MOST else "warning"
    if form == "positive":
        yield Fault(
            name="relu_on_logits",
            outcome="warning",
            subjects=(),
            evidence=f"{measured['loss']} takes logits, and they are never below 0: a ReLU stands before it",
            cure="leave out the activation of the last layer",
        )
    if form not in what or measured["high"] > _WIDE:
        return
    sigmoid = form == "bounded" and abs(measured["low"]) < _NEAR and abs(measured["high"] - 1) < _NEAR
    name = "double_softmax" if form in SHARES else "double_sigmoid" if sigmoid else "bounded_logits"
    if least <= _MOST and name == "bounded_logits":
        return  # clipped on purpose, and far enough out
    yield Fault(
        name=name,
        outcome=outcome,
        subjects=(),
        evidence=f"{measured['loss']} takes its inputs as logits, and they are {what[form]}, whatever the weights: its "
        f"least value is {least:.2g} of a constant output's loss",
        cure="leave out the activation of the last layer: the loss applies its own",
    )


def _as_probabilities(measured: Mapping[str, Any]) -> Iterator[Fault]:
    form, taken, binary = measured["form"], measured["taken_as"], measured["kind"] == "binary"
    if form == "log_shares" and taken == "log_probabilities" and -measured["high"] > _MOST * measured["constant"] > 0:
        yield Fault(
            name="double_softmax",
            outcome="failed",
            subjects=(),
            evidence=f"no probability exceeds {math.exp(measured['high']):.2g}, whatever the weights: "
            "the softmax is taken of probabilities",
            cure="leave out the first softmax",
        )
    elif form in SHARES and taken == "log_probabilities":
        yield Fault(
            name="softmax_without_log",
            outcome="failed" if measured["loss"] != BY_HAND else "warning",
            subjects=(),
            evidence=f"{measured['loss']} takes log-probabilities, and the outputs are probabilities",
            cure="use log_softmax, or cross_entropy on the raw outputs",
        )
    elif taken == "probabilities" and (form in SHARES[1:] or (binary and form == "bounded" and _inside(measured))):
        yield from _bounded_twice(measured)
    elif measured["clamped"] > _CLAMPED:
        yield Fault(
            name="missing_sigmoid" if binary else "missing_softmax",
            outcome="warning",
            subjects=(),
            evidence=f"{measured['clamped']:.0%} of the outputs are exactly {measured['low']:.3g} or "
            f"{measured['high']:.3g} before training: scores are clamped into probabilities, and have no slope there",
            cure=f"end the model with a {'sigmoid' if binary else 'softmax'} in place of the clamp",
        )
    elif form in ("free", "positive") and (measured["low"] < -_NEAR or measured["high"] > 1 + _NEAR):
        yield Fault(
            name="missing_sigmoid" if binary else "missing_softmax",
            outcome="failed" if taken == "log_probabilities" else "warning",
            subjects=(),
            evidence=f"{measured['loss']} takes {taken.replace('_', '-')}, and the outputs go from "
            f"{measured['low']:.3g} to {measured['high']:.3g}",
            cure=f"end the model with a {'sigmoid' if binary else 'softmax'}, or use the loss that takes logits",
        )


def _inside(measured: Mapping[str, Any]) -> bool:
    """Probabilities of one class that keep a distance from 0, or from 1, and that no clamp keeps there."""
    inside = measured["low"] >= 0.0 and measured["high"] <= 1.0 and _least_share(measured) > _MOST
    return bool(inside and (measured["clamped"] <= _CLAMPED or _ends_at_half(measured)))


def _ends_at_half(measured: Mapping[str, Any]) -> bool:
    """As a sigmoid does of what is never below 0."""
    return bool(abs(measured["low"] - 0.5) < _NEAR / 5)


def _least_share(measured: Mapping[str, Any]) -> float:
    """The least loss that such probabilities can reach, as a share of the constant's."""
    constant, low, high = measured["constant"], measured["low"], measured["high"]
    if constant <= 0 or not 0 <= low <= high <= 1:
        return 0.0
    if measured["kind"] == "classes":
        return float(-math.log(high) / constant)
    positive = measured["positive"]
    return float(-(positive * math.log(max(high, 1e-30)) + (1 - positive) * math.log(max(1 - low, 1e-30))) / constant)


def _bounded_twice(measured: Mapping[str, Any]) -> Iterator[Fault]:
    """What makes the probabilities is bounded itself, so that none of them comes near to 0 or 1."""
    least, low, high = _least_share(measured), measured["low"], measured["high"]
    if least <= _MOST:
        return
    half = measured["kind"] == "binary" and _ends_at_half(measured)
    if measured["form"] == "shares_of_shares":
        name, what, which = "double_softmax", "the softmax is taken of probabilities", "first softmax"
    elif half and abs(high - _SIGMOID_OF_ONE) < _NEAR / 5:
        name, what, which = "double_sigmoid", "the sigmoid is taken of a sigmoid", "first sigmoid"
    elif half:
        name, what, which = "relu_on_logits", "a ReLU stands before the sigmoid", "ReLU"
    else:
        name, what, which = "bounded_logits", "what they are made of is bounded", "function before the last one"
    yield Fault(
        name=name,
        outcome="failed",
        subjects=(),
        evidence=f"no probability is outside of {low:.3g} to {high:.3g}, whatever the weights: {what}, and the least "
        f"value of {measured['loss']} is {least:.2g} of a constant output's loss",
        cure=f"leave out the {which}",
    )


def _values(measured: Mapping[str, Any]) -> Iterator[Fault]:
    """Targets outside of what squashed outputs can be."""
    if measured["form"] not in ("bounded", "positive") or "targets" not in measured:
        return
    low, high = measured["targets"]
    top = math.inf if measured["form"] == "positive" else measured["high"]
    width = (high - low) * _NEAR
    if low >= measured["low"] - width and high <= top + width:
        return
    beyond = max(measured["low"] - low, high - top, 0.0)
    yield Fault(
        name="output_range",
        outcome="failed" if beyond**2 > measured["constant"] * _MOST else "warning",
        subjects=(),
        evidence=f"targets go from {low:.3g} to {high:.3g}, and the outputs cannot be outside of {measured['low']:.3g} "
        f"to {top:.3g}, whatever the weights",
        cure="leave out the activation of the last layer, or scale the targets into its range",
    )
