"""The same Keras model without its regularisers: dropout, noise, penalties on weights and outputs, decay, augmentation.

Rates are fixed when a step is traced, so all of this happens before. Batch normalisation and constraints on weights
stay: they are part of what the model computes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras

from pytest_overfit.adapters.keras import layers
from pytest_overfit.adapters.regularizer_effects.names import dropout_rates, noise_sizes, with_places

#: what was taken out, and where
Found = tuple[str, str]


def without_regularizers(model: Any) -> tuple[str, ...]:
    """Take the regularisers out of a built model, for good, and say which they were."""
    return (*_taken_out(model, _dropping, _augmenting, _penalties), *_decay(model))


def without_noise(model: Any) -> tuple[str, ...]:
    """The same for all that changes what goes through the model at random: dropout, noise, augmentation."""
    return _taken_out(model, _dropping, _augmenting)


def without_penalties(model: Any) -> tuple[str, ...]:
    """The same for penalties on weights and outputs."""
    return _taken_out(model, _penalties)


def has_penalties(model: Any) -> bool:
    """It has a penalty that could be taken out."""
    held = [each for layer in (model, *layers.layers_of(model)) for each in (layer, *_own_variables(layer))]
    return any(value is not None for each in held for name, value in vars(each).items() if name.endswith("regularizer"))


def without_decay(model: Any) -> tuple[str, ...]:
    """The same for the weight decay of optimizers."""
    return tuple(_decay(model))


def _taken_out(model: Any, *kinds: Callable[[Any, str], Iterator[Found]]) -> tuple[str, ...]:
    places: dict[str, dict[str, None]] = {}
    for layer, name in _named(model):
        for what, where in (found for kind in kinds for found in kind(layer, name)):
            places.setdefault(what, {})[where] = None
    return tuple(with_places(places))


def _named(model: Any) -> Iterator[tuple[Any, str]]:
    """Every layer, and the name its user knows: what is inside a layer of Keras' own goes by that layer's name.

    What is inside an augmentation is left out, because evaluation does not call it.
    """
    names: dict[int, str] = {}
    inside: set[int] = set()
    for layer in (model, *layers.layers_of(model)):
        name = names.setdefault(id(layer), str(layer.name))
        if not isinstance(layer, keras.Model) and type(layer).__module__.startswith("keras."):
            for inner in layers.layers_of(layer):
                names.setdefault(id(inner), name)
        if id(layer) in inside:
            continue
        if is_augmentation(layer):
            inside.update(id(inner) for inner in layers.layers_of(layer))
        yield layer, name


def _dropping(layer: Any, name: str) -> Iterator[Found]:
    """Rates of dropout and sizes of noise, set to zero: `Dropout.rate`, `LSTMCell.recurrent_dropout` and the like."""
    for attribute, rate in dropout_rates(layer, ("rate", "p")):
        setattr(layer, attribute, 0.0)
        yield f"{'recurrent dropout' if 'recurrent' in attribute else 'dropout'} {rate:g}", name
    for attribute, size in noise_sizes(layer):
        setattr(layer, attribute, 0.0)
        yield f"noise {size:g}", name


def _augmenting(layer: Any, name: str) -> Iterator[Found]:
    """A layer that changes its input at random in training does what it does in evaluation, such as a central crop."""
    if not is_augmentation(layer):
        return
    layers.substitute(layer, "call", _never_training(layer.call))
    yield f"augmentation {type(layer).__name__}", name


def is_augmentation(layer: Any) -> bool:
    """One of Keras' random image layers, or another layer without weights that is called random."""
    if isinstance(layer, keras.Model) or not getattr(layer, "_call_has_training_arg", True):
        return False
    images = any(each.__name__ == "BaseImagePreprocessingLayer" for each in type(layer).__mro__)
    if images and any(isinstance(each, keras.random.SeedGenerator) for each in vars(layer).values()):
        return True
    called = re.match("_?(random|augment)", type(layer).__name__.lower()) is not None
    return called and not layer.trainable_weights and "training" in inspect.signature(layer.call).parameters


def _never_training(own: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(own)

    def call(*args: Any, **kwargs: Any) -> Any:
        if "training" not in signature.parameters:
            return own(*args, **{**kwargs, "training": False})
        given = signature.bind(*args, **kwargs)
        given.arguments["training"] = False
        return own(*given.args, **given.kwargs)

    return call


def _penalties(layer: Any, name: str) -> Iterator[Found]:
    """Regularizers of the layer's own variables and outputs. What `add_loss` adds may be the model's objective."""
    for variable in _own_variables(layer):
        if getattr(variable, "regularizer", None) is not None:
            yield _in_words(variable.regularizer), f"{variable.name} of {name}"
            variable.regularizer = None
    for attribute in [each for each in vars(layer) if each.endswith("_regularizer")]:
        regularizer = getattr(layer, attribute)
        if regularizer is not None and attribute == "activity_regularizer":
            yield _in_words(regularizer), f"output of {name}"
        setattr(layer, attribute, None)


def _own_variables(layer: Any) -> tuple[Any, ...]:
    return (*layer._trainable_variables, *layer._non_trainable_variables)


def _in_words(regularizer: Any) -> str:
    factors = {kind: getattr(regularizer, kind, None) for kind in ("l1", "l2")}
    known = [f"{kind.upper()} {float(value):g}" for kind, value in factors.items() if value is not None and value != 0]
    return " and ".join(known) or str(getattr(regularizer, "__name__", type(regularizer).__name__))


def _decay(model: Any) -> list[str]:
    """Decoupled weight decay of every optimizer that the model has."""
    held = [each for each in vars(model).values() if isinstance(each, keras.optimizers.Optimizer)]
    inner = [getattr(each, "inner_optimizer", None) for each in (model.optimizer, *held)]
    found = []
    for optimizer in {id(each): each for each in (model.optimizer, *held, *inner) if each is not None}.values():
        for attribute, value in list(vars(optimizer).items()):
            if attribute.endswith("weight_decay") and isinstance(value, (int, float)) and value:
                # Keras' own skip the step for None; another's may calculate with it
                own = type(optimizer).__module__.startswith("keras.")
                setattr(optimizer, attribute, None if own else type(value)(0))
                found.append(f"weight decay {value:g}")
    return list(dict.fromkeys(found))
