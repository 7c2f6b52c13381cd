"""Of models that read and write tokens: do they look ahead, are targets shifted once, is padding left out?

A model predicts the next token where its targets are the inputs moved by one place. Then its outputs must not depend
on later inputs. Shifts that are a fact of the data alone are a warning: the model may move its targets itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pytest_overfit.adapters.base import Head, Learner, Reading
from pytest_overfit.adapters.wires import Wires
from pytest_overfit.core.arrays import Array
from pytest_overfit.measures.evaluation import finite
from pytest_overfit.probes.wiring.faults import Fault

#: share of the places at which targets must be the inputs, moved, to be called so
_MOST = 0.98

#: least change of earlier outputs that counts, as a share of their spread: masks of finite numbers leave a rest
_AHEAD = 1e-4

#: different tokens that must occur: with two or three, places agree by chance
_FEWEST = 5

#: names of the argument that says which places are real
_MASKS = ("attention_mask", "padding_mask", "key_padding_mask", "mask")


def look(learner: Learner, wires: Wires, first: Reading) -> dict[str, Any] | None:
    """None: inputs are not tokens, or not one target stands at each of them."""
    inputs = wires.inputs()
    tokens = {name: each for name, each in inputs.items() if each.ndim == 2 and each.dtype.kind in "iu"}
    heads = [each for each in first.heads if each.kind == "classes" and each.targets.ndim == 2]
    tokens = {name: each for name, each in tokens.items() if name not in _MASKS and len(np.unique(each)) >= _FEWEST}
    if not tokens or len(heads) != 1:
        return None
    head = heads[0]
    shifts = {name: _shift(each, head) for name, each in tokens.items()}
    # a decoder's input beside what it translates is the one that its targets follow
    named = next((name for name, shift in shifts.items() if shift == 1), next(iter(tokens)))
    return {
        "input": named,
        "shift": shifts[named],
        "ahead": _looks_ahead(wires, inputs, named),
        "here": _looks_here(wires, inputs, named),
        "padding": _padding(inputs, head, _slopes(learner, first, head)),
    }


def _shift(values: Array, head: Head) -> int | None:
    """Places by which targets are ahead of the inputs; None: they are other tokens."""
    targets, width = head.targets, min(values.shape[1], head.targets.shape[1])
    counted = np.ones(targets.shape, bool) if head.mask is None else head.mask
    for shift in (1, 0, 2, -1):
        if width - abs(shift) < 2:
            continue
        ahead, behind = max(shift, 0), max(-shift, 0)
        here = slice(behind, width - ahead)
        same = (values[:, ahead : width - behind] == targets[:, here])[counted[:, here]]
        if same.size and same.mean() >= _MOST:
            return shift
    return None


def _looks_ahead(wires: Wires, inputs: Mapping[str, Array], name: str) -> float:
    """How far outputs of the first half go, as a share of their spread, when inputs of the second half are others."""
    values = inputs[name]
    half = values.shape[1] // 2
    other = values.copy()
    other[:, half:] = np.roll(values, 1, axis=0)[:, half:]
    before, after = wires.answer(inputs), wires.answer({**inputs, name: other})
    moved = [0.0]
    for old, new in zip(before or (), after or (), strict=False):
        if old.dtype.kind == "f" and old.shape == new.shape and old.shape[:2] == values.shape:
            plain = finite(old)
            part = np.abs(plain - finite(new))[:, :half]
            moved.append(float(part.max(initial=0.0)) / (float(plain.std()) or 1.0))
    return max(moved)


def _looks_here(wires: Wires, inputs: Mapping[str, Array], name: str) -> bool:
    """The output of a place depends on that place; it does not where a model moves its inputs itself."""
    values = inputs[name]
    middle = values.shape[1] // 2
    other = values.copy()
    other[:, middle] = np.roll(values, 1, axis=0)[:, middle]
    before, after = wires.answer(inputs), wires.answer({**inputs, name: other})
    pairs = [(old, new) for old, new in zip(before or (), after or (), strict=False) if old.shape[:2] == values.shape]
    return any(old.shape == new.shape and bool((old[:, middle] != new[:, middle]).any()) for old, new in pairs)


def _slopes(learner: Learner, first: Reading, head: Head) -> Array | None:
    """True where the loss has a slope by the output of a place; None: it cannot be asked."""
    found = learner.loss_and_gradient(first.outputs)
    slopes = [each for each in (found[1] if found else ()) if each.shape == head.outputs.shape]
    return None if len(slopes) != 1 else np.asarray(np.moveaxis(slopes[0], head.class_axis, -1).any(axis=-1))


def _padding(inputs: Mapping[str, Array], head: Head, slopes: Array | None) -> int:
    """Targets that count at places that the inputs' own mask leaves out."""
    mask = next((inputs[name] for name in _MASKS if name in inputs), None)
    if mask is None or mask.shape != head.targets.shape or not _is_mask(mask):
        return 0
    counted = np.ones(head.targets.shape, bool) if head.mask is None else head.mask
    if slopes is not None and slopes.shape == mask.shape:
        counted = counted & slopes
    return int((counted & (mask == 0)).sum())


def _is_mask(mask: Array) -> bool:
    return bool(np.isin(mask, (0, 1)).all())


_WHERE = {0: "the inputs themselves", 2: "two places ahead of the inputs", -1: "one place behind the inputs"}


def faults(measured: Mapping[str, Any] | None) -> Iterator[Fault]:
    if measured is None:
        return
    if measured["shift"] == 1 and measured["ahead"] > _AHEAD:
        yield Fault(
            name="lookahead",
            outcome="failed",
            subjects=(measured["input"],),
            evidence="the targets are the next tokens, and outputs move when only later tokens change, by up to "
            f"{measured['ahead']:.2g} of their spread: the model reads what it has to predict",
            cure="give the attention a causal mask (is_causal=True, use_causal_mask=True), or take both directions out",
        )
    elif measured["shift"] in _WHERE and measured["here"] and measured["ahead"] <= _AHEAD:
        where = _WHERE[measured["shift"]]
        yield Fault(
            name="targets_not_shifted",
            outcome="warning",
            subjects=(measured["input"],),
            evidence=f"the model reads from left to right, and its targets are {where}",
            cure="move the targets by one place, targets = tokens[:, 1:] for tokens[:, :-1], in one place only",
        )
    if measured["padding"] and measured["shift"] in (0, 1):  # else the targets may be of another sequence
        yield Fault(
            name="padding_in_loss",
            outcome="warning",
            subjects=(measured["input"],),
            evidence=f"{measured['padding']} targets count at places that the mask leaves out",
            cure="set these targets to ignore_index, -100, or give the loss the mask",
        )


def remarks(measured: Mapping[str, Any] | None) -> Iterator[str]:
    if measured is not None and measured["shift"] == 0 and measured["ahead"] > _AHEAD:
        yield "the targets are the inputs themselves, and the model reads in both directions"
