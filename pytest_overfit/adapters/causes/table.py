"""A table of patterns: what a message says, and the fault that it shows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Generic, TypeVar

from pytest_overfit.core.verdict import Diagnosis


@dataclasses.dataclass(frozen=True)
class Crash:
    """An exception of the user's code, and the call of ours that it came out of, such as `Case 'cnn': the loss`."""

    error: Exception
    call: str = ""

    @property
    def text(self) -> str:
        """The whole message, notes left out."""
        return str(self.error)

    @property
    def kind(self) -> str:
        return type(self.error).__name__

    @property
    def first_line(self) -> str:
        return next(iter(self.text.strip().splitlines()), "")

    @property
    def trains(self) -> bool:
        """Raised by the program that is trained, and not by a score, a metric or the reading of data."""
        return _BESIDE.search(self.call) is None

    def frames(self) -> Iterator[FrameType]:
        """From the outermost frame to the one that raised."""
        trace = self.error.__traceback__
        while trace is not None:
            yield trace.tb_frame
            trace = trace.tb_next


#: calls beside the training
_BESIDE = re.compile(r"\b(score|metrics|callbacks|reading|dataset|loader|batch function)\b")

S = TypeVar("S", bound=Crash)


@dataclasses.dataclass(frozen=True)
class MessageRule(Generic[S]):
    """A message of this pattern shows what `found` makes of it; None: it does not, here."""

    pattern: re.Pattern[str]
    found: Callable[[S, re.Match[str]], Diagnosis | None]


def first(rules: Sequence[MessageRule[S]], crash: S) -> Diagnosis | None:
    """What the first rule that has an answer says."""
    for rule in rules:
        match = rule.pattern.search(crash.text)
        found = rule.found(crash, match) if match is not None else None
        if found is not None:
            return found
    return None


def shown(fault: str, evidence: str, cure: str) -> Diagnosis:
    """A fault that the message itself, or what it was raised on, shows."""
    return Diagnosis(fault=fault, evidence=evidence, cure=cure, confidence="shown")


def likely(fault: str, evidence: str, cure: str) -> Diagnosis:
    """A fault that signs speak for."""
    return Diagnosis(fault=fault, evidence=evidence, cure=cure, confidence="likely")


def on(pattern: str, found: Callable[[S, re.Match[str]], Diagnosis | None]) -> MessageRule[S]:
    """A rule for messages of this pattern."""
    return MessageRule(re.compile(pattern), found)


def says(pattern: str, fault: str, cure: str) -> MessageRule[S]:
    """The message alone is the evidence."""
    return on(pattern, lambda crash, _: shown(fault, crash.first_line, cure))
