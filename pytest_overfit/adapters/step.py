"""Any other training loop: whatever the factory returns, stepped by the user's own `step`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from pytest_overfit.adapters.base import Mode, ParameterFacts, Reading
from pytest_overfit.adapters.kept_state import KeptState, remark_on
from pytest_overfit.adapters.kept_state.places import Attributes, outside_of
from pytest_overfit.adapters.output_rows import OutputRows
from pytest_overfit.adapters.trainer import EpochTrainer, SplitLearner
from pytest_overfit.adapters.user_score import user_score
from pytest_overfit.adapters.user_step import step_loss, step_needs_targets, targets_asked_for
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, NotApplicable
from pytest_overfit.core.foreign import describe
from pytest_overfit.core.state import preserved
from pytest_overfit.core.usercode import text_of, user_code, users_own
from pytest_overfit.data.batch import Batch, to_numpy
from pytest_overfit.data.fresh import FreshBatch
from pytest_overfit.data.splits import Split


def make_learner(case: Case, model: Any, batch: Batch, rebuild: Callable[[], Any]) -> StepLearner:
    """Make the learner of a model of no known framework."""
    if case.step is None:
        raise CaseError(
            f"Case {case.name!r}: the model factory returned {describe(model)}, which is neither a torch.nn.Module nor "
            "a compiled keras.Model; give step=, a function (model, x, y) that makes one update and returns its loss"
        )
    return StepLearner(case, model, batch, rebuild)


def make_trainer(case: Case, model: Any, train: Split, reseed: Callable[[int], int], plain: bool) -> StepTrainer:
    """Make the trainer of a model of no known framework; only its owner knows what regularises it."""
    if plain:
        raise NotApplicable(
            "only the author of a custom training loop knows its regularisers; give unregularized=, a factory of the "
            "same model without them"
        )
    return StepTrainer(case, model, train, reseed)


def parameters_of(model: Any) -> tuple[()]:
    """None that are known: models of an unknown kind can only be distinguished as a whole."""
    del model
    return ()


class StepLearner(SplitLearner):
    """Steps a user's own loop. Its loss is what `step` returns; outputs come from `predict`, or from calling it."""

    framework = "step"
    has_schedule = True  # what a user's loop still has in store is unknown

    def __init__(self, case: Case, model: Any, batch: Batch, rebuild: Callable[[], Any]) -> None:
        self.case, self.model, self._rebuild = case, model, rebuild
        #: the batch with its lists of rows marked; `self.batch` is the same as the user's code gets it
        self._by_row = batch = self._with_targets(batch, rebuild)
        self.inputs, self.targets = batch.sides()
        self.remarks: tuple[str, ...] = ()
        self._given: Batch | FreshBatch = FreshBatch(batch, self._say)
        self.samples = False
        self._where = f"Case {case.name!r}:"
        self._last: float | None = None
        self._stepped = False
        #: what its predictions change in it and around it; None: none has been made
        self._state: KeptState | None = None

    @property
    def batch(self) -> Batch:
        """The batch as the user's code gets it."""
        return self._given.now() if isinstance(self._given, FreshBatch) else self._given

    def schedule_is_declared(self) -> bool:
        return False

    def train(self, steps: int) -> list[float]:
        with contextlib.nullcontext() if self._state is None else self._state.entered():
            losses = [self._step() for _ in range(min(steps, 1))]
            if isinstance(self._given, FreshBatch):
                self._given.compare()
            losses += [self._step() for _ in range(steps - 1)]
        self._last = losses[-1] if losses else self._last
        return losses

    def step_on(self, batch: Batch) -> float:
        """One update on another batch."""
        self._given = batch.plain()
        return self._step()

    def look_at(self, batch: Batch) -> None:
        """Read another batch from now on; its loss is known only once a step was made on it."""
        self._by_row, self._given = batch, FreshBatch(batch, self._say)
        self.inputs, self.targets = batch.sides()
        self._last = None

    def _step(self) -> float:
        step, batch = self.case.step, self.batch
        with user_code(f"{self._where} step"):
            loss = step(self.model, batch.x, batch.y) if step is not None else None
        self._stepped = True
        return step_loss(loss, self.case)

    def read(self, mode: Mode) -> Reading:
        del mode  # a custom loop has no modes that could be switched
        outputs = self._predict(self.batch.x, anew=False)
        return Reading(loss=self._last, outputs=() if outputs is None else OutputRows(self._by_row).first([outputs]))

    def _predict(self, x: Any, anew: bool) -> Array | None:
        """What the model answers; None where nothing can be asked, e.g. before a scikit-learn model's first step.

        `anew`: state that has one entry a row starts anew, because rows may be others.
        """
        ask = getattr(self.model, "predict", None) or (self.model if callable(self.model) else None)
        if ask is None:
            return None
        try:
            outputs = self._asked(ask, x, anew)
        except Exception as error:  # not fitted yet, or another signature: agreement is then not measured
            if self._stepped and users_own(error):
                self._raised(error)
            return None
        return outputs if outputs.dtype.kind in "fiub" and outputs.ndim else None

    def _raised(self, error: Exception) -> None:
        """What is called `predict` is there to be asked; whether a call is meant for these inputs nobody knows."""
        if hasattr(self.model, "predict"):
            with user_code(f"{self._where} predict"):
                raise error
        what = f"{type(error).__name__}: {text_of(error).splitlines()[0]}"
        self._say(f"the model cannot be called with the batch's inputs ({what}), so its predictions are not measured")

    def _with_targets(self, batch: Batch, rebuild: Callable[[], Any]) -> Batch:
        found = targets_asked_for(self.case, batch, self.model, rebuild, _answer)
        return dataclasses.replace(batch, labels=batch.labels | found)

    def _asked(self, ask: Callable[[Any], Any], x: Any, anew: bool) -> Array:
        """A prediction that leaves no trace."""

        def answer() -> Array:
            with preserved():
                return to_numpy(ask(x))

        if self._state is not None:
            with self._state.kept(evaluating=True, fresh=anew, rows=self.batch.rows):
                return answer()
        own = Attributes(getattr(self.model, "__dict__", {}), type(self.model).__name__)
        state = KeptState([own, *outside_of(type(self.model).__mro__)])
        with state.kept(evaluating=True):
            outputs = answer()
        self._say(remark_on(state.settled(lambda: answer().tobytes())))
        self._state = state
        return outputs

    def outputs_for(self, rows: Sequence[int]) -> tuple[Array, ...] | None:
        everything = list(rows) == list(range(self._by_row.rows))
        x = self.batch.x if everything else self._by_row.inputs_of(rows)
        outputs = None if x is None else self._predict(x, anew=True)
        return None if outputs is None else OutputRows(self._by_row).first([outputs])

    def outputs_along(self, axis: int, order: Sequence[int]) -> tuple[Array, ...] | None:
        outputs = self._predict(self._by_row.inputs_along(axis, order), anew=True)
        return None if outputs is None else (outputs,)

    def loss_needs_targets(self) -> bool:
        return step_needs_targets(self.case, self._by_row, self._rebuild)

    def blinded(self) -> StepLearner:
        return StepLearner(self.case, self._rebuild(), self._by_row.blinded(), self._rebuild)

    def score(self) -> float | None:
        if self.case.score is None:
            return None
        with preserved(), user_code(f"{self._where} score"):
            return user_score(self.case.score(self.model, self.batch.x, self.batch.y), self.case)

    def parameters(self) -> ParameterFacts:
        return ParameterFacts(trainable=0, frozen=0)


def _answer(model: Any, x: Any) -> Array | None:
    """What the model answers; None where nothing can be asked, e.g. before a scikit-learn model's first step."""
    ask = getattr(model, "predict", None) or (model if callable(model) else None)
    if ask is None:
        return None
    with preserved():
        try:
            outputs = to_numpy(ask(x))
        except Exception:  # not fitted yet, or another signature: agreement is then not measured
            return None
    return outputs if outputs.dtype.kind in "fiub" and outputs.ndim else None


class StepTrainer(EpochTrainer):
    """Trains with the user's own `step`, batch by batch."""

    framework = "step"
    removed: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __init__(self, case: Case, model: Any, train: Split, reseed: Callable[[int], int]) -> None:
        super().__init__(reseed)
        self._train = train
        self.learner: StepLearner = make_learner(case, model, next(train.epoch(reseed(0))), rebuild=lambda: model)

    def epoch(self, order: int) -> float:
        total = rows = 0.0
        for batch in self._train.epoch(order):
            total += batch.rows * self.learner.step_on(batch)
            rows += batch.rows
        return total / rows
