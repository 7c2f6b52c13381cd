"""Let torch's own Adam make its update in one call instead of some ten for each tensor.

The default of Adam and AdamW on the CPU is a Python loop over the tensors; for small models it takes as long as the
forward and the backward pass together. `fused=True` is the same update in the same precision (sums differ in the last
bits), and torch leaves the choice to whoever does not state one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

#: exactly these: a class derived from them may have an update of its own. SGD and Adagrad also take sparse gradients,
#: which their fused forms refuse
_FUSIBLE = (torch.optim.Adam, torch.optim.AdamW)

#: what a user would have stated to get a certain form of the update
_STATED = ("fused", "foreach", "capturable", "differentiable")


def fuse(optimizer: Any) -> None:
    """Choose the fused update where the user chose none and it computes the same; else leave the optimizer alone."""
    if type(optimizer) not in _FUSIBLE or optimizer._optimizer_step_pre_hooks:
        return
    if not all(_may_be_fused(each) for each in optimizer.param_groups):
        return
    for group in optimizer.param_groups:
        group["fused"] = True


@contextlib.contextmanager
def as_written(optimizer: Any) -> Iterator[None]:
    """Inside, the optimizer makes its update as the user's loop would: for what the update itself takes."""
    chosen = [group for group in getattr(optimizer, "param_groups", ()) if _is_our_choice(optimizer, group)]
    for group in chosen:
        group["fused"] = None
    try:
        yield
    finally:
        for group in chosen:
            group["fused"] = True


def _is_our_choice(optimizer: Any, group: dict[str, Any]) -> bool:
    return bool(group.get("fused")) and type(optimizer) in _FUSIBLE and not optimizer.defaults.get("fused")


def _may_be_fused(group: dict[str, Any]) -> bool:
    stated = any(group.get(name) for name in _STATED) or group.get("fused") is False or group.get("foreach") is False
    return not stated and all(map(_is_plain, group["params"]))


def _is_plain(parameter: Any) -> bool:
    """Float32 or float64 on the CPU, without gaps, and its gradient as autograd makes it.

    In half precision the fused update rounds less. And it takes numbers in the order of memory: for a gradient that
    lies in another order than its parameter it is wrong (torch 2.13). Autograd makes gradients in the parameter's order
    wherever that has no gaps; hooks that run after it may replace them.
    """
    dense = parameter.is_contiguous() or (
        parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    )
    return (
        type(parameter) is torch.nn.Parameter
        and parameter.device.type == "cpu"
        and parameter.dtype in (torch.float32, torch.float64)
        and dense
        and not getattr(parameter, "_post_accumulate_grad_hooks", None)
    )
