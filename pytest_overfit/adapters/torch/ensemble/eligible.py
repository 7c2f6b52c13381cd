"""Which trainers may train at once: the same in every model, entry by entry, and small enough to gain by it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.torch.trainer import TorchTrainer
from pytest_overfit.data.splits import Arrays

#: each entry of a parameter is updated by its own gradient and history alone
_ENTRYWISE = tuple(
    getattr(torch.optim, name)
    for name in ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adamax", "NAdam", "RAdam", "Adadelta")
)

#: rows of a batch times trained parameters, at most, for each model that joins. Above it the arithmetic takes most of a
#: step's time, and one model after the other keeps its weights nearer to the processor; what is saved besides is
#: saved once for each model (benchmarks/speed/RESULTS.md, "Seeds at once")
MOST_PRODUCTS = 125_000

#: steps of all models together, at least: fewer do not pay for writing the step down (0.05 s)
FEWEST_STEPS = 400

#: entries of the data and of the parameters of all models together, at most
_MOST_ENTRIES = 50_000_000

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


class CannotJoinError(Exception):
    """Why these models cannot train at once, or gain nothing by it; found out after `may_join`."""


def may_join(trainer: TorchTrainer, members: int, epochs: int) -> bool:
    """True if so many trainers like this one may be tried at once. A rule on counts: a busy machine changes nothing."""
    split = trainer.split
    return (
        members > 1
        and _is_plain_case(trainer)
        and type(split) is Arrays
        and _pays(trainer, split, members, epochs)
        and _is_plain_model(trainer.model)
        and _is_plain_optimizer(trainer.learner.optimizer, trainer.learner.scheduler)
        and _are_tensors(split)
        and not split.batch.axes
    )


def _is_plain_case(trainer: TorchTrainer) -> bool:
    case = trainer.case
    shares = trainer.learner.outside.held or trainer.outside  # all trainings would pull at the same weights
    return case.step is None and case.autocast is None and not shares and trainer.learner.forward.runs_as_written


def _pays(trainer: TorchTrainer, split: Arrays, members: int, epochs: int) -> bool:
    entries = sum(each.numel() for each in trainer.model.parameters())
    held = sum(each.numel() for each in pytree.tree_leaves((split.batch.x, split.batch.y)) if torch.is_tensor(each))
    return (
        min(split.size, split.rows) * entries <= members * MOST_PRODUCTS
        and members * epochs * math.ceil(split.rows / split.size) >= FEWEST_STEPS
        and members * (entries + held) <= _MOST_ENTRIES
    )


def pays(products: int, members: int) -> bool:
    """True if what a step was seen to do gains by it: also for weights that are used more than once a row.

    Gradients are two products more of the same size.
    """
    return products <= 3 * members * members * MOST_PRODUCTS


def _is_plain_model(model: nn.Module) -> bool:
    if next(model.buffers(), None) is not None or isinstance(model, torch.jit.ScriptModule):
        return False
    for module in model.modules():
        if any(getattr(module, name, None) for name in _HOOKS):
            return False
    found = list(model.parameters())
    kinds = {(each.dtype, each.device.type, each.layout) for each in found}
    return kinds in ({(torch.float32, "cpu", torch.strided)}, {(torch.float64, "cpu", torch.strided)}) and not any(
        each._backward_hooks or not each.is_contiguous() or type(each) is not nn.Parameter for each in found
    )


def _is_plain_optimizer(optimizer: Any, scheduler: Any) -> bool:
    hooks = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    return (
        type(optimizer) in _ENTRYWISE
        and not any(getattr(optimizer, name, None) for name in hooks)
        and all(_is_number(value) for group in optimizer.param_groups for value in options_of(group).values())
        and not any(group.get(name) for group in optimizer.param_groups for name in ("differentiable", "capturable"))
        and all(type(each).__module__ == torch.optim.lr_scheduler.__name__ for each in _parts(scheduler))
        and not any(isinstance(each, torch.optim.lr_scheduler.ReduceLROnPlateau) for each in _parts(scheduler))
    )


def _parts(scheduler: Any) -> Iterator[Any]:
    if scheduler is not None:
        yield scheduler
        for each in getattr(scheduler, "_schedulers", ()):
            yield from _parts(each)


def _is_number(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_number, value))
    return value is None or isinstance(value, (bool, int, float, str))


def options_of(group: dict[str, Any]) -> dict[str, Any]:
    """The settings of a parameter group."""
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}


def _are_tensors(split: Arrays) -> bool:
    """Every part of the data is a tensor with one entry for each row."""
    given = pytree.tree_leaves((split.batch.x, split.batch.y))
    plain = all(type(each) is torch.Tensor and each.ndim and len(each) == split.rows for each in given)
    return plain and bool(given) and split.batch.weights is None


def are_alike(trainers: Sequence[TorchTrainer]) -> bool:
    """The same parameters in the same groups with the same settings, and data of the same sizes."""
    return len({repr(_form(each)) for each in trainers}) == 1


def _form(trainer: TorchTrainer) -> tuple[Any, ...]:
    names = {id(each): name for name, each in trainer.model.named_parameters()}
    shapes = [(name, each.shape, each.requires_grad) for name, each in trainer.model.named_parameters()]
    groups = [
        ([names.get(id(each)) for each in group["params"]], sorted(options_of(group).items()))
        for group in trainer.learner.optimizer.param_groups
    ]
    modules = [(name, type(each), each.training) for name, each in trainer.model.named_modules()]
    split = whole(trainer)
    leaves, spec = pytree.tree_flatten((split.batch.x, split.batch.y))
    sizes = [(each.shape, each.dtype) for each in leaves]
    return shapes, groups, modules, sizes, str(spec), split.size, trainer.removed


def whole(trainer: TorchTrainer) -> Arrays:
    """The data of a trainer that may join."""
    if not isinstance(trainer.split, Arrays):
        raise TypeError(f"{type(trainer.split).__name__} is read batch by batch")
    return trainer.split
