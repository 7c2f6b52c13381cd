"""Functions of Keras and TensorFlow by name, called through a hook while a part of a program runs.

What a model calls as `keras.ops.softmax`, `keras.activations.softmax` or `tf.nn.softmax`, in its own code or in that of
Keras' layers, is one thing here. Replaced are the entries of modules, so a function that was imported by its own name
is seen where it calls Keras' backend, and not seen where it is TensorFlow's.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from pytest_overfit.adapters.keras.layers import substitute

#: gets the function's name, the function, and the arguments of one call; returns what the call gives
Hook = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

#: modules of Keras that functions are looked up in when they are called; those of the backend come last
_OF_KERAS = ("keras.activations", "keras.src.activations", "keras.ops", "keras.src.ops", "keras.src.ops.nn")
_OF_BACKEND = ("nn", "numpy", "math", "core", "random")

#: and of TensorFlow, where it is the backend
_OF_TENSORFLOW = ("nn", "math", "random", "linalg")

#: what stands between two tensors; `1 / x` is seen as the division it is
_OPERATORS = {"__truediv__": "divide", "__rtruediv__": "divide", "__pow__": "pow"}


def _homes() -> Iterator[Any]:
    """The modules, each once."""
    backend = keras.backend.backend()
    names = [*_OF_KERAS, *(f"keras.src.backend.{backend}.{each}" for each in _OF_BACKEND)]
    found = [sys.modules[name] for name in names if name in sys.modules]
    if backend == "tensorflow":
        tensorflow = sys.modules["tensorflow"]
        found += [tensorflow, *(getattr(tensorflow, name) for name in _OF_TENSORFLOW)]
    yield from {id(each): each for each in found}.values()


def _entries(names: Collection[str]) -> Iterator[tuple[Any, str, str, Callable[..., Any]]]:
    """Module or class, its attribute, the name that the hook gets, and what the attribute is."""
    for home in _homes():
        for name in names:
            own = vars(home).get(name)
            if callable(own) and not isinstance(own, type):
                yield home, name, name, own
    tensor = getattr(sys.modules.get("tensorflow"), "Tensor", None)
    for operator, name in _OPERATORS.items() if keras.backend.backend() == "tensorflow" else ():
        if name in names:
            yield tensor, operator, name, getattr(tensor, operator)


class Hooked:
    """Sends calls of functions with these names through a hook, outermost calls only."""

    def __init__(self, names: Collection[str], hook: Hook) -> None:
        self._names, self._hook = names, hook
        self._inside = False
        self._active = 0

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, calls are seen; it may be entered again inside."""
        self._active += 1
        try:
            if self._active > 1:
                yield
                return
            with contextlib.ExitStack() as stack:
                for home, attribute, name, own in list(_entries(self._names)):
                    turned = _turned(own) if attribute == "__rtruediv__" else own
                    through = self.through(name, turned)
                    setattr(home, attribute, _turned(through) if turned is not own else through)
                    stack.callback(setattr, home, attribute, own)
                yield
        finally:
            self._active -= 1

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Inside, calls go on as if nothing were hooked."""
        before, self._inside = self._inside, True
        try:
            yield
        finally:
            self._inside = before

    def through(self, name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        """The function as it is called while the hook is active."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return own(*args, **kwargs)
            self._inside = True
            try:
                return self._hook(name, own, args, kwargs)
            finally:
                self._inside = False

        return call


def _turned(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of two arguments that gets them the other way round."""
    return lambda first, second: function(second, first)


def while_called(hooked: Hooked, target: Any, *methods: str) -> None:
    """From now on the hook is active whenever one of these methods of an object runs."""
    for name in methods:
        substitute(target, name, _in_hook(hooked, getattr(target, name)))


def _in_hook(hooked: Hooked, own: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with hooked.active():
            return own(*args, **kwargs)

    return call
