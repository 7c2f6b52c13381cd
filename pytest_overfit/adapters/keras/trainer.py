"""Trains a Keras model on a whole split by the user's own way: `model.fit`, with its callbacks and weights."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np

from pytest_overfit.adapters.base import Mode, RunningStatistics
from pytest_overfit.adapters.keras import callbacks, facts, reuse
from pytest_overfit.adapters.keras import fit_data as feeding
from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.errors import user_call
from pytest_overfit.adapters.keras.learner import make_learner
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.adapters.keras.regularizers import twin
from pytest_overfit.adapters.keras.state import running
from pytest_overfit.adapters.trainer import ChunkReading, digest_of, readings
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.splits import Split, open_split, rows_of

#: arguments of `fit` that are handed on as they are
_HANDED_ON = ("validation_steps", "validation_batch_size", "validation_freq")

#: validation data of callbacks, opened once for all trainers on one split
_opened: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


class KerasTrainer:
    """Trains a freshly built model; `plain`: without its regularisers.

    Making one costs two uncompiled forward passes on the first batch; nothing where an earlier model of the same kind
    can be trained again (see `reuse`). It raises `CaseError` for a case that cannot be trained so, and `ProgramError`
    where the model refuses the batch.
    """

    framework = "keras"
    looked_for = "keras: dropout, noise, weight decay, penalties of layers, augmentation layers, early stopping"

    def __init__(self, case: Case, model: Any, train: Split, reseed: Callable[[int], int], plain: bool) -> None:
        self.case, self.model, self._where = case, model, f"Case {case.name!r}"
        self._source = train
        self._remarks: tuple[str, ...] = ()
        data, self._share = feeding.without_share(case, feeding.weighted(case, train))
        self._callbacks, self._left_out = callbacks.own_callbacks(case)
        signature = reuse.signature(model)
        traced = reuse.kept.find(train, plain, signature)
        if traced is not None and traced.feeding.again(reseed):
            self._take_over(traced, plain)
        else:
            self._build(data, reseed, plain, signature)
        self._validation = self._validation_data()
        own_step = stepping.own(self.model, "train_step")
        self._steps = callbacks.StepLosses(stepping.StepLoss(case)) if own_step else None
        self._account = callbacks.Account(self._feeding.begin, self._callbacks, self._steps)
        self._epochs, self._ended = 0, False

    def _build(self, data: Split, reseed: Callable[[int], int], plain: bool, signature: str | None) -> None:
        case, model, variables = self.case, self.model, list(self.model.variables)
        # each row is read with the weight of its class; weights by row belong to the training split alone
        weights = {name: each for name, each in case.fit_kwargs.items() if name == "class_weight"}
        reading = dataclasses.replace(case, fit_kwargs=weights, batch=None)
        self.learner = make_learner(reading, model, next(data.epoch(reseed(0))), rebuild=lambda: model)
        if self._left_out:
            self._say(f"callbacks that only write files were left out: {', '.join(self._left_out)}")
        self.removed = self._without_regularizers() if plain else ()
        self._forget_what_was_traced()
        self._feeding = feeding.feeding_of(case, data, reseed)
        self._whole_epochs()
        if signature is not None and self._feeding.again(reseed):
            traced = reuse.Traced(
                model=model,
                variables=variables,
                learner=self.learner,
                feeding=self._feeding,
                removed=self.removed,
                remarks=self._remarks,
                signature=signature,
                optimizer=reuse.copies(model.optimizer.variables),
                user=weakref.ref(self),
            )
            reuse.kept.keep(self._source, plain, traced)

    def _take_over(self, traced: reuse.Traced, plain: bool) -> None:
        """Train the model that is traced already, from the weights of the new one."""
        traced.start_as(self.model, self)
        self.model, self.learner, self._feeding = traced.model, traced.learner, traced.feeding
        self.removed, self._remarks = traced.removed, traced.remarks
        if plain:
            self._without_early_stopping()

    def _say(self, remark: str) -> None:
        self._remarks = (*self._remarks, remark)

    @property
    def remarks(self) -> tuple[str, ...]:
        return (*self.learner.remarks, *self._remarks)

    @property
    def outside(self) -> tuple[str, ...]:
        return self.learner.outside

    # what is trained, and how

    def _without_regularizers(self) -> tuple[str, ...]:
        removed = twin.without_regularizers(self.model)
        stopping = self._without_early_stopping()
        restless = self.learner.restless_layer()
        if restless is not None:
            self._say(f"layer {restless!r} is random in training, in a way that could not be taken out")
        return (*removed, *(f"early stopping (patience {each.patience})" for each in stopping))

    def _without_early_stopping(self) -> list[Any]:
        stopping = [each for each in self._callbacks if isinstance(each, keras.callbacks.EarlyStopping)]
        self._callbacks = [each for each in self._callbacks if each not in stopping]
        return stopping

    def _validation_data(self) -> Any:
        """What callbacks look at: the user's own choice, else the case's validation split."""
        given = self.case.fit_kwargs.get("validation_data")
        if not callbacks.look_at_validation(self._callbacks):
            return None
        if given is not None:
            return given
        if self._share is not None:
            return feeding.validation_arrays(self.case, self._share)
        if self.case.val is None:
            callbacks.check_monitored(self._callbacks, self.case)
            return None
        if self._source not in _opened:
            _opened[self._source] = feeding.as_validation(self.case, open_split(self.case, "val"))
        return _opened[self._source]

    def _forget_what_was_traced(self) -> None:
        """A factory that has called `fit` or `predict` has fixed rates, and steps per call, in compiled functions."""
        for name in ("train_function", "test_function", "predict_function"):
            if hasattr(self.model, name):
                setattr(self.model, name, None)
        if keras.backend.backend() == "torch":
            self.model.jit_compile = False  # it changes no result, and compiling takes a minute

    def _whole_epochs(self) -> None:
        """Let one call of the compiled function make a whole epoch where nothing looks in between: the same steps."""
        model, steps = self.model, self._feeding.steps
        eager = model.run_eagerly or stepping.own(model, "train_step") or stepping.own(model, "test_step")
        if steps is None or eager or stepping.why_fit(dataclasses.replace(self.case, fit_kwargs={}), model):
            return
        if model.steps_per_execution == 1 and not any(map(callbacks.looks_at_batches, self._callbacks)):
            model.steps_per_execution = steps

    # training

    def scale_rate(self, factor: float) -> bool:
        optimizer = self.model.optimizer
        by_epoch = any(isinstance(each, keras.callbacks.LearningRateScheduler) for each in self._callbacks)
        if by_epoch or facts.scheduled(optimizer):
            return False
        try:
            optimizer.learning_rate = float(numbers(optimizer.learning_rate)) * factor
        except (AttributeError, TypeError, ValueError):  # an optimizer of the user's own
            return False
        return True

    def train(self, epochs: int, after_epoch: Callable[[], None] = lambda: None) -> list[float]:
        if self._ended or epochs < 1:
            return []
        until = self._epochs + epochs
        self._account.expect(until)
        mine = [self._account] if self._steps is None else [self._steps, self._account]
        look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: after_epoch())
        handed_on = {name: self.case.fit_kwargs[name] for name in _HANDED_ON if name in self.case.fit_kwargs}
        try:
            with running(), user_call(f"{self._where}: training through fit"):
                self.model.fit(
                    **self._feeding.arguments(range(self._epochs, until)),
                    **(handed_on if self._validation is not None else {}),
                    initial_epoch=self._epochs,
                    epochs=until,
                    validation_data=self._validation,
                    callbacks=[*self._callbacks, *mine, look],
                    verbose=0,
                )
        finally:
            self._feeding.close()
        self._epochs, self._ended = until, bool(self.model.stop_training)
        return list(self._account.losses)

    # reading

    def read(self, split: Split, mode: Mode = "eval") -> Iterator[ChunkReading]:
        """Chunks of a split; the loss is without penalties, and rows count by their weights, where they have some."""
        return readings(self.learner, self._pieces(split), mode)

    def _pieces(self, split: Split) -> Iterator[Batch]:
        """The chunks, or parts of them where the model takes so many rows and no others."""
        sizes = {each.shape[0] for each in getattr(self.model, "inputs", None) or () if len(each.shape)} - {None}
        for batch in split.chunks():
            size = min(sizes, default=batch.rows)
            starts = range(0, max(1, batch.rows - size + 1), size)
            left = batch.rows % size
            remark = f"rows at the end of a split were not read: the model takes {size} rows and no others"
            if left and remark not in self._remarks:
                self._say(remark)
            for start in starts:
                yield batch if size >= batch.rows else rows_of(batch, range(start, start + size))

    def statistics(self) -> list[RunningStatistics]:
        return self.learner.statistics()

    # weights

    def state(self) -> list[tuple[str, Array]]:
        """Names are those inside a layer: Keras numbers layers of one kind through the whole process."""
        return [(each.name, numbers(each).copy()) for each in self.model.weights]

    def digest(self) -> str:
        return digest_of(numbers(each) for each in self.model.weights)

    def start_from(self, state: Any) -> bool:
        mine = [(each.name, tuple(each.shape)) for each in self.model.weights]
        if mine != [(name, value.shape) for name, value in state]:
            return False
        for variable, (_, value) in zip(self.model.weights, state, strict=True):
            variable.assign(value)
        return True

    def redraw_weights(self, seed: int) -> bool:
        random = np.random.default_rng(seed)
        matrices = [each for each in self.model.weights if len(each.shape) > 1 and "float" in str(each.dtype)]
        for each in matrices:
            value = numbers(each)
            each.assign(random.permutation(value.reshape(-1)).reshape(value.shape))
        return bool(matrices)
