"""What can go wrong, kept apart: a refuted model, a misuse, a crash of the user's own program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_overfit.core.verdict import Diagnosis, Verdict


class OverfitError(Exception):
    """Base of every error of this package except `ProbeFailed`."""

    #: what is wrong with the program, where the error shows it
    diagnoses: tuple[Diagnosis, ...] = ()


class CaseError(OverfitError, ValueError):
    """The case, a limit or a probe name cannot be used as it was written.

    The message says what was given, what was expected and what to write instead.
    """

    #: the option of a probe that would declare it; whoever knows the probes writes where it belongs
    option: str | None = None


class ProgramError(CaseError):
    """The user's own factory, model, loss, optimizer or step raised.

    The message names the call that raised, the user's own frames and, where a layer refused its input,
    the layer, the shape it got and the shape it wanted. The original exception is `__context__`.
    """


class NotApplicable(OverfitError):  # noqa: N818 - not an error of anyone's
    """The probe's question makes no sense for this case; under pytest the test is skipped with this reason."""


class ProbeFailed(AssertionError):  # noqa: N818 - a refuted model
    """A probe's verdict was `failed` or `inconclusive`; the verdict is the attribute `verdict`."""

    def __init__(self, message: str, verdict: Verdict) -> None:
        super().__init__(message)
        self.verdict = verdict

    def __reduce__(self) -> tuple[type[ProbeFailed], tuple[str, Verdict]]:
        return type(self), (str(self), self.verdict)


class PropertyFailed(AssertionError):  # noqa: N818 - a refuted model
    """A property of `pytest_overfit.properties` does not hold; the batch that shows it is the attribute `batch`."""

    def __init__(self, message: str, batch: Any = None) -> None:
        super().__init__(message)
        self.batch = batch

    def __reduce__(self) -> tuple[type[PropertyFailed], tuple[str, Any]]:
        return type(self), (str(self), self.batch)


def publish(*classes: type[BaseException]) -> None:
    """Make the classes show the public module in tracebacks, so that pytest's one-line summary stays short."""
    for each in classes:
        each.__module__ = "pytest_overfit"


publish(OverfitError, CaseError, ProgramError, NotApplicable, ProbeFailed, PropertyFailed)


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for a near miss, else the list of what is known."""
    import difflib  # only a mistake needs it

    names = sorted(known)
    close = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.6) if isinstance(name, str) else []
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names) or 'none'}"
