"""Trains several models of one case at once: one operation on stacked tensors for all of them.

Each has its own weights, order of the data and dropout masks, drawn from its own seed as if it trained alone. What it
comes to differs from that by rounding. It is compared with a model trained alone, on the first steps and once an epoch:
where losses, gradients, updates or random numbers differ by more, nothing of it counts and they train one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.func import vmap
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.torch.ensemble.eligible import CannotJoinError, are_alike, pays, whole
from pytest_overfit.adapters.torch.ensemble.masks import Masks, Sites
from pytest_overfit.adapters.torch.ensemble.stack import Stack
from pytest_overfit.adapters.torch.ensemble.trace import TracedProgram
from pytest_overfit.adapters.torch.state import generators, preserved_generators
from pytest_overfit.adapters.torch.trainer import TorchTrainer
from pytest_overfit.data.splits import permutation, rows_of

Tensor = torch.Tensor

#: first steps on batches of each size that are compared with a model alone
_CHECKED = 2

#: differences that rounding explains, relative to the largest entry of a tensor and of all tensors
_OF_ITS_OWN, _OF_ALL = 1e-4, 1e-6


def train(
    trainers: Sequence[TorchTrainer], epochs: int, after_epoch: Callable[[int], None]
) -> list[list[float]] | None:
    """Train for so many epochs; the mean losses of each trainer. `after_epoch` gets the number of a trainer.

    None: they cannot train at once, and must not be used afterwards.
    """
    group = None
    try:
        if are_alike(trainers):
            group = _Group(trainers)
    except Exception:  # whatever it is: one after the other it will not happen, or be reported properly
        return None
    losses: list[list[float]] = []
    for _ in range(epochs):
        try:
            losses.append(group.epoch() if group is not None else [])
        except Exception:
            return None
        if group is None:
            return None
        for member in range(len(trainers)):
            after_epoch(member)
    return [list(each) for each in zip(*losses, strict=True)]


class _Group:
    def __init__(self, trainers: Sequence[TorchTrainer]) -> None:
        self._trainers = trainers
        self._learners = [each.learner for each in trainers]
        splits = [whole(each) for each in trainers]
        self._batches = [each.batch for each in splits]
        self._rows, self._size = splits[0].rows, splits[0].size
        self._data, self._first = _stacked_data([(each.x, each.y) for each in self._batches], self._rows)
        self._stack = Stack([each.model for each in trainers], [each.optimizer for each in self._learners])
        self._generators = [torch.Generator() for _ in trainers]
        self._steps: dict[int, _Step] = {}
        self._alone: tuple[Sequence[Tensor], Any] | None = self._stack.apart(-1)
        self._updates = 0

    def epoch(self) -> list[float]:
        """One epoch of every model; the mean loss of each."""
        orders = []
        for trainer, generator in zip(self._trainers, self._generators, strict=True):
            order = trainer.next_order()
            generator.manual_seed(order)
            orders.append(torch.as_tensor(permutation(self._rows, order)))
        rows = torch.stack(orders)
        losses, sizes = [], []
        for start in range(0, self._rows, self._size):
            chosen = rows[:, start : start + self._size]
            losses.append(self._update(chosen, check=start == 0))
            sizes.append(chosen.shape[1])
        weights = torch.as_tensor(sizes, dtype=torch.float64)
        mean: list[float] = ((torch.stack(losses).double() * weights[:, None]).sum(0) / weights.sum()).tolist()
        return mean

    def _update(self, chosen: Tensor, check: bool) -> Tensor:
        size = chosen.shape[1]
        if size not in self._steps:
            self._steps[size] = self._written_down(chosen)
        step = self._steps[size]
        check = check or step.made < _CHECKED
        before = self._generators[-1].get_state() if check else None
        given = [each[chosen + self._first] for each in self._data]
        losses, gradients = step.run(self._stack, given, self._generators)
        if before is not None:
            self._compare(chosen[-1], before, losses[-1], [each[-1] for each in gradients])
        self._stack.step(gradients)
        if self._alone is not None:
            self._compare_update([each[-1] for each in gradients])
        self._follow_schedule()
        return losses

    def _written_down(self, chosen: Tensor) -> _Step:
        with self._trainers[-1].twin.active():
            return _Step(self._trainers[-1], self._stack, self._data, self._first, chosen, self._batches[-1])

    def _follow_schedule(self) -> None:
        leader = self._learners[0]
        if leader.scheduler is not None:
            leader.optimizer.zero_grad()
            leader.optimizer.step()  # moves nothing without gradients; a schedule wants to see that it was called
            leader.scheduler.step()
            self._stack.take_settings()

    # ------------------------------------------------------------ a model alone

    def _compare(self, rows: Tensor, before: Tensor, loss: Tensor, gradients: list[Tensor]) -> None:
        """The last model's own pass on the same rows, from where its generator stood."""
        learner = self._learners[-1]
        others, state = generators()[:3], _held_by(learner.model)
        with preserved_generators():
            torch.default_generator.set_state(before)
            with self._trainers[-1].twin.active():
                alone = learner.backward_on(rows_of(self._batches[-1], rows.numpy()))
            drawn = torch.equal(torch.default_generator.get_state(), self._generators[-1].get_state())
        if not drawn or generators()[:3] != others or _held_by(learner.model) != state:
            raise CannotJoinError("a pass draws other random numbers, or leaves something in the model")
        named = dict(learner.model.named_parameters())
        own = [named[name].grad for name in self._stack.trained]
        if any(each is None for each in own):
            raise CannotJoinError("a parameter has no gradient")
        _same([loss.reshape(1)], [alone.reshape(1)], "losses")
        _same(gradients, own, "gradients")  # type: ignore[arg-type]
        for each in named.values():
            each.grad = None

    def _compare_update(self, gradients: list[Tensor]) -> None:
        if self._alone is None:  # pragma: no cover - the caller has seen to it
            raise TypeError("there is no update to compare with")
        weights, optimizer = self._alone
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = torch.empty_like(weight).copy_(gradient)  # as autograd makes it: in the order of the weight
        optimizer.step()
        _same([self._stack.tensors[name][-1] for name in self._stack.trained], weights, "updates")
        self._updates += 1
        if self._updates == _CHECKED or self._learners[0].scheduler is not None:
            self._alone = None


