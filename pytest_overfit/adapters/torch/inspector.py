"""What only torch can be asked: gradients, idle units, a saved state, float64, costs. Nothing is left changed."""

from __future__ import annotations

import copy
import io
import pickle
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from pytest_overfit.adapters import arrays
from pytest_overfit.adapters.base import GradientsInParts
from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.memory import memory_peak
from pytest_overfit.adapters.torch.modes import materialise
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.state import preserved_generators, reseed
from pytest_overfit.core import state
from pytest_overfit.core.arrays import Array
from pytest_overfit.data.batch import to_numpy
from pytest_overfit.data.splits import in_parts, rows_of

Pair = tuple[Sequence[Array], Sequence[Array]]


__all__ = [
    "gradient_norms",
    "gradients_in_parts",
    "idle_units",
    "in_both_precisions",
    "memory_peak",
    "reference_kernel",
    "saved_and_loaded",
]


def gradient_norms(learner: TorchLearner) -> dict[str, float] | None:
    """See `pytest_overfit.adapters.inspector.Inspector`."""
    named = [(name, each) for name, each in learner.model.named_parameters() if each.requires_grad]
    with learner.modes.reading("fit"):
        _, loss, _ = learner.forward.watched(quiet=False)
        if loss is None or not loss.requires_grad or not named:
            return None
        found = torch.autograd.grad(loss, [each for _, each in named], allow_unused=True)
    squares: dict[str, float] = {}
    for (name, _), gradient in zip(named, found, strict=True):
        layer = name.rpartition(".")[0] or name
        squares[layer] = squares.get(layer, 0.0) + (0.0 if gradient is None else float(gradient.double().norm()) ** 2)
    return {layer: square**0.5 for layer, square in squares.items()}


def gradients_in_parts(learner: TorchLearner, parts: int) -> GradientsInParts | None:
    """See `pytest_overfit.adapters.inspector.Inspector`. None: rows or loss cannot be taken apart."""
    forward, batch = learner.forward, learner.given
    divides = learner.by_row.inputs_of([0]) is not None
    if (
        not divides or not forward.has_loss or forward.own or forward.captured
    ):  # a step of the user's has its targets inside
        return None
    try:
        whole, again = _gradient(learner), _gradient(learner)
        found = []
        for rows in in_parts(batch.rows, parts):
            learner.look_at(rows_of(batch, rows))
            found.append((len(rows), _gradient(learner)))
        return GradientsInParts(whole, again, found, coarse=_is_coarse(learner))
    finally:
        learner.look_at(batch)


def _gradient(learner: TorchLearner) -> Array:
    """The loss's gradient on the batch that is looked at, dropout off, as one vector."""
    trainable = [each for each in learner.model.parameters() if each.requires_grad]
    with learner.modes.reading("fit"), learner.explained("the model on a part of the batch"):
        _, loss, _ = learner.forward.watched(quiet=False)
        if loss is None:  # pragma: no cover - whoever calls has made sure of it
            raise TypeError("the step hides its loss")
        found = torch.autograd.grad(loss, trainable, allow_unused=True, materialize_grads=True)
    return to_numpy(torch.cat([(each.to_dense() if each.is_sparse else each).reshape(-1) for each in found]).float())


def _is_coarse(learner: TorchLearner) -> bool:
    half = (torch.float16, torch.bfloat16)
    return learner.case.autocast is not None or any(each.dtype in half for each in learner.model.parameters())


def reference_kernel(learner: TorchLearner, size: int) -> Callable[[], object]:
    """See `pytest_overfit.adapters.inspector.Inspector`."""
    matrix = torch.linspace(-1, 1, size * size, dtype=torch.float32, device=learner.forward.device).reshape(size, size)
    return lambda: (matrix @ matrix)[0, 0].item()


#: activations that can be idle: ReLUs have a zero gradient at zero
_ACTIVATIONS: dict[arrays.Activation, set[Any]] = {
    "relu": {F.relu, F.relu_, F.relu6, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_},
    "sigmoid": {F.sigmoid, torch.sigmoid, torch.sigmoid_, torch.Tensor.sigmoid, torch.Tensor.sigmoid_},
    "tanh": {F.tanh, torch.tanh, torch.tanh_, torch.Tensor.tanh, torch.Tensor.tanh_},
}
_CONVOLUTIONS: set[Any] = {
    F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d
}  # fmt: skip
_LINEAR: set[Any] = {
    F.linear,
    torch.matmul,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.bmm,
    torch.mm,
    torch.addmm,
}


