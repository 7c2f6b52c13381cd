"""What of a batch are inputs, and what are targets."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from pytest_overfit.core import foreign
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.layout import is_plain
from pytest_overfit.data.tree import is_leaf, parts_of, rebuilt

#: names of the part of a dict that a loss compares outputs with
TARGETS = ("label", "labels", "target", "targets", "y")


def split(given: Any, case: Case) -> tuple[Any, Any, Any]:
    """Inputs, targets and weights of a batch; targets are None where a step or the model itself sorts them out."""
    whole = case.loss is None or case.step is not None
    if isinstance(given, (tuple, list)) and len(given) == 2 and not is_plain(given):
        return given[0], given[1], None
    if isinstance(given, (tuple, list)) and len(given) == 3 and not is_plain(given) and not hasattr(given, "_fields"):
        return given[0], given[1], given[2]
    named = _named(given)
    if named is not None:
        # a step gets what its own loop would get; models and losses get a plain dict
        plain = isinstance(given, Mapping) and case.step is None
        return (named if plain else given, None, None) if whole else _by_name(given, named, case)
    if isinstance(given, (tuple, list)) and len(given) == 1:
        given = given[0]
    elif not is_leaf(given) and not isinstance(given, list):
        raise CaseError(_no_pair(given, case))
    if not whole:
        raise CaseError(
            f"{_no_pair(given, case)}; where the inputs are the targets, as for an autoencoder, write (x, x)"
        )
    return given, None, None


def names_targets(key: Any) -> bool:
    """True for the names that targets usually have among the parts of a batch."""
    name = str(key).lower()
    return name in TARGETS or "label" in name or "target" in name


def _named(given: Any) -> dict[Any, Any] | None:
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        return dict(zip(given._fields, given, strict=True))
    return parts_of(given)


def _by_name(given: Any, named: dict[Any, Any], case: Case) -> tuple[Any, Any, Any]:
    """One part is called as targets are; the rest are the inputs."""
    named = {key: each for key, each in named.items() if each is not None}
    found = [key for key in named if key in TARGETS]
    if len(found) != 1 or len(named) < 2:
        raise CaseError(_unnamed(given, list(named), found, case))
    targets = named.pop(found[0])
    data = named if isinstance(given, Mapping) else {key: each for key, each in named.items() if not _is_note(each)}
    if len(data) == 1:
        return next(iter(data.values())), targets, None
    if isinstance(given, (Mapping, tuple)):
        return named, targets, None
    return rebuilt(given, {**named, found[0]: None}), targets, None


def _is_note(value: Any) -> bool:
    """A field of a batch object that is not data."""
    return isinstance(value, (str, numbers.Number))


def _unnamed(given: Any, names: list[Any], found: list[Any], case: Case) -> str:
    listed = ", ".join(map(repr, names[:8]))
    why = f"{' and '.join(map(repr, found))} are both names of targets" if found else "none is named as its targets"
    if found and len(names) == 1:
        why = "it has no inputs besides them"
    first, last = (names[0], names[-1]) if names else ("x", "y")
    return (
        f"Case {case.name!r}: a batch is {foreign.describe(given)} with the parts {listed}; the loss needs targets, "
        f"and {why} ({', '.join(TARGETS)}); write the pair, e.g. batch=lambda: (data[{first!r}], data[{last!r}]), "
        "where the first may be a dict of several inputs"
    )


def _no_pair(given: Any, case: Case) -> str:
    return (
        f"Case {case.name!r}: a batch is {foreign.describe(given)}; expected a pair (inputs, targets), "
        "for Keras also (inputs, targets, weights); write batch=lambda: (x, y), or ((x1, x2), y) for two inputs"
    )
