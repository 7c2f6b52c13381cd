"""Is a model new, by its variables; and what is unbuilt in it: layers, then variables of loss and optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from pytest_overfit.adapters.keras import checks
from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.errors import user_call
from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.losses import Pair, pairs_of
from pytest_overfit.adapters.keras.reader import Reader
from pytest_overfit.adapters.keras.state import held
from pytest_overfit.core.errors import CaseError


@contextlib.contextmanager
def noting_parameters(note: Callable[[object], None]) -> Iterator[None]:
    """Inside, `note` gets every variable that is made. Keras has no hook for this: the constructor is wrapped."""
    construct = keras.Variable.__init__

    def noted(self: Any, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        note(self)

    keras.Variable.__init__ = noted
    try:
        yield
    finally:
        keras.Variable.__init__ = construct


def parameters_of(model: object) -> list[Any]:
    """The variables by which a model is known to be new; a model that is not built yet has none."""
    return list(model.variables) if isinstance(model, keras.Model) else []


def first_outputs(reader: Reader) -> Any:
    """Make an eval-mode pass, which builds the layers; None where a custom step uses the parts on its own."""
    if stepping.own(reader.model, "train_step") and not stepping.own(reader.model, "call"):
        return None
    with held(reader.model):
        return reader.forward(training=False)


def checked_pairs(reader: Reader, outputs: Any, where: str) -> list[Pair]:
    """What the compiled loss compares; nothing where it refuses the targets and is never asked."""
    pairs = pairs_of(reader.model, outputs, reader.feed.arrays.y, reader.feed.row_weights)
    try:
        checks.check_targets(pairs, outputs, where)
    except CaseError:
        if _asks_the_compiled_loss(reader, outputs):
            raise
        return []
    return pairs


def _asks_the_compiled_loss(reader: Reader, outputs: Any) -> bool:
    """False where the model's own `compute_loss` makes its loss without the one that it was compiled with."""
    model, asked = reader.model, []
    compiled = getattr(model, "_compile_loss", None)
    if compiled is None or not stepping.own(model, "compute_loss"):
        return True

    def noted(*_: Any, **__: Any) -> Any:
        asked.append(True)
        return keras.ops.zeros(())

    undo = substitute(compiled, "call", noted)
    try:
        with held(model):
            reader.data_term(outputs, training=False)
    except Exception:  # a loss that raises does so again where it is read, and is explained there
        return True
    finally:
        undo()
    return bool(asked)


def build_rest(reader: Reader, outputs: Any) -> None:
    """Make the variables of loss, metrics and optimizer, which cannot be made inside a compiled loop."""
    model, feed = reader.model, reader.feed
    with held(model):
        if model.loss is not None or stepping.own(model, "compute_loss"):
            _probe_loss(reader, outputs)
        with user_call(f"{reader.where}: the metrics"):
            if not stepping.own(model, "train_step"):
                model.compute_metrics(feed.x, feed.y, outputs, feed.weights)
    model.reset_metrics()
    optimizer = model.optimizer
    if optimizer is not None and not optimizer.built and model.trainable_variables:
        optimizer.build(model.trainable_variables)


def _probe_loss(reader: Reader, outputs: Any) -> None:
    try:
        reader.data_term(outputs, training=False)
    except Exception:
        if not stepping.own(reader.model, "train_step"):
            raise
        reader.readable = False  # compiled for show: the custom step has a loss of its own
