"""Tensors before and after: copies, differences, and what was taken back."""

from __future__ import annotations

from collections.abc import Mapping

import torch

Tensor = torch.Tensor

#: cosine of two ways that are each other's opposite
_OPPOSITE = -0.99


def dense(gradient: Tensor) -> Tensor:
    """A gradient as an ordinary tensor."""
    return gradient.to_dense() if gradient.layout != torch.strided else gradient


def copied(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else dense(gradient).detach().clone()


def added(now: Tensor | None, before: Tensor | None) -> Tensor | None:
    """What a backward pass added to a gradient; None: it did not come by."""
    if now is None:
        return None
    whole = dense(now).detach()
    return whole.clone() if before is None or before.shape != whole.shape else whole - before


def norm(gradient: Tensor) -> float:
    whole = dense(gradient).detach()
    return float(torch.linalg.vector_norm(whole if whole.is_complex() else whole.double()))


def changed(named: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> frozenset[str]:
    """Names of the tensors that are other than before, to the bit; a NaN that stays one is not a change."""
    return frozenset(name for name, each in named.items() if not _same(each.detach(), before[name]))


def _same(now: Tensor, before: Tensor) -> bool:
    if now.shape != before.shape:
        return False
    return torch.equal(now, before) or bool(((now == before) | (now.isnan() & before.isnan())).all())


def _real(values: Tensor) -> Tensor:
    return (torch.view_as_real(values) if values.is_complex() else values).double()


def written_back(before: Mapping[str, Tensor], after: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> float | None:
    """Share of the way from `before` to `after` that was gone back since; None: it went another way."""
    way, back, both = 0.0, 0.0, 0.0
    for name, start in before.items():
        there, rest = _real(after[name] - start), _real(now[name].detach() - after[name])
        way, back = way + float(there.pow(2).sum()), back + float(rest.pow(2).sum())
        both += float((there * rest).sum())
    if not way or not back:
        return 0.0
    return -both / way if both / (way * back) ** 0.5 < _OPPOSITE else None
