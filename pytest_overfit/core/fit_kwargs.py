"""Can what a case gives for `keras.Model.fit` be used?"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.core.foreign import brief

#: read of every case, whatever framework it is of
OF_ANY = ("batch_size", "epochs")

#: the case has fields for these
_FIELDS = {"x": "train", "y": "train"}


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _class_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, Integral) and _number(weight) and weight >= 0 for key, weight in value.items()
    )


_A_NUMBER = "a whole number of 1 or more"
_WEIGHTS = (
    "a dict of class numbers and weights of 0 or more; write {0: 1.0, 1: 2.5}; 'balanced' is scikit-learn's: "
    "dict(enumerate(compute_class_weight('balanced', classes=numpy.unique(y), y=y)))"
)

#: what may be given under a name, and how to say it
_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "batch_size": (_whole, _A_NUMBER),
    "epochs": (_whole, _A_NUMBER),
    "steps_per_epoch": (_whole, _A_NUMBER),
    "class_weight": (_class_weights, _WEIGHTS),
    "validation_split": (lambda value: _number(value) and 0 <= value < 1, "a share from 0 to below 1"),
}


def check_values(given: Mapping[str, Any], where: str) -> None:
    """Refuse values that no `fit` takes."""
    for name, (fits, wanted) in _CHECKS.items():
        value = given.get(name)
        if value is not None and not fits(value):
            raise CaseError(f"{where}: fit_kwargs: {name}: expected {wanted}; got {brief(value)}")


def check_names(given: Mapping[str, Any], fit: Callable[..., Any] | None, where: str) -> None:
    """Refuse names that `fit` does not take; None: there is no such function, and all but a few would go unread."""
    parameters = {} if fit is None else inspect.signature(fit).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    known = [*(name for name in parameters if name not in _FIELDS), *OF_ANY]
    for name in given:
        if name in _FIELDS:
            raise CaseError(f"{where}: fit_kwargs: {name} is data; give it as {_FIELDS[name]}=(x, y)")
        if name not in known:
            of = (
                "keras.Model.fit takes no" if fit is not None else "only a Keras model is given to fit; unread would be"
            )
            raise CaseError(f"{where}: fit_kwargs: {of} {brief(name)}{did_you_mean(name, set(known))}")
