"""Any other training loop: whatever the factory returns, stepped by the user's own `step`.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.adapters.base import Head, Mode, ParameterFacts, Reading, RunningStatistics
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import describe
from pytest_overfit.core.state import preserved
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.batch import to_numpy
from pytest_overfit.data.targets import step_needs_targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_overfit.core.case import Case
    from pytest_overfit.data.batch import Batch

    Array = NDArray[Any]


def make_learner(case: Case, model: Any, batch: Batch, rebuild: Callable[[], Any]) -> StepLearner:
    """Make the learner of a model of no known framework."""
    if case.step is None:
        raise CaseError(
            f"Case {case.name!r}: the model factory returned {describe(model)}, which is neither a torch.nn.Module nor "
            "a compiled keras.Model; give step=, a function (model, x, y) that makes one update and returns its loss"
        )
    return StepLearner(case, model, batch, rebuild)


def shares_parameters(first: Any, second: Any) -> bool:
    """Unknown objects can only be told apart as a whole."""
    return first is second


class StepLearner:
    """Steps a user's own loop. Its loss is what `step` returns; outputs come from `predict`, or from calling it."""

    framework = "step"
    has_schedule = True  # nobody can tell what a user's loop still has in store

    def __init__(self, case: Case, model: Any, batch: Batch, rebuild: Callable[[], Any]) -> None:
        self.case, self.model, self._rebuild = case, model, rebuild
        #: the batch with its lists of rows marked; `self.batch` is the same as the user's code gets it
        self._by_row, self.batch = batch, batch.plain()
        self.inputs, self.targets = batch.sides()
        self.remarks: tuple[str, ...] = ()
        self.samples = False
        self._where = f"Case {case.name!r}:"
        self._last: float | None = None

    def train(self, steps: int) -> list[float]:
        losses = [self._step() for _ in range(steps)]
        self._last = losses[-1] if losses else self._last
        return losses

    def _step(self) -> float:
        step = self.case.step
        with user_code(f"{self._where} step"):
            loss = step(self.model, self.batch.x, self.batch.y) if step is not None else None
        try:
            return float(loss)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise CaseError(
                f"{self._where} step returned {describe(loss)}, but the loss of the step is wanted, one number; end it "
                "with `return loss`"
            ) from None

    def last_pass(self) -> Reading | None:
        return None

    def read(self, mode: Mode) -> Reading:
        del mode  # a loop of one's own has no modes that we could switch
        outputs = self._predict(self.batch.x)
        return Reading(loss=self._last, outputs=() if outputs is None else (outputs,))

    def _predict(self, x: Any) -> Array | None:
        """What the model answers; None where nothing can be asked, e.g. before a scikit-learn model's first step."""
        ask = getattr(self.model, "predict", None) or (self.model if callable(self.model) else None)
        if ask is None:
            return None
        with preserved():
            try:
                outputs = to_numpy(ask(x))
            except Exception:  # not fitted yet, or another signature: agreement is then not measured
                return None
        return outputs if outputs.dtype.kind in "fiub" and outputs.ndim else None

    def outputs_for(self, rows: Sequence[int]) -> tuple[Array, ...] | None:
        x = self._by_row.inputs_of(rows)
        outputs = None if x is None else self._predict(x)
        return None if outputs is None else (outputs,)

    def loss_and_gradient(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        del outputs
        return None

    def heads_for(self, outputs: Sequence[Array]) -> tuple[Head, ...]:
        del outputs
        return ()

    def shared_outputs(self) -> Sequence[int]:
        return range(len(self.read("fit").outputs))

    def loss_needs_targets(self) -> bool:
        return step_needs_targets(self.case, self._by_row, self._rebuild)

    def blinded(self) -> StepLearner:
        return StepLearner(self.case, self._rebuild(), self._by_row.blinded(), self._rebuild)

    def score(self) -> float | None:
        if self.case.score is None:
            return None
        with preserved(), user_code(f"{self._where} score"):
            return float(self.case.score(self.model, self.batch.x, self.batch.y))

    def parameters(self) -> ParameterFacts:
        return ParameterFacts(trainable=0, frozen=0)

    def statistics(self) -> list[RunningStatistics]:
        return []

    def differing_module(self, first: Mode, second: Mode) -> str | None:
        del first, second
        return None
