"""Trains an `nn.Module` on a whole split, with the user's own loss, optimizer and schedule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.torch import feed, outside
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.regularizers import twin
from pytest_overfit.adapters.trainer import EpochTrainer, digest_of
from pytest_overfit.core.case import Case
from pytest_overfit.data.batch import Batch, to_numpy
from pytest_overfit.data.splits import Split

_RESTLESS = "the model is random in training, in a way that could not be taken out"


class TorchTrainer(EpochTrainer):
    """Trains a freshly built module as a hand-written loop over the split would; `plain`: without its regularisers."""

    framework = "torch"
    looked_for = "torch: dropout, modules named after noise, weight decay"

    def __init__(self, case: Case, model: nn.Module, train: Split, reseed: Callable[[int], int], plain: bool) -> None:
        super().__init__(reseed)
        self.case, self.model = case, model
        #: the data as the model takes them
        self.split = train.prepared(self._on_device)
        self.learner: TorchLearner = TorchLearner(case, model, next(self.split.epoch(reseed(0))), rebuild=lambda: model)
        outside.begin_again(self.learner.outside.held)
        self.twin: twin.Twin = self._without_regularizers() if plain else twin.Twin()
        self.removed = self.twin.removed

    @property
    def remarks(self) -> tuple[str, ...]:
        self.learner.notice()
        return (*self.learner.remarks, *((_RESTLESS,) if self.twin.restless else ()))

    @property
    def outside(self) -> tuple[str, ...]:
        return self.learner.outside.names()

    def _on_device(self, batch: Batch) -> Batch:
        return feed.on_device(self.case, self.model, batch)

    def _without_regularizers(self) -> twin.Twin:
        learner = self.learner
        draws = functools.partial(learner.modes.draws_in_training, learner.forward.quiet)
        return twin.WithoutRegularizers(self.model, learner.optimizer, draws)

    def train(self, epochs: int, after_epoch: Callable[[], None] = lambda: None) -> list[float]:
        self.model.train()
        return super().train(epochs, after_epoch)

    def epoch(self, order: int) -> float:
        losses, rows = [], []
        with self.twin.active():
            for batch in self.split.epoch(order):
                losses.append(self.learner.step_on(batch))
                rows.append(batch.rows)
        weights = torch.as_tensor(rows, dtype=torch.float64)
        return float((torch.stack(losses).double().cpu() * weights).sum() / weights.sum())

    def scale_rate(self, factor: float) -> bool:
        if self.case.step is not None:  # a step of the user's may hold an optimizer of its own
            return False
        for group in self.learner.optimizer.param_groups:
            for name in ("lr", "initial_lr", "max_lr", "min_lr"):
                if name in group:
                    group[name] = group[name] * factor
        scheduler = self.learner.scheduler
        for each in (scheduler, *getattr(scheduler, "_schedulers", ())):  # a chain keeps its parts' rates apart
            if hasattr(each, "base_lrs"):
                each.base_lrs = [rate * factor for rate in each.base_lrs]
        return True

    def state(self) -> dict[str, torch.Tensor]:
        return {name: each.detach().clone() for name, each in self.model.state_dict().items()}

    def digest(self) -> str:
        return digest_of(map(to_numpy, self.model.state_dict().values()))

    def start_from(self, state: Any) -> bool:
        mine = self.model.state_dict()
        if {name: each.shape for name, each in mine.items()} != {name: each.shape for name, each in state.items()}:
            return False
        self.model.load_state_dict(state)
        return True

    @torch.no_grad()
    def redraw_weights(self, seed: int) -> bool:
        matrices = [each for each in self.model.parameters() if each.ndim > 1 and each.is_floating_point()]
        generator = torch.Generator().manual_seed(seed)
        for each in matrices:
            order = torch.randperm(each.numel(), generator=generator).to(each.device)
            each.copy_(each.flatten()[order].view_as(each))
        return bool(matrices)