class _Step:
    """Losses and gradients of all models on batches of one size."""

    def __init__(
        self, trainer: TorchTrainer, stack: Stack, data: list[Tensor], first: Tensor, chosen: Tensor, batch: Any
    ) -> None:
        learner = trainer.learner
        self.made = 0
        sites = Sites()
        with preserved_generators(), sites, trainer.twin.active():
            learner.pass_on(rows_of(batch, chosen[-1].numpy()))
        self._masks = Masks(sites.found, stack.members)
        names, trained = list(stack.tensors), len(stack.trained)
        spec = pytree.tree_structure((batch.x, batch.y))

        def one(weights: list[Tensor], given: list[Tensor], masks: list[Tensor]) -> Tensor:
            x, y = pytree.tree_unflatten(given, spec)
            with Sites(masks), trainer.twin.active():
                return learner.forward.loss_with(dict(zip(names, weights, strict=True)), x, y)

        def step(*inputs: Tensor) -> list[Tensor]:
            weights, rest = list(inputs[: len(names)]), inputs[len(names) :]
            given, masks = list(rest[: len(data)]), list(rest[len(data) :])
            losses = vmap(one, randomness="error")(weights, given, masks)
            return [losses, *torch.autograd.grad(losses.sum(), weights[:trained])]

        weights = [each.detach().requires_grad_(number < trained) for number, each in enumerate(stack.tensors.values())]
        shapes = [torch.ones_like(each) for each in self._masks.draw([torch.Generator() for _ in range(stack.members)])]
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("error")  # an operation that torch can only repeat for each model
            inputs = [*weights, *(each[chosen + first] for each in data), *shapes]
            self._program = TracedProgram(step, inputs, stack.tensors.values())
        if not pays(self._program.products, stack.members):
            raise CannotJoinError("the arithmetic takes most of the time")

    def run(
        self, stack: Stack, given: list[Tensor], generators: Sequence[torch.Generator]
    ) -> tuple[Tensor, list[Tensor]]:
        self.made += 1
        with torch.no_grad():
            losses, *gradients = self._program.run(*stack.tensors.values(), *given, *self._masks.draw(generators))
        return losses, gradients


def _stacked_data(given: list[Any], rows: int) -> tuple[list[Tensor], Tensor]:
    """Every part of the data as one tensor, and the place in it of each model's first row."""
    parts = [pytree.tree_leaves(each) for each in given]
    columns = list(zip(*parts, strict=True))
    if all(torch.equal(each, column[0]) for column in columns for each in column):
        return parts[0], torch.zeros(len(given), 1, dtype=torch.int64)
    return [torch.cat(each) for each in columns], torch.arange(len(given))[:, None] * rows


def _same(found: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
    most = max(float(each.detach().abs().max()) for each in expected)
    for mine, alone in zip(found, expected, strict=True):
        alone = alone.detach()
        slack = _OF_ITS_OWN * float(alone.abs().max()) + _OF_ALL * most
        if not torch.allclose(mine, alone, rtol=0, atol=slack, equal_nan=True):
            raise CannotJoinError(f"{what} differ by {float((mine - alone).abs().max()):.3g}")


def _held_by(model: torch.nn.Module) -> list[Any]:
    """What a forward pass might leave in a model: numbers, tensors, objects."""
    held: list[Any] = []
    for module in model.modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            plain = isinstance(value, (int, float, str, tuple, list, dict, set))
            held.append((name, repr(value) if plain else id(value), getattr(value, "_version", 0)))
    return held
