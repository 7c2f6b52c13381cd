"""What a torch program is made of, before its first update."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.programs import Activation, Anatomy, Dropping, Given, OptimizerFacts, WeightFacts
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.losses import LossCalls
from pytest_overfit.adapters.torch.programs.differentiation import differentiated
from pytest_overfit.adapters.torch.records import predictions, tensors
from pytest_overfit.adapters.torch.regularizers.twin import rate_of_call
from pytest_overfit.adapters.torch.tracing.following import Following
from pytest_overfit.adapters.torch.tracing.operations import (
    ACTIVATIONS,
    DROPPING,
    RECURRENT,
    WEIGHTED,
    Trace,
    first_tensor,
    name_of,
)
from pytest_overfit.adapters.torch.wires.parts import unregistered

Tensor = torch.Tensor

#: ends of a range, and how near to one a value is saturated
_RANGES = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
_NEAR = 0.01

#: steps of a sequence from which on its beginning can be forgotten
_LONG = 10

#: the usual initialisation draws evenly from +-1/sqrt(inputs)
_EVENLY = math.sqrt(3.0)


class _Looking(Following):
    """A pass that is looked at."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model = model
        self.activations: list[tuple[Activation, Tensor]] = []
        self.dropping: list[tuple[str, float, Tensor]] = []
        self.direct: dict[tuple[str, str], None] = {}
        self.given: dict[str, float] = {}
        self.used: set[int] = set()
        self._units = -1

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        self.used.update(id(each) for each in tensors((args, kwargs)) if each.is_leaf and each.requires_grad)
        given = first_tensor(args, kwargs)
        if (func in WEIGHTED or name_of(func) in RECURRENT) and given is not None:
            self._look_at_the_first(given)
        result = super().called(func, args, kwargs)
        if func in ACTIVATIONS and isinstance(result, Tensor):
            self.activations.append((self._activation(func, args, kwargs, result), result))
        elif func in DROPPING and isinstance(result, Tensor):
            self.dropping.append((self._called(name_of(func)), float(rate_of_call(func, args, kwargs)), result))
        elif func in WEIGHTED and given is not None:
            self._units = 1 if name_of(func).startswith("conv") else -1
            before = self.origin(id(given))
            if before is not None and before.what == "weighted":
                self.direct[self._named(str(before.by)), self._named(self.where())] = None
        return result

    def _look_at_the_first(self, given: Tensor) -> None:
        """A layer that takes what no layer has made."""
        if given.is_floating_point() and given.numel() and not self.past_of(given).parameters:
            self.given.setdefault(self._named(self.where()), float(given.detach().float().square().mean().sqrt()))

    def _activation(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Activation:
        kind = ACTIVATIONS[func]
        axis = _axis(kwargs.get("dim", args[1] if len(args) > 1 else None), result) if "softmax" in kind else None
        units = self._units % result.ndim if result.ndim > 1 else 0
        return Activation(
            function=kind,
            where=self._called(name_of(func)),
            axis=axis,
            units=result.shape[units if axis is None else axis] if result.ndim else 0,
            dead=_dead(result, units) if kind in ("relu", "other") else 0.0,
            saturated=_saturated(kind, result),
        )

    def _named(self, path: str) -> str:
        module = self._model.get_submodule(path)
        return f"{type(module).__name__} {path!r}" if path else type(module).__name__

    def _called(self, function: str) -> str:
        name, module = self.open[-1] if self.open else ("", None)
        if module is None:
            return f"a call of {function}"
        if not list(module.children()) and not list(module.parameters()):
            return f"{type(module).__name__} {name!r}" if name else type(module).__name__
        return f"{function} in {type(module).__name__}{f' {name!r}' if name else ''}"


def _axis(given: Any, result: Tensor) -> int | None:
    if isinstance(given, int) and result.ndim:
        return given % result.ndim
    return (0 if result.ndim in (0, 1, 3) else 1) if given is None else None  # what torch takes without a word


def _dead(result: Tensor, axis: int) -> float:
    if result.ndim < 2 or not result.numel():
        return 0.0
    by_unit = result.detach().movedim(axis, 0).reshape(result.shape[axis], -1)
    return float((by_unit == 0).all(dim=1).float().mean())


def _saturated(kind: str, result: Tensor) -> float:
    if kind not in _RANGES or not result.numel():
        return 0.0
    low, high = _RANGES[kind]
    near = _NEAR * (high - low)
    values = result.detach()
    return float(((values < low + near) | (values > high - near)).float().mean())


def anatomy_of(learner: TorchLearner) -> Anatomy:
    """See `pytest_overfit.adapters.programs.Program`; the learner is used for nothing else afterwards."""
    model, forward = learner.model, learner.forward
    looking, inside, outside = _Looking(model), LossCalls(), LossCalls()
    with learner.modes.reading("train"), forward.as_written():
        with looking.noting_modules(model), inside, looking:
            outputs = forward.quiet()
        if forward.has_loss and forward.can_be_called:
            with outside:
                forward.loss_again(outputs)
    last = _makers(looking, predictions(outputs))
    own, (gradients, faded) = None, _gradients(learner)
    weights = list(_weights(learner, gradients))
    if any(each.main and each.trainable and not each.gradient for each in weights):
        own = differentiated(learner)
        weights = list(_weights(learner, own.gradients))
    return Anatomy(
        activations=tuple(_marked(looking, last)),
        weights=tuple(weights),
        dropping=tuple(
            Dropping(where=where, rate=rate, last=id(made) in last) for where, rate, made in looking.dropping
        ),
        optimizer=_optimizer(learner),
        direct=tuple(looking.direct),
        penalties=() if own is None or own.penalty is None else (_penalty_words(*own.penalty),),
        losses=tuple(dict.fromkeys(call.name for call in (*inside.calls, *outside.calls))),
        given=tuple(Given(where=where, size=size) for where, size in looking.given.items()),
        faded=faded,
        unregistered=tuple(name for name, each in unregistered(model).items() if id(each) in looking.used),
        kept=None if own is None else own.kept,
        cuts=() if own is None else own.cuts,
        depends=None if own is None else own.depends,
        taken_out=() if own is None else own.taken_out,
    )


def _penalty_words(penalty: float, loss: float) -> str:
    return f"a penalty on the weights of {penalty:.3g} beside a loss of {loss:.3g}"


def _makers(looking: Trace, outputs: Iterable[Tensor]) -> set[int]:
    """The outputs, and what they are reshapes of."""
    found: set[int] = set()
    for output in outputs:
        at: int | None = id(output)
        while at is not None and at not in found:
            found.add(at)
            made = looking.made.get(at)
            at = made.source if made is not None and made.what == "passing" else None
    return found


def _marked(looking: _Looking, last: set[int]) -> Iterator[Activation]:
    made = [id(result) for _, result in looking.activations]
    sources = (looking.made[each].source for each in made if each in last)
    before = {found.by for each in sources if (found := looking.origin(each)) and found.what == "activation"}
    for number, (activation, _) in enumerate(looking.activations):
        yield dataclasses.replace(activation, last=made[number] in last, feeds_last=number in before)


def _weights(learner: TorchLearner, gradients: Mapping[str, float | None]) -> Iterator[WeightFacts]:
    groups = getattr(learner.optimizer, "param_groups", None)
    held = None if groups is None else {id(each) for group in groups for each in group["params"]}
    owners = {id(each): module for module in learner.model.modules() for each in module.parameters(recurse=False)}
    for name, each in learner.model.named_parameters():
        owner = owners[id(each)]
        fan_in = each[0].numel() if each.ndim > 1 else 0
        values = each.detach().float()
        yield WeightFacts(
            name=name,
            kind=type(owner).__name__,
            shape=tuple(each.shape),
            units=_units(owner),
            main=each.ndim > 1 and "bias" not in name and not isinstance(owner, (nn.Embedding, nn.EmbeddingBag)),
            trainable=each.requires_grad,
            held=None if held is None else id(each) in held,
            size=float(values.square().mean().sqrt()) if each.numel() else 0.0,
            usual=1.0 / (_EVENLY * math.sqrt(fan_in)) if fan_in else 0.0,
            equal_units=each.ndim > 1 and len(each) > 1 and bool((values == values[:1]).all()),
            gradient=gradients.get(name),
        )


def _units(owner: nn.Module) -> int:
    names = ("out_features", "out_channels", "hidden_size")
    return int(next((getattr(owner, name) for name in names if hasattr(owner, name)), 0))


def _gradients(learner: TorchLearner) -> tuple[dict[str, float | None], float | None]:
    """Of the first step, by parameter, and how far it fades over a sequence.

    None where only a step of the user's knows how to compute them.
    """
    if learner.case.step is not None:
        return {}, None
    read = _ReadSequences(learner.model)
    trainable = [(name, each) for name, each in learner.model.named_parameters() if each.requires_grad]
    with learner.modes.reading("train"), read:
        _, loss, _ = learner.forward.watched(quiet=False)
        if loss is None or not loss.requires_grad:
            return {}, None
        wanted = [*(each for _, each in trainable), *(each for each, _ in read.found)]
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
    slopes = {name: _rms(slope) for (name, _), slope in zip(trainable, found, strict=False)}
    faded = [_faded(slope, axis) for slope, (_, axis) in zip(found[len(trainable) :], read.found, strict=True)]
    return slopes, min((each for each in faded if each is not None), default=None)


class _ReadSequences:
    """What recurrent layers that go forward through a sequence are given, with its axis of steps."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [each for each in model.modules() if isinstance(each, nn.RNNBase) and not each.bidirectional]
        self._hooks: list[Any] = []
        self.found: list[tuple[Tensor, int]] = []

    def __enter__(self) -> None:
        self._hooks = [each.register_forward_pre_hook(self._note) for each in self._layers]

    def __exit__(self, *_: object) -> None:
        for each in self._hooks:
            each.remove()

    def _note(self, layer: Any, args: Any) -> Any:
        given = args[0] if args else None
        if not isinstance(given, Tensor) or given.ndim != 3:
            return None
        read = given if given.requires_grad else given.clone().requires_grad_()
        self.found.append((read, 1 if layer.batch_first else 0))
        return (read, *args[1:])


def _faded(slope: Tensor | None, axis: int) -> float | None:
    """That of the first step over the largest."""
    if slope is None or slope.shape[axis] < _LONG:
        return None
    by_step = slope.detach().movedim(axis, 0).flatten(1).norm(dim=1)
    return float(by_step[0] / by_step.max()) if by_step.max() > 0 else None


def _rms(slope: Tensor | None) -> float | None:
    if slope is None:
        return None
    dense = slope.to_dense() if slope.is_sparse else slope
    return float(dense.float().norm()) / math.sqrt(max(1, dense.numel()))


def _optimizer(learner: TorchLearner) -> OptimizerFacts | None:
    optimizer = learner.optimizer
    if optimizer is None:
        return None
    groups = optimizer.param_groups
    rates = [float(group["lr"]) for group in groups if "lr" in group]
    epsilons = [float(group["eps"]) for group in groups if "eps" in group]
    return OptimizerFacts(
        kind=type(optimizer).__name__,
        rate=max(rates, default=None),
        epsilon=max(epsilons, default=None),
        decay=max((float(group.get("weight_decay") or 0.0) for group in groups), default=0.0),
        scheduled=learner.scheduler is not None,
    )