class _Units(TorchFunctionMode):
    """Sees every activation, of modules and of plain functions, and counts the units that do nothing."""

    def __init__(self) -> None:
        super().__init__()
        #: the axis of the units: of the last convolution, or linear map, before the activation
        self._axis = -1
        #: function, result, and the counts of its units: later operations may write into the result
        self.seen: list[tuple[str, torch.Tensor, tuple[int, int]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _CONVOLUTIONS:
            self._axis = 1
        elif func in _LINEAR:
            self._axis = -1
        elif isinstance(result, torch.Tensor) and result.ndim >= 2:
            axis = self._axis % result.ndim or result.ndim - 1
            for function, calls in _ACTIVATIONS.items():
                if func in calls:
                    self.seen.append((function, result, arrays.idle_units(to_numpy(result), function, axis)))
        return result


def idle_units(learner: TorchLearner) -> dict[str, tuple[int, int]] | None:
    """See `pytest_overfit.adapters.inspector.Inspector`."""
    with learner.modes.reading("fit"), learner.forward.as_written():
        watch = _Units()
        with watch:
            outputs = tensors(learner.forward.quiet())
    # a sigmoid at the end is meant to be certain; it may have been sliced since
    own = {each.untyped_storage().data_ptr() for each in outputs}
    return arrays.dead_and_saturated(
        (function, counts)
        for function, result, counts in watch.seen
        if function == "relu" or result.untyped_storage().data_ptr() not in own
    )


def saved_and_loaded(learner: TorchLearner) -> Pair | None:
    """See `pytest_overfit.adapters.inspector.Inspector`."""
    if not learner.forward.can_be_called:
        return None
    with learner.modes.reading("eval"):
        saved = [to_numpy(each) for each in tensors(learner.forward.quiet())]
    image = io.BytesIO()
    torch.save(learner.model.state_dict(), image)
    image.seek(0)
    with state.preserved_generators(), preserved_generators():
        state.seed_standard_library(1)  # whatever is not in the state differs then
        reseed(1)
        model = learner.case.model().to(learner.forward.device)
        forward = Forward(learner.case, model, learner.forward.given)
        materialise(model, forward.quiet)
        try:
            model.load_state_dict(torch.load(image, weights_only=True, map_location=learner.forward.device))
        except (RuntimeError, pickle.UnpicklingError):  # keys or shapes of another model, or more than weights
            return saved, []
        return saved, _evaluated(model, forward)


def in_both_precisions(learner: TorchLearner) -> Pair | None:
    """See `pytest_overfit.adapters.inspector.Inspector`. None: with autocast, or a model that is not all float32."""
    floats = {each.dtype for each in learner.model.parameters() if each.is_floating_point()}
    whole = learner.case.autocast is None and floats == {torch.float32}
    if not whole or not learner.forward.can_be_called:
        return None
    model = copy.deepcopy(learner.model).double()
    x = pytree.tree_map_only(
        torch.Tensor, lambda each: each.double() if each.is_floating_point() else each, learner.forward.batch.x
    )
    forward = Forward(learner.case, model, types.SimpleNamespace(x=x, y=learner.forward.batch.y))  # type: ignore[arg-type]
    default = torch.get_default_dtype()
    with state.preserved_generators(), preserved_generators():
        torch.set_default_dtype(torch.float64)
        try:
            wide = _evaluated(model, forward)
        except RuntimeError:  # a model that makes float32 numbers of its own cannot be computed so
            return None
        finally:
            torch.set_default_dtype(default)
    with learner.modes.reading("eval"):
        return [to_numpy(each) for each in tensors(learner.forward.quiet())], wide


def _evaluated(model: nn.Module, forward: Forward) -> list[Array]:
    model.eval()
    return [to_numpy(each) for each in tensors(forward.quiet())]
