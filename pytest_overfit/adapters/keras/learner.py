"""The Keras learner: one compiled model on one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.base import AtRest, Drawn, Head, Mode, ParameterFacts, Reading, RunningStatistics
from pytest_overfit.adapters.kept_state import remark_on
from pytest_overfit.adapters.keras import at_rest, checks, facts, layers
from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.building import build_rest, checked_pairs, first_outputs
from pytest_overfit.adapters.keras.cut_graph import step_call
from pytest_overfit.adapters.keras.drawn_task import as_bytes, fit_is_random, same_question, step_needs_targets
from pytest_overfit.adapters.keras.errors import user_call
from pytest_overfit.adapters.keras.feed import feed_of
from pytest_overfit.adapters.keras.heads import head_of_array, heads_of
from pytest_overfit.adapters.keras.losses import Pair, pairs_of
from pytest_overfit.adapters.keras.outside import outside_variables
from pytest_overfit.adapters.keras.pass_state import state_of
from pytest_overfit.adapters.keras.reader import Reader, numbers
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.adapters.regularizer_effects.names import of_others
from pytest_overfit.adapters.trainer import SplitLearner
from pytest_overfit.adapters.user_score import user_score
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import NotApplicable
from pytest_overfit.data.batch import Batch, leaves

#: how near the loss read must come to the one a custom step reports, to be taken for the same
_SAME = 1e-3

#: the same where both were read with noise of their own
_ROUGHLY = 0.5


def make_learner(case: Case, model: Any, batch: Batch, rebuild: Callable[[], Any]) -> KerasLearner:
    """Check the model against the batch and build what is still unbuilt. Costs one uncompiled forward pass.

    Raises `CaseError` for misuse and `ProgramError` where the model refuses the batch.
    """
    where = f"Case {case.name!r}:"
    checks.check_compiled(model, where)
    feed = feed_of(case, batch)
    checks.check_batched(model, feed, where)
    reader = Reader(model, feed, f"Case {case.name!r}")
    outputs = first_outputs(reader)
    checks.check_loss(model, where)
    checks.check_trainable(model, where)
    checks.check_optimizer(model, where)
    pairs: list[Pair] = []
    if outputs is not None:
        reader.structure = outputs
        pairs = checked_pairs(reader, outputs, where)
        build_rest(reader, outputs)
    learner = KerasLearner(case, batch, rebuild, reader, pairs)
    learner.notice(() if outputs is None else outside_variables(reader, outputs))
    learner.find_state()
    return learner


class KerasLearner(SplitLearner):
    """Steps and reads one Keras model."""

    framework = "keras"

    def __init__(self, case: Case, batch: Batch, rebuild: Callable[[], Any], reader: Reader, pairs: list[Pair]) -> None:
        self.case, self.batch, self._rebuild = case, batch, rebuild
        self.reader, self._pairs = reader, pairs
        self.model, self.feed = reader.model, reader.feed
        self._where = f"Case {case.name!r}"
        self.inputs: tuple[Array, ...] = tuple(leaves(self.feed.arrays.x))
        self.targets: tuple[Array, ...] = tuple(leaves(self.feed.arrays.y))
        self.has_schedule = facts.has_schedule(self.model) or bool(case.fit_kwargs.get("callbacks"))
        self.remarks: tuple[str, ...] = ()
        #: trainable variables that the loss depends on and the model does not have, by name
        self.outside: tuple[str, ...] = ()
        #: what the loss compares each output with, where there are no targets but the inputs
        self._compared: list[Array | None] = []
        self._stepper: stepping.Stepper | None = None
        self._loss_of = stepping.StepLoss(case)
        self._last: float | None = None
        self._verified = False
        #: the loss is read from inside a step
        self._apart = False
        self._start = {id(each): numbers(each) for each in self.model.trainable_variables}
        self._infinite = facts.infinities(self.model)
        self._moving = {id(each): facts.moving(each) for each in layers.batch_normalisations(self.model) if each.built}

    def find_state(self) -> None:
        """See what the first passes left behind, and whether it counts where it is not the model's own."""
        self._say(remark_on(state_of(self.model).settled(lambda: as_bytes(same_question(self.reader)))))

    # stepping

    def train(self, steps: int) -> list[float]:
        self.verified_reader()
        with state_of(self.model).entered(), step_call(self.case, self.model, self.feed):
            losses = self._steps().train(steps)
        self._last = losses[-1] if losses else self._last
        return losses

    def _steps(self) -> stepping.Stepper:
        if self._stepper is None:
            self._stepper, remark = stepping.make_stepper(self.case, self.model, self.feed, self._loss_of)
            self._say(remark)
            if len(self._loss_of.values) > 1 and facts.other_optimizers(self.model):
                raise NotApplicable(
                    f"the custom train_step has several optimizers and no single loss (it returns "
                    f"{', '.join(self._loss_of.values)}): models that train against each other memorise no batch"
                )
            if self._loss_of.other_name:
                self._say(f"custom train_step returned no 'loss': its value {self._loss_of.other_name!r} was taken")
        return self._stepper

    def notice(self, outside: tuple[str, ...]) -> None:
        """The loss depends on these variables, which are none of the model's."""
        self.outside = outside
        self._say(of_others(outside))

    @property
    def samples(self) -> bool:  # type: ignore[override]
        """Known once the step is compiled, which is done here if it was not yet."""
        self.verified_reader()
        with step_call(self.case, self.model, self.feed):
            return self._steps().samples

    # reading

    def read(self, mode: Mode) -> Reading:
        if not self.verified_reader().has_outputs:
            return Reading(loss=self._last)
        with step_call(self.case, self.model, self.feed):
            loss, outputs = self.reader.read(mode)
        return Reading(loss=self._last if loss is None else loss, outputs=outputs, heads=self._heads(outputs))

    def _heads(self, outputs: tuple[Array, ...]) -> tuple[Head, ...]:
        if self.reader.objective is not None:
            found = [head_of_array(o, y) for o, y in zip(outputs, self._compared, strict=False) if y is not None]
            return tuple(each for each in found if each is not None)
        plain = self.reader.readable and not stepping.own(self.model, "compute_loss")
        weighted = self.feed.weights is not None
        return heads_of(self._pairs, outputs, self.reader.masks, plain=plain, weighted=weighted)

    def outputs_for(self, rows: Sequence[int]) -> tuple[Array, ...] | None:
        reader = self.verified_reader()
        return reader.outputs_for(rows) if reader.has_outputs else None

    def draws_in_evaluation(self) -> bool | None:
        first, second = same_question(self.verified_reader()), same_question(self.reader)
        return None if first is None or second is None else state_of(self.model).draws or alike(first, second)

    def drawn(self) -> Drawn:
        own = stepping.own(self.model, "train_step") or stepping.own(self.model, "compute_loss")
        if own and not step_needs_targets(self.batch, self._anew):
            return "inputs"
        if fit_is_random(self.verified_reader()):
            return "" if own or self.model.loss is not None else "inputs"
        return "loss" if self._steps().draws else ""

    def _anew(self, batch: Batch) -> KerasLearner:
        return make_learner(self.case, self._rebuild(), batch, self._rebuild)

    def loss_and_gradient(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        reader = self.verified_reader()
        if reader.objective is None and not reader.readable:
            return None
        if reader.objective is None and not reader.masks:  # a mask belongs to the inputs: one reading finds it
            reader.read("eval")
        return reader.substituted(outputs)

    def score(self) -> float | None:
        if self.case.score is None:
            return None
        with held(self.model), user_call(f"{self._where}: the score function"):
            return user_score(self.case.score(self.model, self.batch.x, self.batch.y), self.case)

    def loss_needs_targets(self) -> bool:
        return bool(self.targets)

    def blinded(self) -> KerasLearner:
        return make_learner(self.case, self._rebuild(), self.feed.blinded(), self._rebuild)

    def look_at(self, batch: Batch) -> None:
        """Read another batch from now on; steps stay on the one before."""
        self.verified_reader()
        self.batch, self.feed = batch, feed_of(self.case, batch)
        self.reader.look_at(self.feed)
        self.inputs, self.targets = (tuple(leaves(each)) for each in (self.feed.arrays.x, self.feed.arrays.y))
        if self._pairs:
            weights = self.feed.row_weights
            self._pairs = pairs_of(self.model, self.reader.structure, self.feed.arrays.y, weights)
        if self._apart:
            self._take_apart()
            self._compare()

    # is the loss that is read the one that is trained?

    def verified_reader(self) -> Reader:
        """The reader, after it was found out, once and before the first step, if the loss can be read apart from it."""
        if not self._verified:
            self._verified = True
            self._verify(self.reader)
        return self.reader

    def _verify(self, reader: Reader) -> None:
        if reader.structure is None or not self._has_data_term():
            reader.readable = False
        own_step = stepping.own(self.model, "train_step")
        if own_step and reader.readable and not self._step_reports_it():
            reader.readable = False
        if not reader.readable and not self._taken_apart(own_step):
            self._say(
                "custom train_step: its loss cannot be read apart from a step"
                if own_step
                else "there is no compiled loss: the loss is that of the last step"
            )

    def _taken_apart(self, own_step: bool) -> bool:
        """Read the loss from inside the step, where it is the one that the step reports."""
        reader = self.reader
        if stepping.why_fit(self.case, self.model):
            return False
        self._take_apart()
        found = reader.objective
        if found is None or not self._step_reports_it():
            reader.objective = None
            return False
        compared = self._compare()
        with held(self.model):
            found.count_from(compared)
        self._apart = True
        what = "the loss that custom train_step differentiates" if own_step else "the loss of add_loss"
        less = ", without terms that compare nothing with the batch" if found.has_penalties else ""
        self._say(f"judged by {what}, by the outputs of {', '.join(found.names)}{less}")
        return True

    def _take_apart(self) -> None:
        from pytest_overfit.adapters.keras import objective

        self.reader.objective = objective.found_in(self.model, self.feed)

    def _compare(self) -> list[Array | None]:
        """What the loss inside the step compares each output with."""
        if self.reader.objective is None:
            return []
        with held(self.model):
            compared = self.reader.objective.compared(self.feed)
        if not self.targets:
            self._compared = compared
            self.targets = tuple(each for each in compared if each is not None)
        return compared

    def _has_data_term(self) -> bool:
        return self.model.loss is not None or stepping.own(self.model, "compute_loss")

    def _step_reports_it(self) -> bool:
        """Make one step, compare its loss with the one read in training mode, and undo the step."""
        if facts.other_optimizers(self.model) or self.case.fit_kwargs.get("callbacks"):
            return False  # what these remember could not be undone
        with held(self.model, weights=True):
            try:
                data, _ = self.reader.read("train")
                with_penalties = (data or 0.0) + self._penalties()
            except Exception:
                return False
            with step_call(self.case, self.model, self.feed):
                stepper = self._steps()
                reported = stepper.train(1)[0]
            if isinstance(stepper, stepping.FitStepper):
                stepper.epochs = 0
        # a model that samples reports the loss of other samples than those that were read
        near = _ROUGHLY if stepper.samples else _SAME
        return any(_close(reported, each, near) for each in (data or 0.0, with_penalties))

    def _penalties(self) -> float:
        with held(self.model):
            if self.reader.objective is not None:
                return self.reader.objective.left_out()
            self.reader.forward(training=True)
            return sum(float(keras.ops.sum(each)) for each in self.model.losses)

    # facts

    def parameters(self) -> ParameterFacts:
        return facts.parameter_facts(self.reader, self._start, self._infinite)

    def scale_rate(self, factor: float) -> bool:
        return not self.has_schedule and facts.scale_rate(self.model, factor)

    def equal_units(self) -> Sequence[str]:
        variables = self.model.trainable_variables
        return [each.path for each in variables if facts.units_stay_equal(self._start.get(id(each)), each)]

    def statistics(self) -> list[RunningStatistics]:
        return facts.running_statistics(self.reader, self._moving)

    def at_rest(self) -> AtRest | None:
        return at_rest.found(self.reader, lambda: self._steps().train(1), lambda: self.read("eval"))

    def restless_layer(self) -> str | None:
        """Name of a layer that answers the same input differently in two training passes; None: there is none."""
        self.verified_reader()
        return self.differing_module("train", "train")

    def differing_module(self, first: Mode, second: Mode) -> str | None:
        if not self.reader.has_outputs:
            return None
        return layers.first_differing(self.reader.calls(first), self.reader.calls(second))


def _close(one: float, other: float, near: float = _SAME) -> bool:
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.isfinite(one) == math.isfinite(other)
    return abs(one - other) <= near * max(abs(one), abs(other), 1e-6)
