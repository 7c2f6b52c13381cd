"""Walk a model's layers and change for a moment how one of them is called."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from pytest_overfit.adapters.arrays import alike

#: gets the layer's own `call` and the arguments of one call, returns the outputs
Wrapper = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def layers_of(model: Any) -> list[Any]:
    """Every layer inside the model at any depth, without the model itself.

    The private method also finds layers inside custom layers; without it those inside nested models are found.
    """
    if hasattr(model, "_flatten_layers"):
        return [each for each in model._flatten_layers(include_self=False) if each is not model]
    found: list[Any] = []
    for layer in getattr(model, "layers", ()):
        found += [layer, *layers_of(layer)]
    return found


def batch_normalisations(model: Any) -> list[Any]:
    return [each for each in layers_of(model) if isinstance(each, keras.layers.BatchNormalization)]


@contextlib.contextmanager
def called_through(layers: Iterable[Any], wrapper: Wrapper) -> Iterator[None]:
    """Send every call of these layers through `wrapper`; their own `call` is back in place on the way out.

    The attribute is set in the instance's dictionary, because a layer's `__setattr__` tracks what it is given.
    """
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.callback(substitute(layer, "call", _through(layer, layer.call, wrapper)))
        yield


def _through(layer: Any, own: Callable[..., Any], wrapper: Wrapper) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return wrapper(layer, own, args, kwargs)

    return call


def substitute(target: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an attribute of the instance and return what undoes it."""
    attributes = target.__dict__
    missing = object()
    before = attributes.get(name, missing)
    attributes[name] = value

    def undo() -> None:
        if before is missing:
            attributes.pop(name, None)
        else:
            attributes[name] = before

    return undo


@contextlib.contextmanager
def on_batch_statistics(layers: Iterable[Any]) -> Iterator[None]:
    """Make these batch normalisations use the batch's own statistics. They move; the caller puts them back."""

    def wrapper(_: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return own(*args, **{**kwargs, "training": True})

    with called_through(layers, wrapper):
        yield


@contextlib.contextmanager
def taking_statistics(layers: list[Any]) -> Iterator[dict[int, list[tuple[Any, Any]]]]:
    """As `on_batch_statistics`, and note mean and variance of every call, under the layer's id.

    With a momentum of 0 a layer's moving statistics are, after each call, those of its input.
    """
    taken: dict[int, list[tuple[Any, Any]]] = {id(each): [] for each in layers}

    def wrapper(layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outputs = own(*args, **{**kwargs, "training": True})
        taken[id(layer)].append((keras.ops.copy(layer.moving_mean.value), keras.ops.copy(layer.moving_variance.value)))
        return outputs

    with contextlib.ExitStack() as stack:
        for layer in layers:
            for name in ("momentum", "renorm_momentum"):
                if hasattr(layer, name):
                    stack.callback(substitute(layer, name, 0.0))
        stack.enter_context(called_through(layers, wrapper))
        yield taken


@contextlib.contextmanager
def noting_training(layers: list[Any]) -> Iterator[set[int]]:
    """Note the ids of the layers that are called in training mode, inside a forward pass in training mode.

    A batch normalisation that a layer calls with `training=False`, as transfer learning does, is not among them.
    """
    noted: set[int] = set()

    def wrapper(layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("training") and layer.trainable:
            noted.add(id(layer))
        return own(*args, **kwargs)

    with called_through(layers, wrapper):
        yield noted


#: one call of a layer: the layer, its inputs, its outputs
Call = tuple[Any, list[Any], list[Any]]


def first_differing(first: list[Call], second: list[Call]) -> str | None:
    """Name the first layer whose outputs differ though its inputs agree."""
    for (layer, inputs, outputs), (other, other_inputs, other_outputs) in zip(first, second, strict=False):
        if layer is not other:
            return None  # another path was taken, which no layer can be blamed for
        if alike(inputs, other_inputs) and not alike(outputs, other_outputs):
            return str(layer.name)
    return None


def recorded(model: Any, forward: Callable[[], Any]) -> list[Call]:
    """Note inputs and outputs of every layer, in the order in which the calls ended: inner ones first."""
    calls: list[Call] = []

    def wrapper(layer: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outputs = own(*args, **kwargs)
        with contextlib.suppress(Exception):  # inside a function that is being traced there are no numbers
            calls.append((layer, _numbers((args, kwargs)), _numbers(outputs)))
        return outputs

    with called_through([*layers_of(model), model], wrapper):
        forward()
    return calls


def _numbers(structure: Any) -> list[Any]:
    return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(structure) if keras.ops.is_tensor(each)]
