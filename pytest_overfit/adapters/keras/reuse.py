"""Train a Keras model that is traced already from the weights of a new one, where both are known to be the same.

Tracing the step and the pass of a small model takes several times as long as its training. A probe that trains from
ten seeds would pay it for each; here only the first model with regularisers is traced, and the first without.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import warnings
import weakref
from typing import Any
from weakref import WeakKeyDictionary

from pytest_overfit.adapters.keras.fit_data import Feeding
from pytest_overfit.adapters.keras.layers import layers_of
from pytest_overfit.adapters.keras.learner import KerasLearner
from pytest_overfit.adapters.keras.reader import numbers
from pytest_overfit.core.arrays import Array

#: models whose behaviour their configuration tells; a subclass may have code, and state, of its own
_PLAIN = ("Sequential", "Functional")

#: how a configuration says which output of another layer goes in
_LINK = "__keras_tensor__"


@dataclasses.dataclass(kw_only=True)
class Traced:
    """What the first trainer has built and traced, of those with regularisers or of those without."""

    model: Any
    #: of the model, as they were listed before anything was built for the training
    variables: list[Any]
    learner: KerasLearner
    feeding: Feeding
    removed: tuple[str, ...]
    remarks: tuple[str, ...]
    signature: str
    #: the optimizer's variables before the first step
    optimizer: list[Array]
    #: the trainer that trains it now
    user: weakref.ref[Any]

    def start_as(self, model: Any, user: Any) -> None:
        """Give the traced model all that makes the new one what it is."""
        for mine, new in zip(self.variables, model.variables, strict=True):
            mine.assign(new)
        for mine, value in zip(self.model.optimizer.variables, self.optimizer, strict=True):
            mine.assign(value)
        self.user = weakref.ref(user)


class _Kept:
    """One with regularisers and one without for each split, as long as it lives; none may hold the split itself."""

    def __init__(self) -> None:
        self._traced: WeakKeyDictionary[Any, dict[bool, Traced]] = WeakKeyDictionary()

    def find(self, train: Any, plain: bool, signature: str | None) -> Traced | None:
        """One that may be trained again: the same model, and no trainer uses it."""
        found = self._traced.get(train, {}).get(plain)
        return found if found is not None and found.signature == signature and found.user() is None else None

    def keep(self, train: Any, plain: bool, traced: Traced) -> None:
        self._traced.setdefault(train, {})[plain] = traced


kept = _Kept()


def copies(variables: Any) -> list[Array]:
    """The values of variables."""
    return [numbers(each).copy() for each in variables]


def signature(model: Any) -> str | None:
    """Text that is the same for models that compute the same from the same variables; None where that is not known.

    Known it is for built models of Keras' own layers, losses, metrics and optimizers: their configuration tells all.
    Layers are numbered instead of named, because Keras counts names through the whole process.
    """
    inside = [*layers_of(model)]
    if not (type(model).__name__ in _PLAIN and model.built and not model.run_eagerly):
        return None
    if not (_is_keras_own(model) and all(map(_is_told_by_its_configuration, inside))):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a lambda is warned of, as one that could not be saved
            config = {"model": model.get_config(), "compile": _nameless(model.get_compile_config())}
    except Exception:  # not everything has a configuration
        return None
    if not _only_of_keras(config):
        return None
    numbered = {f'"{each.name}"': f'"#{place}"' for place, each in enumerate([model, *inside])}
    text = re.sub(r'"[^"]*"', lambda found: numbered.get(found[0], found[0]), json.dumps(config, default=repr))
    shapes = [(each.name, tuple(each.shape), str(each.dtype), each.trainable) for each in model.variables]
    return f"{text} {shapes}"


def _nameless(config: Any) -> Any:
    """A configuration without names: those of optimizers and metrics are counted too."""
    if isinstance(config, dict):
        return {key: _nameless(value) for key, value in config.items() if key != "name"}
    return [_nameless(each) for each in config] if isinstance(config, (list, tuple)) else config


def _is_keras_own(thing: Any) -> bool:
    return type(thing).__module__.split(".")[0] == "keras"


def _is_told_by_its_configuration(layer: Any) -> bool:
    """No code of the user's, and nothing learnt by `adapt`, which is not a variable when it is traced."""
    own_code = any(inspect.isroutine(each) and _is_users(each) for each in vars(layer).values())
    return _is_keras_own(layer) and not own_code and not hasattr(layer, "adapt") and type(layer).__name__ != "Lambda"


def _is_users(function: Any) -> bool:
    return str(getattr(function, "__module__", None)).split(".")[0] != "keras"


def _only_of_keras(config: Any) -> bool:
    """No function or class of the user's in a configuration: their names do not tell what they do."""
    if isinstance(config, dict):
        known = config.get("class_name", _LINK) == _LINK or str(config.get("module")).split(".")[0] == "keras"
        return known and all(map(_only_of_keras, config.values()))
    if isinstance(config, (list, tuple)):
        return all(map(_only_of_keras, config))
    return config is None or isinstance(config, (bool, int, float, str))
