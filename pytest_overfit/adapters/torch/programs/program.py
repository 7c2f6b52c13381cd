"""A torch case on its batch, changed in one thing."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.dispatch import build
from pytest_overfit.adapters.programs import Anatomy, Change, Origin, UnchangeableError
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.programs import data, forwards, objective, updates, weights, widening
from pytest_overfit.adapters.torch.programs.anatomy import anatomy_of
from pytest_overfit.adapters.torch.programs.origin import origin_of
from pytest_overfit.adapters.torch.regularizers.twin import WithoutRegularizers
from pytest_overfit.core.case import Case
from pytest_overfit.data.batch import Batch

#: done to a new model
Surgery = Callable[[nn.Module], nn.Module]


class TorchProgram:
    """See `pytest_overfit.adapters.programs.Program`."""

    def __init__(self, learner: TorchLearner, rebuild: Callable[[], Any] | None = None) -> None:
        self._case, self._batch, self._labels = learner.case, learner.given, learner.labels
        self._rebuild = rebuild or learner.rebuild

    @functools.cached_property
    def _anatomy(self) -> Anatomy:
        return anatomy_of(self._made(self._case, self._batch))

    def anatomy(self) -> Anatomy:
        return self._anatomy

    def changed(self, change: Change) -> TorchLearner:
        make: Callable[[Change], TorchLearner] = getattr(self, f"_{change.kind}")
        return make(change)

    def again(self, seed: int) -> TorchProgram:
        other = TorchProgram.__new__(TorchProgram)
        other._case, other._batch, other._labels = self._case, self._batch, self._labels
        other._rebuild = lambda: build(self._case, seed)
        return other

    def origin(self, steps: int) -> Origin | None:
        return origin_of(lambda: self._made(self._case, self._batch), steps)

    def _made(self, case: Case, batch: Batch, surgery: Surgery = lambda model: model) -> TorchLearner:
        def rebuild() -> nn.Module:
            return surgery(self._rebuild())

        return TorchLearner(case, rebuild(), batch, rebuild, self._labels)

    def _passing(self, passes: Callable[[], Any]) -> TorchLearner:
        return self._made(self._case, self._batch, lambda model: forwards.install(model, passes))

    # ------------------------------------------------------------------ updates

    def _rate(self, change: Change) -> TorchLearner:
        return self._made(updates.with_optimizer(self._case, updates.times(change.factor)), self._batch)

    def _rate_to(self, change: Change) -> TorchLearner:
        case = updates.with_optimizer(self._case, updates.setting("lr", change.factor))
        return self._made(dataclasses.replace(case, scheduler=None), self._batch)

    def _epsilon(self, change: Change) -> TorchLearner:
        return self._made(updates.with_optimizer(self._case, updates.setting("eps", change.factor)), self._batch)

    def _reversed(self, _: Change) -> TorchLearner:
        return self._made(updates.backwards(self._case), self._batch)

    def _negated(self, _: Change) -> TorchLearner:
        own = self._case.loss
        if own is None:
            raise UnchangeableError("the loss is computed where its sign cannot be changed")
        return self._made(dataclasses.replace(self._case, loss=lambda *args: -own(*args)), self._batch)

    def _zero_grad(self, _: Change) -> TorchLearner:
        return self._made(updates.zeroed(self._case), self._batch)

    def _all_trained(self, _: Change) -> TorchLearner:
        case = updates.with_optimizer(self._case, updates.holding_all)
        return self._made(case, self._batch, weights.all_trainable)

    def _without(self, change: Change) -> TorchLearner:
        case = self._case
        if change.value == "decay":
            return self._made(updates.unpenalised(case), self._batch)
        if change.value == "schedule":
            if case.scheduler is None:
                raise UnchangeableError("there is no scheduler")
            return self._made(dataclasses.replace(case, scheduler=None), self._batch)
        if change.value == "dropout":
            return self._made(case, self._batch, self._undropped)
        return self._made(updates.unclipped(case), self._batch)

    def _undropped(self, model: nn.Module) -> nn.Module:
        plain = WithoutRegularizers(model, None, lambda: False)
        del plain
        return forwards.install(model, forwards.Undropped)

    # ------------------------------------------------------------------ forward

    def _activation(self, change: Change) -> TorchLearner:
        at = -1 if change.at is None else change.at
        return self._passing(lambda: forwards.OneActivation(at, change.value, int(change.factor)))

    def _activations(self, change: Change) -> TorchLearner:
        hidden = frozenset(n for n, each in enumerate(self._anatomy.activations) if not each.last)
        if not hidden:
            raise UnchangeableError("there is no activation between layers")
        return self._made(
            self._case,
            self._batch,
            lambda model: forwards.install(
                weights.drawn_anew(model, for_relu=change.value == "relu"),
                lambda: forwards.HiddenActivations(hidden, change.value),
            ),
        )

    def _between(self, change: Change) -> TorchLearner:
        if not self._anatomy.direct:
            raise UnchangeableError("no layers with weights follow each other directly")
        return self._passing(lambda: forwards.Between(change.value))

    def _on_top(self, change: Change) -> TorchLearner:
        applied = forwards.APPLIED[change.value]
        axis = 1 if change.at is None else change.at
        return self._made(
            self._case,
            self._batch,
            lambda model: forwards.on_top(model, lambda outputs: applied(outputs, min(axis, outputs.ndim - 1))),
        )

    def _attached(self, _: Change) -> TorchLearner:
        return self._passing(forwards.Attached)

    def _guarded(self, _: Change) -> TorchLearner:
        case, own = self._case, self._case.loss
        if own is not None:

            def loss(*args: Any) -> Any:
                with forwards.Guarded():
                    return own(*args)

            case = dataclasses.replace(case, loss=loss)
        return self._made(case, self._batch, lambda model: forwards.install(model, forwards.Guarded))

    # ------------------------------------------------------------------ weights

    def _drawn_anew(self, change: Change) -> TorchLearner:
        drawn: dict[str, Surgery] = {
            "": weights.drawn_anew,
            "relu": lambda model: weights.drawn_anew(model, for_relu=True),
        }
        return self._made(self._case, self._batch, drawn[change.value])

    def _pooled(self, _: Change) -> TorchLearner:
        return self._made(self._case, self._batch, weights.pooled)

    def _shortcuts(self, _: Change) -> TorchLearner:
        return self._passing(lambda: forwards.Shortcuts(len(self._anatomy.activations)))

    def _wider(self, change: Change) -> TorchLearner:
        x = self._made(self._case, self._batch).forward.batch.x

        def surgery(model: nn.Module) -> nn.Module:
            with torch.no_grad():
                return widening.wider(model, int(change.factor), lambda: model(x))

        return self._made(self._case, self._batch, surgery)

    def _rows_first(self, _: Change) -> TorchLearner:
        def surgery(model: nn.Module) -> nn.Module:
            turned = [each for each in model.modules() if getattr(each, "batch_first", True) is False]
            if not turned:
                raise UnchangeableError("no layer has batch_first=False")
            for each in turned:
                each.batch_first = True  # type: ignore[assignment]
            return model

        return self._made(self._case, self._batch, surgery)

    # ------------------------------------------------------------ data and loss

    def _standardised(self, change: Change) -> TorchLearner:
        if change.value == "given":
            return self._made(
                self._case,
                self._batch,
                lambda model: forwards.install(model, lambda: forwards.StandardisedGiven(model)),
            )
        return self._made(self._case, data.standardised(self._batch, change.value))

    def _targets_shaped(self, _: Change) -> TorchLearner:
        return self._made(self._case, data.targets_shaped(self._made(self._case, self._batch)))

    def _loss(self, change: Change) -> TorchLearner:
        return self._made(objective.with_loss(self._case, change.value, self._anatomy), self._batch)
