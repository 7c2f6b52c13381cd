"""What a team writes as a bound: a pair, `approx`, a function, chance or theory with a margin, `calibrated`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.foreign import brief, describe

_FORMS = (
    "write (low, high) with None for an open end, at_least(0.9), at_most(0.1), pytest.approx(2.3, abs=0.2), "
    "chance + 0.2, calibrated, or a function value -> bool"
)


@dataclasses.dataclass(frozen=True)
class Anchor:
    """An end of a bound that is known only once the data are: `chance + 0.2`, `theory - 0.3`."""

    name: str
    plus: float = 0.0

    def __add__(self, margin: float) -> Anchor:
        return Anchor(self.name, self.plus + margin)

    def __sub__(self, margin: float) -> Anchor:
        return self + -margin

    __radd__ = __add__

    def __repr__(self) -> str:
        return self.name if not self.plus else f"{self.name} {'+' if self.plus > 0 else '-'} {abs(self.plus):g}"


#: the score of the best constant answer on the validation split
chance = Anchor("chance")

#: the loss of an uninformed model: ln C of C classes, ln 2, the mean squared target
theory = Anchor("theory")

#: an end that `pytest --overfit-calibrate` measures and a file keeps; alone it is both ends of a bound
calibrated = Anchor("calibrated")

#: the loss that the best answer which ignores the input has: entropy of the class frequencies, variance of the targets
constant_loss = Anchor("constant_loss")

End = float | Anchor | None


@dataclasses.dataclass(frozen=True)
class Bound:
    """A checked bound. `test` replaces both ends."""

    low: End = None
    high: End = None
    test: Callable[[float], Any] | None = None
    #: where it was written
    source: str = ""
    #: True or False was written, about a quantity that holds or does not
    yes_no: bool = False

    def __str__(self) -> str:
        if self.test is not None:
            return f"{getattr(self.test, '__name__', 'a function')}(value)"
        if self.yes_no:
            return "yes" if self.low == 1 else "no"
        if self.low == self.high == calibrated:
            return "calibrated"
        if self.low is None or self.high is None:
            return f">= {_short(self.low)}" if self.high is None else f"<= {_short(self.high)}"
        return f"{_short(self.low)} to {_short(self.high)}" if self.low != self.high else f"= {_short(self.low)}"

    def anchors(self) -> set[str]:
        """Names of what must be measured before the ends are numbers."""
        return {each.name for each in (self.low, self.high) if isinstance(each, Anchor)}


def _short(end: End) -> str:
    return f"{end:.6g}" if isinstance(end, (int, float)) else str(end)


def at_least(low: Any) -> tuple[Any, None]:
    """A bound below: `val_score=at_least(0.9)`, `at_least(chance + 0.3)`."""
    return low, None


def at_most(high: Any) -> tuple[None, Any]:
    """A bound above: `gap=at_most(0.1)`."""
    return None, high


@dataclasses.dataclass(frozen=True)
class Written:
    """A bound as it was written, and where."""

    given: Any
    source: str


def with_bounds(case: Case, probe: str, given: Mapping[str, Any], source: str) -> Case:
    """The case with further bounds among its options for this probe; they win over those that it has."""
    own = case.options.get(probe, {})
    if not isinstance(own, Mapping):
        raise CaseError(
            f"Case {case.name!r}: options['bounds'] is {describe(own)}; expected a dict, e.g. {{'val_score': (0.9, 1)}}"
        )
    added = {name: Written(value, source) for name, value in given.items()}
    return dataclasses.replace(case, options={**case.options, probe: {**own, **added}})


def bound_of(given: Any, where: str) -> Bound:
    """Check one bound; `where` begins the message of the `CaseError` for one that cannot be used."""
    source = "case"
    if isinstance(given, Written):
        given, source = given.given, given.source
    return dataclasses.replace(_parsed(given, where), source=source)


def _parsed(given: Any, where: str) -> Bound:
    if isinstance(given, bool):
        return Bound(float(given), float(given), yes_no=True)
    if isinstance(given, Anchor):
        end = _end(given, where)
        return Bound(end, end if end == calibrated else None)
    if isinstance(given, (int, float)):
        return Bound(_end(given, where), _end(given, where))
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return _pair(_end(given[0], where), _end(given[1], where), where)
    if hasattr(given, "expected"):
        return _approx(given, where)
    if callable(given):
        return Bound(test=given)
    raise CaseError(f"{where}: expected a bound, got {_shown(given)}; {_FORMS}")


def _approx(given: Any, where: str) -> Bound:
    """The bound of a `pytest.approx`, recognised by its attributes: its class is not public."""
    try:
        middle, around = _end(given.expected, where), _end(given.tolerance, where)
    except (ValueError, AttributeError) as error:
        if isinstance(error, CaseError):
            raise
        raise CaseError(f"{where}={brief(given)}: {error}; {_FORMS}") from None
    if not (isinstance(middle, float) and isinstance(around, float)):
        raise CaseError(f"{where}: expected a bound, got {brief(given)}; {_FORMS}")
    return Bound(middle - around, middle + around)


def _pair(low: End, high: End, where: str) -> Bound:
    if low is None and high is None:
        raise CaseError(f"{where}=(None, None) bounds nothing; {_FORMS}")
    if isinstance(low, float) and isinstance(high, float) and low > high:
        raise CaseError(f"{where}=({low:g}, {high:g}): low is above high; write ({high:g}, {low:g})")
    if isinstance(low, Anchor) and isinstance(high, Anchor) and low.name == high.name and low.plus > high.plus:
        raise CaseError(f"{where}=({low}, {high}): low is above high; write ({high}, {low})")
    return Bound(low, high)


def _end(given: Any, where: str) -> End:
    if given is None:
        return None
    number = given.plus if isinstance(given, Anchor) else given
    if isinstance(given, Anchor) and given.name == calibrated.name and given != calibrated:
        raise CaseError(
            f"{where}: {given}: a calibrated end has no margin, its rate of false alarms would not hold; write "
            "calibrated, at_least(calibrated) or at_most(calibrated)"
        )
    if isinstance(number, bool) or not _is_number(number):
        raise CaseError(f"{where}: an end of a bound: expected a finite number, got {_shown(given)}; {_FORMS}")
    if not math.isfinite(number):
        raise CaseError(f"{where}: an end of a bound: expected a finite number, or None (open), got {number}")
    return given if isinstance(given, Anchor) else float(given)


def _is_number(value: Any) -> bool:
    """Also numpy's scalars and arrays of one number, which know `__float__`; no strings."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, (str, bytes))


def _shown(given: Any) -> str:
    return brief(given) if isinstance(given, (str, int, float, Anchor)) else describe(given)
