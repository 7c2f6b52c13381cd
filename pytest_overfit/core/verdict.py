"""What a probe answers: findings, diagnoses and the verdict over them, as plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

Outcome = Literal["passed", "failed", "inconclusive", "not_applicable"]
FindingOutcome = Literal["passed", "failed", "inconclusive", "warning", "note"]

#: which way a number is better; "": not known, so that any change counts
Better = Literal["lower", "higher", ""]

#: how sure a diagnosis is: the changed program fits, an invariant is seen to be broken, or signs speak for it
Confidence = Literal["proved", "shown", "likely"]

#: version of the dict form; a reader of a newer form must refuse it instead of guessing. 2: a diagnosis' confidence is
#: a word; it was a number
SCHEMA = 2

#: containers in containers, at most, in a plain form
_DEEPEST = 50

#: outcomes of findings that show a fault, the gravest first
_SHOWING = ("failed", "inconclusive", "warning")


@dataclasses.dataclass(frozen=True)
class Cause:
    """The fault that a finding shows, by its name in the fault vocabulary, and what to change."""

    fault: str
    cure: str
    confidence: Confidence = "shown"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One observed number and the limit it is held against."""

    #: what was measured, a short name that never changes its meaning
    name: str
    #: the measurement; None when it could not be made
    value: float | str | None
    #: the limit it was held against; None for a fact without a limit
    limit: float | str | None = None
    #: how value and limit must stand to each other for the finding to pass
    relation: Literal["<=", ">=", "=", ""] = ""
    #: where the limit was written: call, marker, case, ini, default, or the theory it comes from
    source: str = ""
    outcome: FindingOutcome = "note"
    #: one sentence for people
    message: str = ""
    #: which way the value is better, for baselines; not a part of the plain form
    better: Better = dataclasses.field(default="", compare=False, repr=False)
    #: the fault that it shows where it did not pass; becomes a diagnosis, and is not a part of the plain form
    cause: Cause | None = dataclasses.field(default=None, compare=False, repr=False)

    @classmethod
    def note(cls, message: str, name: str = "remark", value: float | str | None = None) -> Finding:
        """A fact that decides nothing."""
        return cls(name=name, value=value, message=message)

    @classmethod
    def failed(cls, name: str, value: float | str | None, message: str, cause: Cause | None = None) -> Finding:
        """A fault that was seen, with no limit to hold it against."""
        return cls(name=name, value=value, outcome="failed", message=message, cause=cause)

    def diagnosis(self) -> Diagnosis | None:
        """The fault that it shows, with its message as the evidence; None: it passed, or shows none."""
        if self.cause is None or self.outcome not in _SHOWING:
            return None
        found = self.cause
        return Diagnosis(fault=found.fault, evidence=self.message, cure=found.cure, confidence=found.confidence)


