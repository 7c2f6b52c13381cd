"""How a model is stepped: compiled around its own `train_step` where that can be, else by `fit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import keras

from pytest_overfit.adapters.keras.callbacks import StepLosses, as_list
from pytest_overfit.adapters.keras.feed import Feed
from pytest_overfit.adapters.keras.layers import layers_of
from pytest_overfit.core import foreign
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError


class Stepper(Protocol):
    @property
    def samples(self) -> bool: ...

    @property
    def draws(self) -> bool: ...

    def train(self, steps: int) -> list[float]: ...


def own(model: Any, method: str) -> bool:
    """The user's class, or the model itself, brings this method; Keras' own models do not."""
    return method in vars(model) or getattr(type(model), method, None) is not getattr(keras.Model, method, None)


class StepLoss:
    """Finds the loss in what a step returns: under "loss", else the first value."""

    def __init__(self, case: Case) -> None:
        self._case = case
        #: under which name it was found, where that is not "loss"
        self.other_name = ""
        #: names of all values that a step without a "loss" returned
        self.values: tuple[str, ...] = ()

    def __call__(self, logs: Any) -> Any:
        if isinstance(logs, dict) and logs.get("loss") is not None and _is_number(logs["loss"]):
            return logs["loss"]
        if isinstance(logs, dict) and logs.get("loss") is None:
            numbers = {str(name): value for name, value in logs.items() if _is_number(value)}
            self.values = tuple(numbers)
            for self.other_name, value in numbers.items():
                return value
        elif logs is not None and _is_number(logs):
            return logs
        raise CaseError(
            f"Case {self._case.name!r}: the custom train_step returned {_shown(logs)}, expected a dict with the "
            "loss, one real number; end it with return {'loss': loss}"
        )


def _is_number(value: Any) -> bool:
    """One real number, as a tensor or as it is."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    kind = str(value.dtype)
    return len(value.shape) == 0 and not any(each in kind for each in ("bool", "complex", "string", "<U", "object"))


def _shown(logs: Any) -> str:
    if not isinstance(logs, dict):
        return foreign.describe(logs)
    if logs.get("loss") is not None:
        return f"a dict whose 'loss' is {foreign.describe(logs['loss'])}"
    return f"a dict with the keys {foreign.brief(sorted(map(str, logs)))}"


class FitStepper:
    """Steps by `model.fit`, one epoch a step: slow, but whatever the user's model does, it does here."""

    #: unknown: there is no graph to look at
    samples = draws = False

    def __init__(self, case: Case, model: Any, feed: Feed, loss_of: StepLoss) -> None:
        self._model, self._feed, self._loss_of = model, feed, loss_of
        if keras.backend.backend() == "torch":
            model.jit_compile = False  # it changes no result, and compiling takes a minute
        self._callbacks = as_list(case.fit_kwargs.get("callbacks"))
        #: epochs so far, so that a schedule by epoch goes on where it was
        self.epochs = 0

    def train(self, steps: int) -> list[float]:
        """Stopping early is not asked for: `fit` is called again until all steps are made."""
        losses: list[float] = []
        while len(losses) < steps:
            made = self._fit(self.epochs + steps - len(losses))
            self.epochs += len(made)
            losses += made
            if not made:
                break
        return losses

    def _fit(self, until: int) -> list[float]:
        # the log of an epoch shows 0.0 where a custom step leaves the model's metrics alone
        recorder = StepLosses(self._loss_of)
        arrays, weights = self._feed.arrays, self._feed.row_weights
        extra = {} if weights is None else {"sample_weight": weights}
        self._model.fit(
            arrays.x,
            arrays.y,
            batch_size=self._feed.rows,
            initial_epoch=self.epochs,
            epochs=until,
            shuffle=False,
            verbose=0,
            callbacks=[*self._callbacks, recorder],
            **extra,
        )
        return recorder.taken()


def make_stepper(case: Case, model: Any, feed: Feed, loss_of: StepLoss) -> tuple[Stepper, str]:
    """Choose how to step, and say so where it is not the usual way."""
    by_fit = why_fit(case, model)
    if by_fit:
        return FitStepper(case, model, feed, loss_of), f"stepped through fit, because {by_fit}"
    from pytest_overfit.adapters.keras import graph

    if _wants_eager(model):
        return graph.EagerStepper(model, feed, loss_of), "stepped without compiling, as run_eagerly=True asks for"
    try:
        return graph.GraphStepper(model, feed, loss_of), ""
    except CaseError:
        raise
    except Exception as error:  # whatever tracing met: fit is the judge of whether that is the user's error
        what = "custom train_step" if own(model, "train_step") else "the training step"
        reason = f"{type(error).__name__}: {_first_line(error)}"
        return FitStepper(case, model, feed, loss_of), f"{what} could not be compiled ({reason}): stepped through fit"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("in user code", "File ", "Exception encountered"))]
    return (useful or lines or ["no message"])[0][:160]


def why_fit(case: Case, model: Any) -> str:
    """Why only `fit` can step this model; an empty string where it need not."""
    if keras.backend.backend() != "tensorflow":
        return f"Keras runs on {keras.backend.backend()}"
    if case.fit_kwargs.get("callbacks"):
        return "there are callbacks"
    for method in ("fit", "make_train_function"):
        if own(model, method):
            return f"the model brings its own {method}"
    if getattr(model, "_distribute_strategy", None) is not None:
        return "the model was made under a distribution strategy"
    return ""


def _wants_eager(model: Any) -> bool:
    """Asked to run eagerly, and there is code whose side effects compiling could lose."""
    import tensorflow as tf

    if not (model.run_eagerly or tf.config.functions_run_eagerly()):
        return False
    classes = [type(model), *(type(each) for each in layers_of(model))]
    if own(model, "train_step") or own(model, "compute_loss") or _own_loss(model):
        return True
    return any(not each.__module__.startswith("keras.") for each in classes)


def _own_loss(model: Any) -> bool:
    """A loss or metric that is neither named by a string nor one of Keras' own."""
    given: list[Callable[..., Any]] = [*keras.tree.flatten(model.loss), *getattr(model, "metrics", ())]
    return any(
        not isinstance(each, str) and not (getattr(each, "__module__", None) or "").startswith("keras.")
        for each in given
    )
