"""Are the given facts (label, group, time) there? What cannot be used is an error, what is missing is counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import brief
from pytest_overfit.duplicates.alignment import Opened
from pytest_overfit.duplicates.copies import Copies
from pytest_overfit.duplicates.near.groups import is_missing
from pytest_overfit.duplicates.request import Request


def missing_facts(request: Request, opened: Opened, copies: Copies) -> list[list[str]]:
    """What lacks, as code and message. Raises `CaseError` for a fact that cannot be used."""
    for what in ("label", "group", "time"):
        _check_lengths(what, getattr(request, what), opened, copies)
    found = list(_missing_labels(request.label, copies))
    for what, values in (("group", copies.groups), ("time", copies.times)):
        if getattr(request, what) is not None:
            given = _usable(what, getattr(request, what), values, copies)
            if what == "group":
                _check_kinds(given)
            found += _missing_values(what, values, copies)
    return found


def _check_lengths(what: str, fact: Any, opened: Opened, copies: Copies) -> None:
    for name, values in fact.items() if isinstance(fact, Mapping) else ():
        count = copies.counts[name]
        if len(values) != count and not opened.splits[name].cut and name not in dict(copies.doubts):
            raise CaseError(f"{what}={{{brief(name)}: ...}} has {len(values)} values, but {name} has {count} samples")


def _missing_labels(fact: Any, copies: Copies) -> Iterator[list[str]]:
    if fact is None:
        return
    bare = [name for name, label in copies.labels.items() if label is None]
    if len(bare) == len(copies.labels):
        raise CaseError(f"label={_written(fact)} gives no label in {_listed(bare)}; give what holds the labels")
    for name in bare:
        yield [f"label_missing.{name}", f"label= gives no label in {name}: its labels are not compared"]


def _usable(
    what: str, fact: Any, values: Mapping[str, Sequence[Any] | None], copies: Copies
) -> dict[str, Sequence[Any]]:
    """The splits that have the fact: each must have a value of it, and there must be two."""
    given = {name: each for name in copies.counts if (each := values.get(name)) is not None and len(each)}
    empty = [name for name, each in given.items() if all(map(is_missing, each))]
    if empty:
        raise CaseError(
            f"{what}={_written(fact)} gives nothing for any sample of {_listed(empty)} (None, NaN or empty), so it "
            f"cannot be compared; give a {what} for every sample"
        )
    if len(given) < 2:
        raise CaseError(
            f"{what}= is given for {_listed(given) or 'no split'} alone, and it is compared between two; give it for "
            f"{_listed(name for name in copies.counts if name not in given)} too"
        )
    return given


def _check_kinds(groups: Mapping[str, Sequence[Any]]) -> None:
    kinds = {name: {_kind(value) for value in each if not is_missing(value)} for name, each in groups.items()}
    if not set.intersection(*kinds.values()):
        listed = ", ".join(f"{name} {' and '.join(sorted(kind))}" for name, kind in kinds.items())
        raise CaseError(f"group= is of different kinds ({listed}), so no two can be equal; write them alike")


def _missing_values(what: str, values: Mapping[str, Sequence[Any] | None], copies: Copies) -> Iterator[list[str]]:
    for name, count in copies.counts.items():
        each = values.get(name)
        if each is None:
            yield [f"{what}_missing.{name}", f"{what}= has nothing for {name}: it is not compared there"]
        elif lacking := sum(map(is_missing, each)):
            text = f"{lacking} of {count} rows of {name} have no {what} (None, NaN or empty): not compared"
            yield [f"{what}_missing.{name}", text]


def _kind(value: Any) -> str:
    if isinstance(value, (bool, int, float)):
        return "numbers"
    return "text" if isinstance(value, str) else type(value).__name__


def _written(fact: Any) -> str:
    return repr(fact) if isinstance(fact, str) else "..."


def _listed(names: Any) -> str:
    return " and ".join(names)
