"""A training step whose functions go through a hook, from the inputs to the loss; its optimizer's do not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from pytest_overfit.adapters.keras import stepper as stepping
from pytest_overfit.adapters.keras.layers import substitute
from pytest_overfit.adapters.keras.programs.functions import Hook, Hooked, while_called
from pytest_overfit.adapters.keras.programs.original import Original
from pytest_overfit.adapters.keras.regularizers.decay import optimizers_of
from pytest_overfit.adapters.keras.state import held


def hook(model: Any, hooked: Hooked) -> None:
    """From now on the hook is active in the model's call and in its loss, and in a step of the user's around them."""
    own = [each for each in ("call", "compute_loss", "train_step") if stepping.own(model, each)]
    while_called(hooked, model, *own)
    compiled = getattr(model, "_compile_loss", None)
    if compiled is not None:
        while_called(hooked, compiled, "call")
    if "train_step" in own:
        for optimizer in optimizers_of(model):
            substitute(optimizer, "apply", _outside(hooked, optimizer.apply))


def _outside(hooked: Hooked, own: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with hooked.resting():
            return own(*args, **kwargs)

    return call


def called(original: Original, names: Collection[str]) -> set[str]:
    """Which of these functions a step calls, from the inputs to the loss; one is made on a model of its own."""
    found: set[str] = set()

    def note(name: str, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found.add(name)
        return own(*args, **kwargs)

    pass_over(original, lambda model: hook(model, Hooked(names, note)))
    return found


def pass_over(original: Original, prepare: Callable[[Any], None]) -> None:
    """Make one pass up to the loss on a new model, or a step where it is the user's own."""
    model = original.built()
    prepare(model)
    reader = original.reader(model)
    with held(model, weights=True):
        if stepping.own(model, "train_step"):
            model.train_step(reader.feed.data)
            return
        outputs = reader.forward(training=True)
        if model.loss is not None or stepping.own(model, "compute_loss"):
            reader.data_term(outputs, training=True)


def with_hook(original: Original, names: Collection[str], instead: Hook, otherwise: str) -> Callable[[Any], Any]:
    """What puts this hook into a model. Raises `UnchangeableError`, with these words, where it is never called."""
    from pytest_overfit.adapters.programs import UnchangeableError

    if not called(original, names):
        raise UnchangeableError(otherwise)

    def altered(model: Any) -> Any:
        hook(model, Hooked(names, instead))
        return model

    return altered