@dataclasses.dataclass(frozen=True)
class BaselineNumber:
    """One number of a verdict that a baseline keeps; a value of None, or one that is not finite, is not kept."""

    name: str
    value: Any
    better: Better = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A fault by its name in the fault vocabulary, what was measured of it, and what to change."""

    fault: str
    evidence: str
    cure: str
    confidence: Confidence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer of one probe on one case, made of plain values only."""

    probe: str
    case: str
    framework: str
    outcome: Outcome
    #: one line; its first 80 columns make sense alone
    summary: str
    findings: tuple[Finding, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    #: the user's seed the runs were derived from, one for each run
    seeds: tuple[int, ...] = ()
    #: optimizer steps made
    steps: int = 0
    seconds: float = 0.0
    #: training loss of every step of the first run
    losses: tuple[float, ...] = ()
    #: plain values of this probe
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True for the outcome `passed` and for nothing else."""
        return self.outcome == "passed"

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form: JSON values only, non-finite floats as the strings 'nan', 'inf', '-inf'."""
        form = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for part in ("findings", "diagnoses"):
            form[part] = [dataclasses.asdict(each) for each in form[part]]
        for finding in form["findings"]:
            del finding["better"], finding["cause"]
        form["schema"] = SCHEMA
        plain = to_plain(form)
        if not isinstance(plain, dict):  # pragma: no cover - asdict gives a dict
            raise TypeError("a verdict's plain form is a dict")
        return plain

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> Verdict:
        """Rebuild a verdict from `to_dict`'s form; refuses a form that is newer than this version knows."""
        if form.get("schema", SCHEMA) > SCHEMA:
            raise ValueError(f"verdict has schema {form['schema']}, this version reads up to {SCHEMA}")
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in form.items() if key in known}
        values["findings"] = tuple(
            Finding(**{**each, "value": number(each["value"]), "limit": number(each["limit"])})
            for each in values.get("findings", ())
        )
        values["diagnoses"] = tuple(_diagnosis(each) for each in values.get("diagnoses", ()))
        values["seeds"] = tuple(values.get("seeds", ()))
        values["losses"] = tuple(float(each) for each in values.get("losses", ()))
        return cls(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a probe's pure half decides; the run puts it into a verdict."""

    outcome: Outcome
    summary: str
    findings: tuple[Finding, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()

    @classmethod
    def of(
        cls,
        findings: Iterable[Finding],
        otherwise: Callable[[], str],
        outcome: Outcome = "passed",
        telling: Callable[[Sequence[Finding]], Finding] = lambda decisive: decisive[0],
    ) -> Judgement:
        """The verdict over findings: failed where one failed, else inconclusive where one is, else `outcome`.

        The first of those that decide is the summary, or the one that `telling` picks out of them; where none does,
        the summary is `otherwise()`.
        """
        found = tuple(findings)
        shown = diagnoses_of(found)
        outcomes: tuple[Outcome, ...] = ("failed", "inconclusive")
        for decided in outcomes:
            decisive = [finding for finding in found if finding.outcome == decided]
            if decisive:
                return cls(outcome=decided, summary=telling(decisive).message, findings=found, diagnoses=shown)
        return cls(outcome=outcome, summary=otherwise(), findings=found, diagnoses=shown)


def diagnoses_of(findings: Iterable[Finding]) -> tuple[Diagnosis, ...]:
    """What the findings show, those first that decide; each fault with one cure once."""
    ordered = sorted((each for each in findings if each.outcome in _SHOWING), key=lambda e: _SHOWING.index(e.outcome))
    found = [shown for each in ordered if (shown := each.diagnosis()) is not None]
    once: dict[tuple[str, str], Diagnosis] = {}
    for diagnosis in found:
        once.setdefault((diagnosis.fault, diagnosis.cure), diagnosis)
    return tuple(once.values())


def _diagnosis(form: Mapping[str, Any]) -> Diagnosis:
    """Schema 1 had shares: of the planted twins of a fault for which the same evidence held."""
    confidence = form["confidence"]
    if not isinstance(confidence, str):
        confidence = "shown" if confidence >= 0.5 else "likely"
    return Diagnosis(**{**form, "confidence": confidence})


def number(value: Any) -> Any:
    """Turn the JSON spelling of a non-finite float back into the float."""
    return float(value) if value in ("nan", "inf", "-inf") else value


def to_plain(value: Any, lost: list[str] | None = None, place: str = "", inside: tuple[int, ...] = ()) -> Any:
    """Reduce a value to what strict JSON and other processes can hold; numpy scalars become Python numbers.

    What is not finite becomes text, and so does what no file could hold: an escape in place of half a character, its
    type in place of an object, whose `place` is then added to `lost`.
    """
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, (bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    if id(value) not in inside and len(inside) < _DEEPEST:
        inside = (*inside, id(value))
        if isinstance(value, Mapping):
            return {
                to_plain(str(key)): to_plain(each, lost, f"{place}[{key!r:.40}]", inside) for key, each in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [to_plain(each, lost, f"{place}[{number}]", inside) for number, each in enumerate(value)]
        if hasattr(value, "tolist"):
            return to_plain(value.tolist(), lost, place, inside)
    if lost is not None:
        lost.append(f"{place} ({type(value).__name__})")
    return f"({type(value).__name__})"
