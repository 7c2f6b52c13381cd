"""Facts about a module that cost next to nothing: which parameter never moved, which layer refused its input."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.base import Mode, ParameterFacts, RunningStatistics
from pytest_overfit.adapters.running_statistics import moved_statistics
from pytest_overfit.adapters.torch.finite import Infinities, Updates, not_finite
from pytest_overfit.adapters.torch.modes import Modes
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.data.tree import to_numpy

Tensor = torch.Tensor
Statistics = dict[nn.Module, tuple[Tensor, Tensor]]
#: a module, the tensors it was given and those it made
Call = tuple[nn.Module, list[Tensor], list[Tensor]]


def parameter_facts(
    model: nn.Module, start: Mapping[str, Tensor], at_start: Infinities, updates: Updates
) -> ParameterFacts:
    """Compare the parameters with their start, look at the last gradients, and at what is not finite."""
    named = list(model.named_parameters())
    shapes = {name: each.shape for name, each in named}  # a step may put other parts in the place of some
    start = {name: each for name, each in start.items() if shapes.get(name) == each.shape}
    trainable = [(name, each) for name, each in named if each.requires_grad]
    return ParameterFacts(
        trainable=sum(each.numel() for _, each in trainable),
        frozen=sum(each.numel() for _, each in named if not each.requires_grad),
        tensors=len(trainable),
        without_gradient=tuple(
            name for name, each in trainable if each.grad is None or not bool(_dense(each.grad).any())
        ),
        unchanged=tuple(name for name, each in trainable if name in start and torch.equal(each.detach(), start[name])),
        moved=_relative_change([(each.detach(), start[name]) for name, each in trainable if name in start]),
        not_finite=not_finite(model, start, at_start, updates),
    )


def _relative_change(pairs: list[tuple[Tensor, Tensor]]) -> float | None:
    change = math.hypot(*(float((now - then).norm()) for now, then in pairs))
    size = math.hypot(*(float(then.norm()) for _, then in pairs))
    return change / size if size > 0 and math.isfinite(change) else None


def scale_rate(optimizer: torch.optim.Optimizer, factor: float) -> bool:
    """Multiply the rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] *= factor
    return True


def units_are_equal(weight: Tensor) -> bool:
    """Every unit (row) of a matrix is the same."""
    return weight.ndim > 1 and len(weight) > 1 and bool((weight == weight[:1]).all())


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def running_statistics(modes: Modes) -> Statistics:
    """A copy of the running statistics of every normalisation layer that updates them."""
    return {
        module: (module.running_mean.clone(), module.running_var.clone())  # type: ignore[union-attr]
        for module in modes.norms
    }


def movement(modes: Modes, forward: Callable[[], Any], start: Statistics) -> list[RunningStatistics]:
    """How far each layer's running statistics have come from their start towards the batch's."""
    names = {module: name for name, module in modes.model.named_modules()}
    with modes.reading("fit"), modes.observed_statistics() as batch:
        forward()
    found = []
    for module, then in start.items():
        if module in batch:
            now: tuple[Any, Any] = (module.running_mean, module.running_var)
            name = label(module, names)
            mean, variance, calls = batch[module]
            parts = [(to_numpy(one), to_numpy(other)) for one, other in (then, now, (mean, variance))]
            momentum: Any = module.momentum
            found.append(moved_statistics(name, momentum, parts[0], parts[1], parts[2], calls))
    return found


def label(module: nn.Module, names: Mapping[nn.Module, str]) -> str:
    """What a message calls a layer."""
    return f"{type(module).__name__} {names.get(module) or '(the model)'}"


def differing_module(modes: Modes, forward: Callable[[], Any], first: Mode, second: Mode) -> str | None:
    """The first module, innermost first, whose output differs between two modes although its input agrees."""
    names = {module: name for name, module in modes.model.named_modules()}
    calls = []
    for mode in (first, second):
        with modes.reading(mode, forward), recorded(modes.model) as seen:
            forward()
        calls.append(seen)
    for (module, given, made), (other, given_again, made_again) in zip(*calls, strict=False):
        if module is other and alike(given, given_again) and not alike(made, made_again):
            return f"{type(module).__name__} {names.get(module) or '(the model itself)'}"
    return None


