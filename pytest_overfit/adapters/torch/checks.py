"""Refuse, in plain words, what cannot be trained as it was written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.torch.fused_update import fuse
from pytest_overfit.adapters.torch.losses import LossCall
from pytest_overfit.core.case import Case
from pytest_overfit.core.diagnosed import diagnosed
from pytest_overfit.core.errors import CaseError, ProgramError
from pytest_overfit.core.foreign import describe
from pytest_overfit.core.usercode import user_code


def needs_loss_and_optimizer(case: Case) -> None:
    """A PyTorch case without `step` needs an optimizer; a loss is checked when the outputs are known."""
    if case.step is not None:
        return
    if case.optimizer is None:
        raise CaseError(
            f"Case {case.name!r}: a PyTorch case needs an optimizer; write optimizer=lambda parameters: "
            "torch.optim.Adam(parameters, lr=1e-3), with the settings you train with"
        )
    if isinstance(case.loss, type):
        raise CaseError(
            f"Case {case.name!r}: loss= is the class {case.loss.__name__}; write loss=torch.nn.{case.loss.__name__}()"
        )


def make_optimizer(case: Case, model: nn.Module, asked_for: Sequence[torch.Tensor] = ()) -> Any:
    """Call the user's optimizer function and see that it optimizes this model.

    `asked_for`: weights outside the model that the loss depends on, which the optimizer may hold beside the model's.
    """
    if case.optimizer is None:
        return None
    with user_code(f"Case {case.name!r}: the optimizer function"):
        takes_model = list(_arguments(case.optimizer)) == ["model"]
        optimizer = case.optimizer(model) if takes_model else case.optimizer(model.parameters())
    where = f"Case {case.name!r}: the optimizer function returned {describe(optimizer)}"
    if not hasattr(optimizer, "step") or not hasattr(optimizer, "param_groups"):
        raise CaseError(
            f"{where}, expected a torch optimizer; write optimizer=lambda parameters: torch.optim.Adam(parameters)"
        )
    others, known = not_of_the_model(optimizer, model), {id(each) for each in asked_for}
    if isinstance(case.loss, nn.Module):  # losses with weights of their own (ArcFace, learnt temperatures)
        known |= {id(each) for each in case.loss.parameters()}
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    foreign = len(others) if len(others) == held else sum(id(each) not in known for each in others)
    if foreign:
        cure = "write optimizer=lambda parameters: torch.optim.Adam(parameters)"
        error = CaseError(
            f"{where} that holds {foreign} parameter{'s' * (foreign > 1)} of another model ({held} in all), so "
            f"this model would not be trained by it; {cure}"
        )
        raise diagnosed(error, "optimizer_wrong_params", cure)
    if case.step is None:  # a step of the user's may do more with it, such as scaling gradients
        fuse(optimizer)
    return optimizer


def not_of_the_model(optimizer: Any, model: nn.Module) -> list[torch.Tensor]:
    """The parameters that an optimizer holds beside the model's: those of a loss that learns."""
    own = {id(each) for each in model.parameters()}
    groups = getattr(optimizer, "param_groups", ())
    return [each for group in groups for each in group["params"] if id(each) not in own]


