"""The learner for `nn.Module`: a plain training loop, and readings that leave no trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.base import AtRest, Drawn, Head, Mode, ParameterFacts, Reading, RunningStatistics
from pytest_overfit.adapters.kept_state import remark_on
from pytest_overfit.adapters.output_rows import OutputRows
from pytest_overfit.adapters.torch import checks, feed, records
from pytest_overfit.adapters.torch import facts as forensics
from pytest_overfit.adapters.torch.answers import Answers
from pytest_overfit.adapters.torch.at_rest import at_rest
from pytest_overfit.adapters.torch.drawn_task import drawn_by_loss, drawn_by_step
from pytest_overfit.adapters.torch.finite import Updates, infinities
from pytest_overfit.adapters.torch.forward import Forward
from pytest_overfit.adapters.torch.handed_out import HandedOut
from pytest_overfit.adapters.torch.heads import heads_of
from pytest_overfit.adapters.torch.labels import labels_among_inputs
from pytest_overfit.adapters.torch.latent_sampling import LatentNoise
from pytest_overfit.adapters.torch.losses import LossCall, LossCalls
from pytest_overfit.adapters.torch.modes import Modes, materialise
from pytest_overfit.adapters.torch.outside import OutsideWeights
from pytest_overfit.adapters.torch.own_step import captured, own_steps
from pytest_overfit.adapters.torch.records import predictions, tensors
from pytest_overfit.adapters.torch.scrutiny import Scrutiny
from pytest_overfit.adapters.torch.siamese import shared_outputs
from pytest_overfit.adapters.torch.state import generators, preserved_generators
from pytest_overfit.adapters.torch.step_as_loss import step_as_loss
from pytest_overfit.adapters.torch.substituted_loss import FreeOutputs
from pytest_overfit.adapters.torch.tracing.following import without_a_slope
from pytest_overfit.adapters.trainer import SplitLearner
from pytest_overfit.adapters.user_score import user_score
from pytest_overfit.adapters.user_step import step_needs_targets
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import ProgramError
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.batch import Batch, to_numpy


class TorchLearner(SplitLearner):
    """Steps a freshly built `nn.Module` as a hand-written loop would."""

    framework = "torch"

    def __init__(
        self,
        case: Case,
        model: nn.Module,
        batch: Batch,
        rebuild: Callable[[], Any],
        labels: frozenset[str | int] | None = None,
    ) -> None:
        self.case, self.model, self.rebuild, self.given = case, model, rebuild, batch
        checks.needs_loss_and_optimizer(case)
        #: the batch with its lists of rows marked; `self.batch` is the same as the user's code gets it
        self.by_row = feed.on_device(case, model, batch)
        self.remarks: tuple[str, ...] = ()
        self._handed_out = HandedOut(self.by_row, self._say)
        self.samples = False
        #: the last training pass as a reading of the fit; None: training draws random numbers, or answers otherwise
        self._last_pass: Reading | None = None
        self._scrutiny, self._where = Scrutiny(), f"Case {case.name!r}:"
        #: another batch than the trained one is read
        self._looking = False
        self.forward = forward = Forward(case, model, self._handed_out)
        own = step_as_loss(case, model, rebuild, self.by_row)
        self._unread = None if own is None or own.can_be_read else own
        if own is not None:
            self.forward.own, self._scrutiny = own if own.can_be_read else None, own.scrutiny
            self.by_row = own.labelled(self.by_row)
            self._handed_out.read_with(self.by_row, own.arguments)
            self._say(own.remark)
        self.explained = self.forward.explained
        with self._steps_may_call_it_otherwise(), self.explained("the model"):
            materialise(model, self.forward.quiet)
        self.modes = modes = Modes(model)
        self.outside = OutsideWeights(model, case)
        self.output_rows = rows = OutputRows(self.by_row)
        self._free, self._answers = FreeOutputs(forward, modes, rows), Answers(forward, modes, rows)
        rows.learn(lambda chosen: self._answers.as_given(self._handed_out.inputs_of(chosen)))
        self._first_forward()
        self.labels = labels_among_inputs(self.forward, self.modes) if labels is None else labels
        self.inputs, self.targets = self.by_row.sides(self.labels)
        self._say(remark_on(self.modes.state.settled(self._answers.compared)))
        self.optimizer = checks.make_optimizer(case, model, self.outside.reached)
        self.outside.hold(checks.not_of_the_model(self.optimizer, model))
        self.notice()
        self.scheduler = checks.make_scheduler(case, self.optimizer)
        # a step of the user's may update every so many calls only
        self.has_schedule = self.scheduler is not None or case.step is not None
        self._start = {name: each.detach().clone() for name, each in model.named_parameters()}
        self._start_statistics = forensics.running_statistics(self.modes)
        self._infinities, self._updates = infinities(model), Updates()

    @property
    def batch(self) -> Batch:
        """The batch as the user's code gets it."""
        return self._handed_out.stepped()

    def _first_forward(self) -> None:
        """See what the loss is made of, refuse what cannot be trained, and learn whether a training pass is a reading.

        It is one where training and "fit" give the same answer and nothing random was drawn.
        """
        forward, noise = self.forward, LatentNoise()
        refuse = lambda call: checks.labels_fit_the_loss(self.case, call)  # noqa: E731
        with self.modes.reading("train"), self._steps_may_call_it_otherwise(), self.explained("the model"):
            before = generators()
            with forward.as_written(), self.modes.noting_updating_modules(), noise, LossCalls(before=refuse) as inside:
                outputs = forward.call(forward.batch.x)
            drawn = generators() != before
            self._handed_out.compare()
        if not forward.can_be_called:
            return
        self.samples = noise.found
        self._free.carries = [each.requires_grad for each in tensors(outputs)]
        with self.modes.reading("fit"), self.explained("the model in evaluation"):
            evaluated = forward.quiet()
        self.modes.evaluates_differently = records.structure(outputs) != records.structure(evaluated)
        looked = forward.has_loss and forward.own is None
        loss, calls = self._look_at_the_loss(outputs, inside.calls, refuse) if looked else (None, [])
        may_be_watched = self.case.step is None and forward.watching_is_free
        if may_be_watched and not drawn and alike(tensors(outputs), tensors(evaluated)):
            with self.explained("the model"):
                self._last_pass = self._as_reading(outputs, loss, calls)

    def _look_at_the_loss(
        self, outputs: Any, inside: list[LossCall], refuse: Any
    ) -> tuple[torch.Tensor, list[LossCall]]:
        kept = self.forward.loss_state.kept()
        with kept, LossCalls(before=refuse) as seen, user_code(f"{self._where} the loss"):
            loss = self.forward.loss(outputs, self.batch.y)
        checks.is_scalar_loss(loss, self.case)
        self._say(remark_on(self.forward.loss_state.settled(lambda: self.forward.loss_again(outputs))))
        checks.can_be_trained(loss, self.model, self.case, lambda: without_a_slope(self.forward))
        self.outside.look(loss)
        own = self.forward.loss_is_inside
        calls = inside if own else seen.calls
        self._scrutiny = Scrutiny.of(calls, loss, tensors(outputs), inside=own)
        return loss, calls

    def notice(self) -> None:
        """Say on whose weights the loss depends beside the model's; of a step this is known after two."""
        self._say(self.outside.remark())

    @contextlib.contextmanager
    def _steps_may_call_it_otherwise(self) -> Iterator[None]:
        """A step of the user's may give its model more than the batch's inputs; nothing can then be read apart."""
        try:
            yield
        except ProgramError:
            if self.forward.has_loss:
                raise
            self.forward.can_be_called = False
            self._say("step: the model cannot be called with the batch's inputs alone, so only the losses count")

    # ------------------------------------------------------------------ steps

    def train(self, steps: int) -> list[float]:
        with self.modes.state.entered(), self.forward.loss_state.entered():
            return self._steps(steps) if self.case.step is None else self._own_steps(steps)

    def _steps(self, steps: int) -> list[float]:
        with self.explained("a training step"):
            losses = [self._step(self.backward) for _ in range(steps - 1)]
            losses.append(self._step(self.backward if self._last_pass is None else self._watched_backward))
        return [float(each) for each in torch.stack(losses).tolist()]

    def step_on(self, batch: Batch) -> torch.Tensor:
        """One update on another batch, which is on the model's device already; its loss stays there."""
        self._looking = False
        self._handed_out.use(batch)
        with self.modes.state.entered(), self.forward.loss_state.entered(), self.explained("a training step"):
            return torch.tensor(self._own_steps(1)[0]) if self.case.step else self._step(self.backward)

    def backward_on(self, batch: Batch) -> torch.Tensor:
        """Loss and gradients of a step on such a batch, without the update."""
        self._handed_out.use(batch)
        with self.explained("a training step"):
            return self.backward().detach()

    def pass_on(self, batch: Batch) -> None:
        """The forward pass of a step on such a batch, its loss included."""
        self._handed_out.use(batch)
        with torch.no_grad():
            self.forward.loss(self.forward.call(self.batch.x), self.batch.y)

    def look_at(self, batch: Batch) -> None:
        """Read another batch from now on."""
        self._looking = True
        self.given, self.by_row = batch, feed.on_device(self.case, self.model, batch)
        self._handed_out.use(self.by_row)
        self.output_rows.look_at(self.by_row)
        self.forward.own = self.forward.captured = None  # they are losses of the first batch
        self.inputs, self.targets = self.by_row.sides(self.labels)

    def _own_steps(self, steps: int) -> list[float]:
        with user_code(f"{self._where} step"):
            losses = own_steps(self.case, self.model, self._handed_out, self.outside, self._updates, steps)
        if self._unread is not None:
            self._scrutiny, self._unread = captured(self._unread, self.forward, self.modes, self._say), None
        self.notice()
        return losses

    def _step(self, backward: Callable[[], torch.Tensor]) -> torch.Tensor:
        return checks.update(self.optimizer, self.scheduler, backward)

    def backward(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        batch = self.batch
        loss = self.forward.loss(self.forward.call(batch.x), batch.y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    def _watched_backward(self) -> torch.Tensor:
        """The same, kept as a reading: it costs no further pass."""
        self.optimizer.zero_grad()
        outputs, loss, calls = self.forward.watched(quiet=False)
        if loss is None:  # pragma: no cover - only a step of the user's can hide it, and none is watched
            raise TypeError("the step hides its loss")
        loss.backward()  # type: ignore[no-untyped-call]
        self._last_pass = self._as_reading(outputs, loss, calls)
        return loss

    def last_pass(self) -> Reading | None:
        return self._last_pass

    def schedule_is_declared(self) -> bool:
        return self.scheduler is not None

    def read(self, mode: Mode) -> Reading:
        kept = self.forward.loss_state.kept()
        # rows of another batch do not go on from the state that the trained ones left
        reading = self.modes.reading(mode, self.forward.quiet, fresh=self._looking)
        with kept, reading, self.explained(f"the model in mode {mode!r}"):
            if self.modes.evaluates_differently and mode in ("eval", "reestimated"):
                return self._as_reading(self.forward.quiet(), None, [])
            return self._as_reading(*self.forward.watched(quiet=True))

    def _as_reading(self, outputs: Any, loss: torch.Tensor | None, calls: list[LossCall]) -> Reading:
        shown = self.output_rows.first([to_numpy(each) for each in predictions(outputs)])
        if loss is None:
            return Reading(loss=None, outputs=shown)
        data_term = self._scrutiny.data_term(calls)
        heads = heads_of(calls, self.by_row.rows, self._scrutiny, self.output_rows)
        return Reading(loss=float(loss.detach()) if data_term is None else data_term, outputs=shown, heads=heads)

    def outputs_for(self, rows: Sequence[int]) -> tuple[Array, ...] | None:
        x = self._handed_out.inputs_of(rows)
        return None if x is None else self._answers.to(x)

    def outputs_along(self, axis: int, order: Sequence[int]) -> tuple[Array, ...] | None:
        return self._answers.to(self.forward.batch.inputs_along(axis, order))

    def draws_in_evaluation(self) -> bool | None:
        return self._answers.are_drawn()

    def drawn(self) -> Drawn:
        if self.case.step is not None:
            return drawn_by_step(self.case, self.by_row, self.rebuild, self.loss_needs_targets)
        return drawn_by_loss(self.forward, self.modes, self._free.carries, bool(self.targets))

    def loss_and_gradient(self, outputs: Sequence[Array]) -> tuple[float, list[Array]] | None:
        if self.case.loss is None and self.forward.own is None and self.forward.captured is None:
            return None
        return self._free.loss_and_gradient(outputs)

    def heads_for(self, outputs: Sequence[Array]) -> tuple[Head, ...]:
        calls = self._free.loss_calls(outputs)
        return heads_of(calls, self.by_row.rows, self._scrutiny, self.output_rows) if calls else ()

    # ------------------------------------------------------------------ facts

    def shared_outputs(self) -> Sequence[int]:
        return shared_outputs(self.forward, self.modes)

    def loss_needs_targets(self) -> bool:
        if self.case.step is None:
            return bool(self.targets)
        with preserved_generators(), self.modes.state.kept():
            return step_needs_targets(self.case, self.by_row, self.rebuild)

    def blinded(self) -> TorchLearner:
        batch = self.by_row.blinded(self.labels)
        return TorchLearner(self.case, self.rebuild(), batch, self.rebuild, self.labels)

    def score(self) -> float | None:
        if self.case.score is None:
            return None
        with self.modes.reading("eval"), torch.no_grad(), user_code(f"{self._where} score"):
            return user_score(self.case.score(self.model, self.batch.x, self.batch.y), self.case)

    def parameters(self) -> ParameterFacts:
        return forensics.parameter_facts(self.model, self._start, self._infinities, self._updates)

    def scale_rate(self, factor: float) -> bool:
        return not self.has_schedule and forensics.scale_rate(self.optimizer, factor)

    def equal_units(self) -> Sequence[str]:
        now, equal = dict(self.model.named_parameters()), forensics.units_are_equal
        return [name for name, each in self._start.items() if equal(each) and name in now and equal(now[name])]

    def statistics(self) -> list[RunningStatistics]:
        return forensics.movement(self.modes, self.forward.quiet, self._start_statistics)

    def at_rest(self) -> AtRest | None:
        step = None if self.case.step is None else lambda: self._own_steps(1)
        return at_rest(self.modes, self.forward, step, lambda: self._as_reading(*self.forward.watched(quiet=True)))

    def differing_module(self, first: Mode, second: Mode) -> str | None:
        return forensics.differing_module(self.modes, self.forward.quiet, first, second)
