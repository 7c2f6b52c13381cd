"""The trained model in each mode; where evaluation does not fit, what its running statistics have to do with it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from typing import Any

from pytest_overfit.adapters.base import Learner, Reading, RunningStatistics
from pytest_overfit.core.case import Case
from pytest_overfit.data.splits import open_split
from pytest_overfit.measures.memorising.memorise import BatchRun, Fit
from pytest_overfit.measures.memorising.progress import Point
from pytest_overfit.measures.memorising.settling import follows, hurries, settle


class ModeReadings:
    """Readings of one learner after its run, as plain values."""

    def __init__(self, fit: Fit, run: BatchRun, fitted: Callable[[Point], bool]) -> None:
        self.fit, self.run, self.fitted = fit, run, fitted
        self.learner = fit.learner
        #: by mode, and "eval_again": a second reading of "eval"
        self.modes: dict[str, Any] = {}
        self.evaluated: Reading = self.learner.read("eval")
        self.well = self._fits_at("fit", run.points[-1])
        self.statistics: list[RunningStatistics] = []
        self.lags_alone = False
        watched = self.learner.last_pass() is not None
        trained = self._fits_at("train", run.points[-1] if watched else fit.read(0, "train"))
        evaluated = fit.read(0, "eval") if self.learner.samples else fit.point(0, self.evaluated)
        also_evaluated = self._fits_at("eval", evaluated)
        if self.evaluated.loss is None:
            self.modes["eval"]["loss"] = None
        #: it fits, but not in evaluation
        self.lags = self.well and not also_evaluated and self.evaluated.loss is not None
        if self.lags:
            self.statistics = self.learner.statistics()
            if not self.statistics:  # then nothing of what training left behind can lag, unless it is hand-written
                self._fits_at("eval_again", fit.read(0, "eval"))
            self.lags_alone = self._fits_at("reestimated", fit.read(0, "reestimated"))
            if self.lags_alone:
                self.rest()
        elif trained and not self.well:
            self.modes["train_parts_at"] = self.learner.differing_module("fit", "train")

    def _fits_at(self, mode: str, point: Point) -> bool:
        self.modes[mode] = {"loss": point.loss, "agreements": [dataclasses.asdict(each) for each in point.agreements]}
        return self.fitted(point)

    def rest(self) -> None:
        """See where running statistics come to rest while the weights stand still, and evaluation with them."""
        found = self.learner.at_rest() if self.statistics and not self._stands() else None
        if found is not None and found.reading.loss is not None:
            self._fits_at("at_rest", self.fit.point(0, found.reading))
            off = found.off
            self.statistics = [dataclasses.replace(each, off=off.get(each.name)) for each in self.statistics]

    def _stands(self) -> bool:
        return any(each.remaining == 1.0 for each in self.statistics)

    def wants_steps(self) -> bool:
        """Evaluation is further off than momentum explains, or settled statistics would not be enough."""
        if not self.lags or self._stands() or "at_rest" in self.modes:
            return False
        if self.lags_alone:
            steps = len(self.run.losses)
            return any(not follows(each, steps) or hurries(each, steps) for each in self.statistics)
        evaluated = self.modes["eval"]["loss"]
        steady = self.modes.get("eval_again", self.modes["eval"])["loss"] == evaluated
        return bool(steady and self.modes["reestimated"]["loss"] != evaluated)

    def plain(self) -> dict[str, Any]:
        """Everything for the verdict; the module that differs is looked for here, which costs two passes."""
        if self.lags and not self.lags_alone:
            differ = self.learner.differing_module
            self.modes["eval_parts_at"] = differ("fit", "reestimated") or differ("fit", "eval")
        return {"modes": self.modes, "statistics": [dataclasses.asdict(each) for each in self.statistics]}


def measured_modes(fit: Fit, run: BatchRun, fitted: Callable[[Point], bool], most: int) -> dict[str, Any]:
    """Readings in all modes; where evaluation lags without a reason, after the steps that statistics need to settle."""
    readings = ModeReadings(fit, run, fitted)
    known: dict[str, Any] = {"memorised_at": len(run.losses), "settled": False}
    if readings.wants_steps() and len(run.losses) < most:
        known["settled"] = settle(fit, run, readings.statistics, most, fitted)
        readings = ModeReadings(fit, run, fitted)
        if not readings.lags:
            readings.statistics = fit.learner.statistics()
        elif not readings.lags_alone:
            readings.rest()
    return {**readings.plain(), **known, "eval_outputs": readings.evaluated.outputs}


def declared_updates(case: Case, learner: Learner) -> int | None:
    """Updates of the training that `fit_kwargs` declares; None: it declares none, or train has no known length."""
    epochs = case.fit_kwargs.get("epochs")
    if not epochs or case.train is None:
        return None
    rows = len(learner.inputs[0])
    with contextlib.suppress(Exception):  # data that open in another way than a batch did are judged without
        size = int(case.fit_kwargs.get("batch_size") or rows)
        known = open_split(case, "train", size).rows
        return None if known is None else int(epochs) * math.ceil(known / size)
    return None
