"""Ends of bounds that are written as `calibrated`: measured now, or read and checked."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pytest_overfit.core.bounds import Bound, calibrated
from pytest_overfit.core.calibration import Calibration
from pytest_overfit.core.errors import CaseError
from pytest_overfit.probes.bounds.quantities.registry import Quantity
from pytest_overfit.probes.bounds.subject import Found
from pytest_overfit.probes.bounds.tolerance import ends_of, seeds_wanted


@dataclasses.dataclass(frozen=True)
class Asked:
    """One bound with what measures it."""

    quantity: Quantity
    layer: str
    bound: Bound
    where: str
    #: the bound as it reads
    shown: str
    #: ends that seeds of a calibration set, of "low" and "high"
    calibrated: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.quantity.name}[{self.layer}]" if self.layer else self.quantity.name

    @property
    def open_ends(self) -> tuple[str, ...]:
        """Ends that are written as `calibrated`."""
        ends = {"low": self.bound.low, "high": self.bound.high}
        return tuple(name for name, end in ends.items() if end == calibrated)

    @property
    def written_ends(self) -> tuple[str, ...]:
        """Ends that are not left open."""
        return tuple(name for name in ("low", "high") if getattr(self.bound, name) is not None)

    def with_ends(self, entry: Mapping[str, Any]) -> Asked:
        """The same with numbers for ends; what is the same for every seed is then an ordinary bound."""
        ends: dict[str, Any] = {name: float(entry[name]) for name in self.open_ends}
        bound = dataclasses.replace(self.bound, **ends)
        if self.quantity.once:
            return dataclasses.replace(self, bound=bound, shown=f"{bound} (calibrated)")
        shown = f"{bound} (calibrated on {entry['seeds']} seeds)"
        return dataclasses.replace(self, bound=bound, shown=shown, calibrated=self.open_ends)


class CalibrationLimits(Protocol):
    """The limits that decide how many seeds a calibration needs."""

    @property
    def seeds(self) -> int: ...
    @property
    def false_alarms(self) -> float: ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """The calibrated bounds of one verdict, and what must be the same when they are judged."""

    case: str
    asked: Sequence[Asked]
    limits: CalibrationLimits
    #: limits that the quantities depend on: epochs, k, steps (None: those of `overfit_batch`)
    same: Mapping[str, int | None]

    @property
    def seeds(self) -> int:
        """Seeds of calibration that the stated rate needs."""
        ends = sum(len(each.open_ends) for each in self.asked if not each.quantity.once)
        return seeds_wanted(self.limits.false_alarms, ends, self.limits.seeds)


def measured_now(plan: Plan, measure: Callable[[int, Sequence[Asked]], Sequence[Found]]) -> dict[str, Any]:
    """Name -> entry of the file, from new seeds; `CaseError` where one of them gives no number.

    `measure(seed's number, bounds)` gives one measurement a bound.
    """
    found: dict[str, list[Found]] = {each.name: [] for each in plan.asked}
    for number in range(plan.seeds):
        asked = [each for each in plan.asked if not (number and each.quantity.once)]
        for end, measured in zip(asked, measure(number, asked), strict=True):
            if measured.value is None or not math.isfinite(measured.value):
                why = measured.why or f"it is {measured.value}"
                raise CaseError(
                    f"{end.where} cannot be calibrated: {why} (seed {number + 1} of {plan.seeds}); nothing was written"
                )
            found[end.name].append(measured)
    return {each.name: _entry(each, found[each.name], plan) for each in plan.asked}


def _entry(asked: Asked, found: Sequence[Found], plan: Plan) -> dict[str, Any]:
    values = [float(each.value) for each in found if each.value is not None]
    if asked.quantity.once:
        low, high, rate = values[0], values[0], 0.0
    else:
        low, high = ends_of(values, max(each.resolution for each in found))
        rate = plan.limits.false_alarms
    text = {"mean": _short(statistics.fmean(values)), "sd": _short(statistics.pstdev(values))}
    return {"low": low, "high": high, "seeds": len(values), "false_alarms": rate, **text, **plan.same}


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def read_back(plan: Plan, calibration: Calibration) -> Mapping[str, Any]:
    """The entries of the file, or a `CaseError` with the command that makes it for what is missing or does not fit."""
    entries = calibration.read(plan.case)
    where, make = calibration.path(plan.case), f"make it with: {calibration.command()}"
    missing = [each.name for each in plan.asked if each.name not in entries]
    if missing:
        names = ", ".join(missing)
        raise CaseError(f"Case {plan.case!r}: {names}: calibrated, but there is no calibration in {where}; {make}")
    for each in plan.asked:
        _check(each, entries[each.name], plan, where, make)
    return entries


def _check(asked: Asked, entry: Mapping[str, Any], plan: Plan, where: str, make: str) -> None:
    then = {name: entry[name] for name in plan.same}
    if then != plan.same:
        was, now = (", ".join(f"{name}={value}" for name, value in each.items()) for each in (then, plan.same))
        raise CaseError(
            f"{asked.where}: {where} was calibrated with {was}, this test has {now}; {make} (two tests with other "
            "limits need cases of two names)"
        )
    if not asked.quantity.once and entry["seeds"] < plan.seeds:
        raise CaseError(
            f"{asked.where}: {where} was calibrated on {entry['seeds']} seeds, but false_alarms="
            f"{plan.limits.false_alarms:g} for all calibrated bounds of this test together needs {plan.seeds}; {make}"
        )


def same_everywhere(entries: Mapping[str, Any], plan: Plan) -> list[str]:
    """What is worth saying of a calibration: a quantity that no seed changed."""
    return [
        f"{each.name} was the same for every seed: any other value will fail. Does the model, or its data, fix a seed?"
        for each in plan.asked
        if not each.quantity.once and entries[each.name]["sd"] == 0
    ]
