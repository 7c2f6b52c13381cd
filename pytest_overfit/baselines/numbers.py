"""The numbers of a verdict that another machine would get as well, and which way they are better.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pytest_overfit.core.errors import CaseError

Form = Mapping[str, Any]
Better = Literal["lower", "higher", ""]

#: what of a number is kept: further digits differ between processors; whole numbers are kept whole
_DIGITS = 6

#: words that say which way a quantity is better, the first that is found in its name counts
_BETTER: tuple[tuple[str, Better], ...] = (
    ("score_difference", "higher"),
    ("loss", "lower"),
    ("gap", "lower"),
    ("steps", "lower"),
    ("copies", "lower"),
    ("conflict", "lower"),
    ("shared_groups", "lower"),
    ("time_order", "lower"),
    ("windows", "lower"),
    ("units", "lower"),
    ("score", "higher"),
    ("accuracy", "higher"),
    ("agreement", "higher"),
    ("near_rows", "higher"),
    ("samples_per_parameter", "higher"),
    ("determinism", "higher"),
    ("eval_twice", "higher"),
    ("save_load", "higher"),
    ("invariance", "higher"),
    ("float64", "higher"),
    ("accumulation", "higher"),
    ("calibration_error", "lower"),
    ("memory_peak", "lower"),
    ("step_time_ratio", "lower"),
)

#: quantities that a clock has measured: another machine, or another day, would get others
_TIMED = ("step_time_ratio",)


def better(quantity: str) -> Better:
    """Which way a quantity is better; "": not known, so that any change counts."""
    return next((way for word, way in _BETTER if word in quantity), "")


def numbers_of(form: Form) -> dict[str, float]:
    """Name -> finite number, of a verdict's plain form: what its probe sums up, then its findings with a limit.

    Nothing in it depends on a clock.
    """
    found: dict[str, float] = {}
    for name, value in (*_of_probe(form), *_of_findings(form)):
        if isinstance(value, (int, float)) and math.isfinite(value):
            found.setdefault(
                name, int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.{_DIGITS}g}")
            )
    return found


def _of_findings(form: Form) -> Iterator[tuple[str, Any]]:
    for each in form["findings"]:
        if each["limit"] is not None and each["name"] not in _TIMED:
            yield each["name"], each["value"]


def _of_probe(form: Form) -> Iterator[tuple[str, Any]]:
    data = form["data"]
    match form["probe"]:
        case "overfit_batch":
            yield "steps_to_memorise", form["steps"]
        case "generalization_gap":
            yield from _of_runs(data["runs"])
        case "regularization":
            yield from _of_runs(data["regularized"])
        case "early_accuracy":
            for name in ("train", "val", "train_loss", "val_loss"):
                curve = data.get("curves", {}).get(name) or [None]
                yield (name if "loss" in name else f"{name}_score"), curve[-1]
        case "split_duplicates":
            yield from _of_copies("exact_copies", data.get("across", ()))
            yield from _of_copies("near_copies", data.get("near", ()))


def _of_runs(runs: Sequence[Form]) -> Iterator[tuple[str, Any]]:
    for split in ("train", "val"):
        for name in ("score", "loss"):
            yield f"{split}_{name}", _mean(run[split][name] for run in runs)
    scores = [(run["train"]["score"], run["val"]["score"]) for run in runs]
    yield "gap", _mean(None if None in pair else pair[0] - pair[1] for pair in scores)


def _of_copies(name: str, pairs: Sequence[Form]) -> Iterator[tuple[str, Any]]:
    for each in pairs:
        if each.get("testable", True):
            yield f"{name}_count.{each['in']}.{each['of']}", each["rows"]


def _mean(values: Iterable[Any]) -> float | None:
    kept = list(values)
    known = [each for each in kept if isinstance(each, (int, float))]
    return sum(known) / len(known) if known and len(known) == len(kept) else None


@dataclasses.dataclass(frozen=True)
class Rule:
    """How much worse a quantity may be than its baseline."""

    quantity: str
    amount: float
    relative: bool

    def names(self, probe: str, quantity: str) -> bool:
        """The rule is about this quantity, of any probe or of the one that it names."""
        return self.quantity in (quantity, f"{probe}.{quantity}")

    def broken_by(self, before: float, now: float) -> bool:
        """True where the number is worse than allowed; rounding to the digits that are kept is no change."""
        worse = {"lower": now - before, "higher": before - now, "": abs(now - before)}[better(self.quantity)]
        allowed = self.amount * abs(before) if self.relative else self.amount
        rounded = not (float(before).is_integer() and float(now).is_integer())
        return worse > allowed + (10.0 ** (1 - _DIGITS) * abs(before) if rounded else 0.0)

    def __str__(self) -> str:
        return f"{self.quantity}:{100 * self.amount:g}%" if self.relative else f"{self.quantity}:{self.amount:g}"


def rule_of(text: str) -> Rule:
    """A rule out of `steps_to_memorise:50%` or `val_score:0.02`; `CaseError` for anything else."""
    parts = re.fullmatch(r"([\w.\[\] ]+):(\d+(?:\.\d*)?|\.\d+)(%?)", text.strip())
    if parts is None:
        raise CaseError(
            f"--overfit-compare-fail={text}: a quantity and how much worse it may be are wanted; write "
            "steps_to_memorise:50% or val_score:0.02"
        )
    amount, relative = float(parts[2]), bool(parts[3])
    return Rule(parts[1], amount / 100 if relative else amount, relative)
