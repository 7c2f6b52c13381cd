"""What `find_duplicates` was asked for, checked before anything is read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import timedelta
from numbers import Real
from typing import Any

import numpy as np

from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.core.foreign import brief, describe
from pytest_overfit.duplicates.copies import CountSamples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for; see `find_duplicates`."""

    given: Mapping[str, Any]
    label: Any = None
    group: Any = None
    time: Any = None
    gap: Any = 0
    key: Any = None
    features: Any = None
    near: str | bool = "auto"
    windows: str | bool = "auto"
    text: str = "exact"
    allow: Any = ()
    executor: Any = None
    max_samples: int | None = None
    batched: bool | None = None
    seed: int = 0
    #: `progress(count, of)`, called while samples are read; `of` is None where that is unknown
    progress: CountSamples = lambda count, of: None

    def __post_init__(self) -> None:
        _one_of("text", self.text, ("exact", "normalized"))
        _one_of("near", self.near, ("auto", True, False))
        _one_of("windows", self.windows, ("auto", True, False))
        _one_of("batched", self.batched, (None, True, False))
        for what in ("label", "group", "time"):
            _check_fact(what, getattr(self, what), self.given)
        _check_gap(self.gap, self.time)
        _check_features(self.features, self.given)
        if self.executor is not None and not callable(getattr(self.executor, "map", None)):
            raise CaseError(
                f"executor= is {describe(self.executor)}; expected something with a method `map`, e.g. "
                "concurrent.futures.ProcessPoolExecutor()"
            )
        most = self.max_samples
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise CaseError(f"max_samples: expected a whole number of 1 or more, got {brief(most)}")


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if not any(value is each or (isinstance(each, str) and value == each) for each in known):
        raise CaseError(f"{name}={brief(value)}{did_you_mean(value, map(str, known))}")


def _check_fact(what: str, fact: Any, given: Mapping[str, Any]) -> None:
    if fact is None or isinstance(fact, str) or callable(fact):
        return
    if not isinstance(fact, Mapping):
        raise CaseError(
            f"{what}= is {describe(fact)}; expected the name of a column, a function of a sample, or a dict with one "
            f"array a split; write {what}={{'train': ..., 'test': ...}}"
        )
    _check_splits(what, fact, given)


def _check_splits(what: str, fact: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for name in fact:
        if name not in given:
            raise CaseError(f"{what}=: there is no split {brief(name)}{did_you_mean(name, given)}")


def _check_gap(gap: Any, time: Any) -> None:
    if isinstance(gap, (timedelta, np.timedelta64)):
        good = bool(np.timedelta64(gap) >= np.timedelta64(0))  # NaT is not
    else:
        good = isinstance(gap, Real) and not isinstance(gap, bool) and 0 <= float(gap) < math.inf
    if not good:
        raise CaseError(f"gap={brief(gap)}; expected a length of time, or a number in the unit of time=, of 0 or more")
    if time is None and gap:
        raise CaseError(f"gap={brief(gap)} is given without time=, which says when each sample was taken")


def _check_features(features: Any, given: Mapping[str, Any]) -> None:
    if features is None:
        return
    if not isinstance(features, Mapping):
        raise CaseError(f"features= is {describe(features)}; expected a dict of embeddings, one array a split")
    _check_splits("features", features, given)
    if len(features) < 2:
        raise CaseError("features= is given for one split alone, and embeddings are compared between two; give both")


def shown(label: Any) -> Any:
    """A label as a plain value."""
    return label if label is None or isinstance(label, (str, bool, int, float)) else str(label)
