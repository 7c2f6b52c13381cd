"""Where an exception was raised: the layer and its input, the loss and its targets, read off the traceback."""

from __future__ import annotations

import dataclasses
import functools
import linecache
import re
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from pytest_overfit.adapters.causes.table import Crash
from pytest_overfit.core.usercode import is_users_file

Tensor = torch.Tensor

#: attributes and variables of a line that are named
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class RefusedCall:
    """A layer of the library that refused what it was called with."""

    module: nn.Module
    #: its name in the model; "" for the model itself
    name: str
    given: tuple[Tensor, ...]

    @property
    def called(self) -> str:
        return f"layer {self.name} ({self.kind})" if self.name else f"the model ({self.kind})"

    @property
    def kind(self) -> str:
        return type(self.module).__name__

    @property
    def short(self) -> str:
        return self.name or "the model"


@dataclasses.dataclass(frozen=True)
class Compared:
    """What a loss was asked to compare."""

    #: of torch's own function; "" for a function of the user's
    function: str
    outputs: Tensor
    targets: Tensor


@dataclasses.dataclass(frozen=True)
class Scene(Crash):
    """A crash, and what its frames hold."""

    @functools.cached_property
    def calls(self) -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
        """Modules that were running, outermost first, with the tensors that each was called with."""
        found: dict[nn.Module, tuple[Tensor, ...]] = {}
        for frame in self.frames():
            module = frame.f_locals.get("self") if frame.f_code.co_name == "_call_impl" else None
            if isinstance(module, nn.Module):
                given = pytree.tree_leaves([frame.f_locals.get("args"), frame.f_locals.get("kwargs")])
                found[module] = tuple(each.detach() for each in given if isinstance(each, Tensor))
        return list(found.items())

    @functools.cached_property
    def layer(self) -> RefusedCall | None:
        """The innermost module that was running, where it is one of the library's."""
        if not self.calls or not type(self.calls[-1][0]).__module__.startswith("torch."):
            return None
        module, given = self.calls[-1]
        outermost = self.calls[0][0]
        names = {each: name for root in (outermost, self.model or outermost) for name, each in root.named_modules()}
        return RefusedCall(module, names.get(module, ""), given)

    @functools.cached_property
    def model(self) -> nn.Module | None:
        """The model: the first module that any frame holds."""
        for frame in self.frames():
            for value in list(frame.f_locals.values()):
                held = value if isinstance(value, nn.Module) else getattr(value, "__dict__", {}).get("model")
                if isinstance(held, nn.Module):
                    return held
        return None

    @functools.cached_property
    def compared(self) -> Compared | None:
        """Outputs and targets, where a loss was running: of torch's own function rather than of what calls it."""
        for frame in reversed(list(self.frames())):
            values, name = frame.f_locals, frame.f_code.co_name
            of_torch = frame.f_globals.get("__name__") == "torch.nn.functional"
            keys = ("input", "target") if of_torch else ("outputs", "y")
            pair = [each.detach() for key in keys if isinstance(each := values.get(key), Tensor)]
            if (of_torch or _is_our_loss(frame)) and len(pair) == len(keys):
                return Compared(name if of_torch else "", *pair)
        return None

    @functools.cached_property
    def line(self) -> str:
        """The innermost line of the user's own code; "" where there is none."""
        frame = self._users_frame
        return "" if frame is None else linecache.getline(frame[0].f_code.co_filename, frame[1]).strip()

    @functools.cached_property
    def _users_frame(self) -> tuple[FrameType, int] | None:
        found, trace = None, self.error.__traceback__
        while trace is not None:
            if is_users_file(trace.tb_frame.f_code.co_filename):
                found = trace.tb_frame, trace.tb_lineno
            trace = trace.tb_next
        return found

    @property
    def sizes(self) -> str:
        """The tensors that the user's line names, with their sizes as they were before it; "" where none is known."""
        if self._users_frame is None:
            return ""
        found = dict(_named_tensors(self.line, self._users_frame[0].f_locals))
        return ", ".join(f"{name} is {shape_of(each)}" for name, each in list(found.items())[:_NAMED])

    @property
    def place(self) -> str:
        """What raised, in one sentence: the layer with what it got, or the user's line with the sizes in it."""
        if self.layer is not None:
            got = " and ".join(described(each) for each in self.layer.given) or "no tensor"
            return f"{self.layer.called} got {got}"
        where = f"`{self.line}`" if self.line else self.call
        return f"{where}, where {self.sizes}" if self.sizes else where


def _is_our_loss(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__"))
    return name.startswith("pytest_overfit.adapters.torch") and frame.f_code.co_name == "loss"


def _named_tensors(line: str, values: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for path in re.findall(r"(?<![\w.'\"])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", line):
        value, parts = values.get(path.split(".")[0]), path.split(".")
        for count, part in enumerate(parts):
            if count:
                value = vars(value).get(part) if isinstance(value, nn.Module) else None
            if isinstance(value, Tensor):
                yield ".".join(parts[: count + 1]), value
                break


def shape_of(tensor: Tensor) -> str:
    """`(8, 60)`."""
    return str(tuple(tensor.shape))


def dtype_of(tensor: Tensor) -> str:
    """`float32`."""
    return str(tensor.dtype).removeprefix("torch.")


def described(tensor: Tensor) -> str:
    """`(8, 60) float32`."""
    return f"{shape_of(tensor)} {dtype_of(tensor)}"