def _arguments(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def make_scheduler(case: Case, optimizer: Any) -> Any:
    """Call the user's scheduler function."""
    if case.scheduler is None or optimizer is None:
        return None
    with user_code(f"Case {case.name!r}: the scheduler function"):
        scheduler = case.scheduler(optimizer)
    if not hasattr(scheduler, "step"):
        raise CaseError(
            f"Case {case.name!r}: the scheduler function returned {describe(scheduler)}, expected a torch "
            "scheduler; write scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 100)"
        )
    return scheduler


def update(optimizer: Any, scheduler: Any, backward: Callable[[], torch.Tensor]) -> torch.Tensor:
    """One step of optimizer and schedule, and its loss; a schedule that watches a metric is given the loss."""
    if isinstance(optimizer, torch.optim.LBFGS):
        loss = optimizer.step(backward)  # type: ignore[no-untyped-call]
    else:
        loss = backward()
        optimizer.step()
    if scheduler is not None:
        _step_scheduler(scheduler, loss)
    return loss.detach()  # type: ignore[no-any-return]


def _step_scheduler(scheduler: Any, loss: torch.Tensor) -> None:
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        scheduler.step(loss.detach())
    else:
        scheduler.step()


def loss_of_outputs(outputs: Any, case: Case) -> torch.Tensor:
    """The loss that a model computes itself: `outputs.loss`, `outputs["loss"]`, or the one number among its outputs."""
    loss = outputs.get("loss") if hasattr(outputs, "get") else getattr(outputs, "loss", None)
    if not isinstance(loss, torch.Tensor) and isinstance(outputs, (torch.Tensor, tuple, list)):
        parts = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        numbers = [each for each in parts if isinstance(each, torch.Tensor) and each.numel() == 1]
        numbers = [each for each in numbers if each.is_floating_point()]
        loss = numbers[0] if len(numbers) == 1 else None
    if not isinstance(loss, torch.Tensor):
        raise CaseError(
            f"Case {case.name!r}: it has no loss, and the model's output ({describe(outputs)}) carries none; write "
            "loss=torch.nn.functional.cross_entropy, or whatever you train with"
        )
    return loss


def is_scalar_loss(loss: Any, case: Case) -> None:
    """The loss must be a tensor with one number."""
    where = f"Case {case.name!r}: the loss function returned {describe(loss)}"
    if isinstance(loss, nn.Module):
        raise CaseError(
            f"{where}: a loss object instead of a loss; write loss={type(loss).__name__}(), with parentheses"
        )
    if not isinstance(loss, torch.Tensor):
        cure = "leave out .item(), float() and numpy()"
        error = CaseError(f"{where}, expected a tensor with one number; {cure}")
        raise error if loss is None else diagnosed(error, "detached_graph", cure)
    if loss.is_meta:
        raise CaseError(f"{where} on the meta device, which holds no number; make model and data on a real one")
    if not loss.is_floating_point():
        raise CaseError(
            f"{where}, expected a real number that can be differentiated, such as a mean of floats or .abs()"
        )
    if loss.numel() != 1:
        cure = "end the loss with .mean(), or use reduction='mean'"
        raise diagnosed(CaseError(f"{where}, expected one number; {cure}"), "wrong_reduction", cure)


def can_be_trained(loss: torch.Tensor, model: nn.Module, case: Case, flat: Callable[[], str]) -> None:
    """The loss depends on a parameter that is not frozen. `flat`: an operation without a slope on its way, or ""."""
    if loss.requires_grad:
        return
    where = f"Case {case.name!r}: nothing can be trained:"
    parameters = list(model.parameters())
    if not any(each.requires_grad for each in parameters):
        frozen = sum(each.numel() for each in parameters)
        message = f"{where} all {frozen} parameters of the model are frozen (requires_grad = False), or it has none"
        cure = "call requires_grad_(True) on what is to be trained"
        raise diagnosed(ProgramError(message), "frozen_parameters", cure)
    operation = flat()
    if operation:
        cure = "use scores or probabilities there, or pass a gradient through it (straight-through)"
        error = ProgramError(f"{where} the loss has no gradient: {operation} has no slope, and the loss is made of it")
        raise diagnosed(error, "non_differentiable", cure)
    cuts = "detach(), .data, .item(), numpy(), argmax, rounding, or torch.no_grad()"
    error = ProgramError(
        f"{where} the loss has no gradient. Something between the parameters and the loss cuts the graph: {cuts}"
    )
    raise diagnosed(error, "detached_graph", f"take out what cuts the graph: {cuts}")


def labels_fit_the_loss(case: Case, call: LossCall) -> None:
    """Class indices must be integers inside the classes; checked here, because a device would only abort."""
    if call.name.startswith("binary_cross_entropy"):
        _check_binary(case, call)
    if call.name in ("cross_entropy", "nll_loss", "multi_margin_loss"):
        _check_labels(case, call.name, call.input, call.target, int(call.arguments.get("ignore_index", -100)))


def _check_binary(case: Case, call: LossCall) -> None:
    where, target = f"Case {case.name!r}: {call.name}", call.target
    if not target.is_floating_point():
        error = CaseError(f"{where} expects floating-point targets, got {describe(target)}; write y.float()")
        raise diagnosed(error, "dtype_mismatch", "write y.float()")
    low, high = float(target.min()), float(target.max())
    if low < 0 or high > 1:
        cure = "write cross_entropy and one output a class, or map them to 0 and 1"
        error = CaseError(
            f"{where} expects targets between 0 and 1, got numbers from {low:g} to {high:g}, with which its loss falls "
            f"without limit; {cure}"
        )
        if _are_quantities(target):
            diagnosed(error, "wrong_loss", "use mse_loss: the targets are quantities, not labels")
        raise diagnosed(error, "label_out_of_range", cure)


def _are_quantities(target: torch.Tensor) -> bool:
    """Fractions, and more of them than labels would have."""
    return bool((target != target.round()).any()) and len(set(target.flatten().tolist())) > 2


def _check_labels(case: Case, name: str, input_: torch.Tensor, target: torch.Tensor, ignored: int) -> None:
    where = f"Case {case.name!r}: {name}"
    if not isinstance(input_, torch.Tensor) or not isinstance(target, torch.Tensor) or input_.ndim < 1:
        return
    classes = input_.shape[1] if input_.ndim > 1 else input_.shape[0]
    if target.is_floating_point():
        if target.shape != input_.shape or name != "cross_entropy":
            raise _no_labels(where, input_, target)
        return
    if target.dtype in (torch.bool, torch.int32, torch.int16, torch.int8):
        error = CaseError(f"{where} expects class labels of dtype int64, got {describe(target)}; write y.long()")
        raise diagnosed(error, "dtype_mismatch", "write y.long()")
    counted = target[target != ignored]
    if counted.numel() and (int(counted.max()) >= classes or int(counted.min()) < 0):
        raise _beyond(where, counted, classes)


def _no_labels(where: str, outputs: torch.Tensor, target: torch.Tensor) -> CaseError:
    """Floats where labels are taken: labels of another dtype, quantities, or probabilities of other classes."""
    error = CaseError(
        f"{where} expects integer class labels (int64), got {describe(target)} with {describe(outputs)}; write "
        "y.long(), or give probabilities of the outputs' shape"
    )
    if target.ndim == outputs.ndim == 2 and target.shape[1] > 1:
        widths = f"{outputs.shape[1]} units for {target.shape[1]} numbers a row"
        return diagnosed(error, "wrong_output_units", f"give the last layer {target.shape[1]} units", widths)
    if not bool((target == target.round()).all()):
        cure = "write mse_loss, and one unit, for a quantity"
        return diagnosed(error, "wrong_loss", cure, f"targets {describe(target)} with fractions, as no label has")
    return diagnosed(error, "dtype_mismatch", "write y.long()")


def _beyond(where: str, labels: torch.Tensor, classes: int) -> CaseError:
    """Labels that no unit stands for."""
    low, high = int(labels.min()), int(labels.max())
    cure = "give the model more outputs, or number the labels from 0"
    error = CaseError(
        f"{where}: labels go from {low} to {high}, but the model has {classes} "
        f"outputs, for the classes 0 to {classes - 1}; {cure}"
    )
    diagnosed(error, "label_out_of_range", cure)
    if low == 1 and high == classes:
        seen = f"labels go from 1 to {high} for {classes} units"
        return diagnosed(error, "label_off_by_one", "write y - 1", seen, "likely")
    if low >= 0 and bool(labels.flatten().bincount().gt(0).all()):
        seen = f"every label from 0 to {high} occurs, {high + 1} classes for {classes} units"
        return diagnosed(error, "wrong_output_units", f"give the last layer {high + 1} units", seen, "likely")
    return error