@contextlib.contextmanager
def recorded(model: nn.Module) -> Iterator[list[Call]]:
    """Inputs and outputs of every module call, in the order in which the calls end."""
    calls: list[Call] = []

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls.append((module, _tensors((args, kwargs)), _tensors(output)))

    with contextlib.ExitStack() as hooks:
        for module in model.modules():
            hooks.enter_context(module.register_forward_hook(note, with_kwargs=True))
        yield calls


def _tensors(tree: Any) -> list[Tensor]:
    return [each.detach().clone() for each in tensors(tree)]


@contextlib.contextmanager
def noted_crashes(model: nn.Module, forward: Callable[[], Any]) -> Iterator[None]:
    """Add to an exception which layer raised it, where a forward pass that is watched tells."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(Exception):
            for note in explain_crash(model, forward):
                error.add_note(note)
        raise


@contextlib.contextmanager
def given_to_layers(model: nn.Module, given: list[Tensor]) -> Iterator[None]:
    """Note what every part of the model that has parameters of its own is called with."""

    def note(_: nn.Module, args: Any, kwargs: Any) -> None:
        given.extend(each.detach().clone() for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor))

    with contextlib.ExitStack() as hooks:
        for layer in model.modules():
            if layer is not model and next(layer.parameters(recurse=False), None) is not None:
                hooks.enter_context(layer.register_forward_pre_hook(note, with_kwargs=True))
        yield


def explain_crash(model: nn.Module, forward: Callable[[], Any]) -> list[str]:
    """Repeat a forward pass that raised, watched: which layer got what, and what it takes.

    Where the module that raised is a container (the failing line is a `view` or a `cat` in its own `forward`), the
    last layer that finished is named, and the next one that was never reached.
    """
    names = {module: name for name, module in model.named_modules()}
    open_: list[tuple[nn.Module, Any]] = []
    done: list[tuple[nn.Module, Any]] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        open_.append((module, (args, kwargs)))

    def leave(module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        open_.pop()
        done.append((module, output))

    with contextlib.ExitStack() as hooks:
        for module in model.modules():
            hooks.enter_context(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.enter_context(module.register_forward_hook(leave, with_kwargs=True))
        try:
            forward()
        except Exception:
            return _notes(names, open_, done)
    return []


def _notes(
    names: Mapping[nn.Module, str], open_: list[tuple[nn.Module, Any]], done: list[tuple[nn.Module, Any]]
) -> list[str]:
    if not open_:
        return []
    module, given = open_[-1]
    if not list(module.children()):
        return [f"layer {_called(module, names)} got {_shapes(given)}, {_expects(module)}"]
    notes = []
    if done:
        last, output = done[-1]
        notes.append(f"layer {_called(last, names)} gave {_shapes(output)}{_per_row(output)}")
    finished = {each for each, _ in done}
    waiting = (
        each for each in module.modules() if each not in finished and not list(each.children()) and _expects(each)
    )
    following = next(waiting, None)
    if following is not None:
        notes.append(f"layer {_called(following, names)}, not reached yet, {_expects(following)}")
    return notes


def _called(module: nn.Module, names: Mapping[nn.Module, str]) -> str:
    return f"{names.get(module) or '(the model)'} ({type(module).__name__})"


def _shapes(tree: Any) -> str:
    found = [each for each in pytree.tree_leaves(tree) if isinstance(each, Tensor)]
    return (
        " and ".join(f"{tuple(each.shape)} {str(each.dtype).removeprefix('torch.')}" for each in found) or "no tensor"
    )


def _per_row(output: Any) -> str:
    if isinstance(output, Tensor) and output.ndim > 2:
        return f" = {output[0].numel()} numbers a row"
    return ""


_EXPECTED = {
    "in_features": "expects {} features in the last axis",
    "in_channels": "expects {} channels in axis 1",
    "num_features": "expects {} channels in axis 1",
    "input_size": "expects {} features in the last axis",
    "normalized_shape": "expects the last axes to be {}",
    "embed_dim": "expects {} features in the last axis",
    "num_embeddings": "expects integers from 0 to below {}",
}


def _expects(module: nn.Module) -> str:
    weight = getattr(module, "weight", None)
    dtype = f" of dtype {str(weight.dtype).removeprefix('torch.')}" if isinstance(weight, Tensor) else ""
    for attribute, text in _EXPECTED.items():
        value = getattr(module, attribute, None)
        if value is not None:
            return text.format(value) + ("" if attribute == "num_embeddings" else dtype)
    return ""
