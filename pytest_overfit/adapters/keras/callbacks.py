"""Callbacks of `fit` during training by epochs: copies of the user's, and one of ours that keeps account."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import keras

from pytest_overfit.adapters.keras.state import Restore, restorer
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import brief
from pytest_overfit.core.usercode import user_code

#: they keep what a run gave in files, or go on from such files, which is not part of how a model trains
_WRITERS = tuple(
    getattr(keras.callbacks, name)
    for name in ("BackupAndRestore", "CSVLogger", "ModelCheckpoint", "ProgbarLogger", "RemoteMonitor", "TensorBoard")
)

#: they look at no validation loss
_BLIND = (keras.callbacks.LearningRateScheduler, keras.callbacks.TerminateOnNaN)

_BATCH_METHODS = (
    "on_batch_begin",
    "on_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
)

#: attributes of these types are what a callback remembers of the epochs so far
_PLAIN = (bool, int, float, str, list, tuple, dict, set, type(None))


def as_list(callbacks: Any) -> list[Any]:
    """What `fit_kwargs["callbacks"]` may be: one callback, a list, or a function that makes one of these."""
    if callable(callbacks) and not isinstance(callbacks, keras.callbacks.Callback):
        with user_code("the function given as callbacks"):
            callbacks = callbacks()
    if callbacks is None:
        return []
    made = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    for each in made:
        if not isinstance(each, keras.callbacks.Callback):
            cure = (
                f"write {each.__name__}(...)" if isinstance(each, type) else "write [keras.callbacks.EarlyStopping()]"
            )
            raise CaseError(f"fit_kwargs: callbacks: expected callbacks of Keras, got {brief(each)}; {cure}")
    return made


def own_callbacks(case: Case) -> tuple[list[Any], list[str]]:
    """Callbacks for one training: the user's stay as they are. And the names of those that are left out."""
    given = case.fit_kwargs.get("callbacks")
    made = as_list(given)
    fresh = callable(given) and not isinstance(given, keras.callbacks.Callback)
    kept = [each for each in made if not isinstance(each, _WRITERS)]
    left_out = [type(each).__name__ for each in made if isinstance(each, _WRITERS)]
    return (kept if fresh else [_copied(each, case) for each in kept]), left_out


def _copied(callback: Any, case: Case) -> Any:
    model = getattr(callback, "_model", None)  # of an earlier training; `fit` puts another in its place
    try:
        return copy.deepcopy(callback, {} if model is None else {id(model): model})
    except Exception as error:
        raise CaseError(
            f"Case {case.name!r}: fit_kwargs: the callback {type(callback).__name__} cannot be copied "
            f"({type(error).__name__}: {error}), but each training needs its own callbacks; give a function: "
            f"fit_kwargs={{'callbacks': lambda: [{type(callback).__name__}(...)]}}"
        ) from None


def check_monitored(callbacks: Sequence[Any], case: Case) -> None:
    """A callback that looks at the validation loss would do nothing where there is none."""
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor.startswith("val_"):
            raise CaseError(
                f"Case {case.name!r}: the callback {type(callback).__name__} monitors {monitor!r}, but there are no "
                "validation data; give the case val=(x, y), or fit_kwargs={'validation_data': (x, y)}"
            )


def look_at_validation(callbacks: Sequence[Any]) -> bool:
    """One of them may want to see the validation loss."""
    return any(not isinstance(each, _BLIND) for each in callbacks)


def looks_at_batches(callback: Any) -> bool:
    """It is called at every batch, and not only at every epoch."""
    return any(
        name in vars(callback) or getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name)
        for name in _BATCH_METHODS
    )


class StepLosses(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes the loss that each step of a custom `train_step` returns, for logs that do not show it."""

    def __init__(self, loss_of: Callable[[Any], Any]) -> None:
        super().__init__()
        self._loss_of = loss_of
        self._losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        del batch
        self._losses.append(float(keras.ops.mean(self._loss_of(logs))))

    def taken(self) -> list[float]:
        """The losses since the last call."""
        losses, self._losses = self._losses, []
        return losses


class Account(keras.callbacks.Callback):  # type: ignore[misc]
    """Has every epoch seeded, notes its loss, and lets a later call of `fit` go on as if the first had not ended.

    The end of `fit` gives the model its best weights, or the averaged ones, and its start makes callbacks forget
    what they counted. Stands last among the callbacks, so that it sees what the others did.
    """

    def __init__(self, begin: Callable[[int], Any], others: Sequence[Any], steps: StepLosses | None) -> None:
        super().__init__()
        self._begin, self._others, self._steps = begin, others, steps
        self.losses: list[float] = []
        self._until = 0
        self._restore: list[Restore] = []

    def expect(self, until: int) -> None:
        """`fit` will be called up to this epoch."""
        self.losses, self._until = [], until

    def on_train_begin(self, logs: Any = None) -> None:
        del logs
        for each in self._restore:
            each()
        self._restore = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        del logs
        self._begin(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.losses.append(self._loss(logs or {}))
        if epoch + 1 == self._until and not self.model.stop_training:
            self._pause()

    def _loss(self, logs: dict[str, Any]) -> float:
        """The log of an epoch shows 0.0 where a custom step leaves the model's metrics alone."""
        made = self._steps.taken() if self._steps is not None else []
        shown = float(logs.get("loss") or 0.0)
        return shown if shown != 0.0 or not made else sum(made) / len(made)

    def _pause(self) -> None:
        optimizer = self.model.optimizer
        if not self._others and not getattr(optimizer, "use_ema", False):
            return
        self._restore = [restorer([*self.model.variables, *getattr(optimizer, "variables", ())])]
        self._restore += [_remembered(each) for each in self._others]


def _remembered(callback: Any) -> Restore:
    saved = {name: value for name, value in vars(callback).items() if isinstance(value, _PLAIN) and name != "params"}
    return lambda: vars(callback).update(saved)
