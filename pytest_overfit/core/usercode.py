"""Call the user's own code and, when it raises, show the user's frames and hide ours."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pytest_overfit.core.errors import CaseError, OverfitError, ProgramError

if TYPE_CHECKING:
    from pytest_overfit.core.verdict import Diagnosis

#: given an exception and the call that raised it
FindCause = Callable[[Exception, str], "Diagnosis | None"]

_OURS = str(Path(__file__).parent.parent) + os.sep
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})

#: a message longer than this (frameworks print whole graphs) is cut
_LONGEST = 600
_MOST_LINES = 12

#: where TensorFlow says that a graph was built, which is in our code
_BUILT_AT = re.compile(r"\n\s*Detected at node [^\n]*\n(\s*\n|\s*File [^\n]*\n)*")

#: colours, and characters that a terminal obeys instead of showing
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;]*m|[^\S\n\t ]|[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")

_LOG = logging.getLogger("pytest_overfit")


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turn an exception of the user's code into a `ProgramError` that names the call and the user's own frames.

    `what` finishes the sentence "... raised", e.g. "the model factory". Our own errors and Ctrl-C pass unchanged;
    `pytest.skip` and its like are no `Exception` and pass as well. An adapter may add a `note` to the exception
    (`BaseException.add_note`), e.g. which layer refused which shape; notes come right after the first line.
    """
    __tracebackhide__ = True
    try:
        yield
    except OverfitError:
        raise
    except Exception as error:
        if ends_the_run(error):
            raise
        # `from None`: pytest would print the chain with all of the framework's frames; `__context__` still has it
        raise _crash(what, error) from None


@contextlib.contextmanager
def in_words(what: str) -> Iterator[None]:
    """The outermost `user_code`: no exception but one of ours leaves it, whoever raised it and wherever.

    Whatever of the user's was called in a place where nobody expected that it could raise (`model.eval`, `__len__`) is
    named by its function. Where no function of the user's raised, what was given is something that we did not foresee.
    """
    __tracebackhide__ = True
    try:
        yield
    except OverfitError:
        raise
    except Exception as error:
        if ends_the_run(error):
            raise
        called = _called_last(error.__traceback__)
        if called:
            raise _crash(f"{what}: {called}", error) from None
        _LOG.info("%s: not foreseen", what, exc_info=error)
        raise CaseError(
            f"{what} met {type(error).__name__}: {text_of(error).splitlines()[0]}; {_hint(error)}"
        ) from None


def ends_the_run(error: Exception) -> bool:
    """`pytest.exit` is an `Exception`; other outcomes of pytest are none."""
    return type(error).__module__ == "_pytest.outcomes"


#: finds out which fault an exception shows; set once by what knows the frameworks, which this room does not
_find_cause: FindCause = lambda *_: None  # noqa: E731


def causes_found_by(find: FindCause) -> None:
    """Ask this of every exception of the user's code, while the model and the frames are as they were."""
    global _find_cause
    _find_cause = find


def _cause(error: Exception, what: str) -> tuple[Diagnosis, ...]:
    found = _find_cause(error, what)
    return () if found is None else (found,)


def _hint(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "something in the case holds itself, or is nested too deep; give flat tuples, lists or dicts of arrays"
    return "something in the case was not foreseen; pytest --log-level=INFO shows where, for a report of this fault"


def _crash(what: str, error: Exception) -> ProgramError:
    crash = ProgramError(_message(what, error))
    crash.diagnoses = _cause(error, what)
    return crash


def _message(what: str, error: Exception) -> str:
    first, *rest = text_of(error).splitlines()
    lines = [f"{what} raised {type(error).__name__}: {first}"]
    lines += [f"  {note}" for note in _notes(error)]
    lines += [f"  {line}" for line in rest]
    lines += [f"  {line}" for line in user_frames(error.__traceback__)]
    return "\n".join(lines)


def text_of(error: BaseException) -> str:
    """What an exception says, at least a word and not for pages; its own `__str__` may raise."""
    try:
        text = str(error)[: 10 * _LONGEST]
    except Exception as broken:  # of any kind: it is the user's
        return f"(its __str__ raised {type(broken).__name__})"
    text = _BUILT_AT.sub("\n", _UNPRINTABLE.sub("", text)).strip()
    lines = [line for line in text[:_LONGEST].splitlines() if line.strip() and _OURS not in line]
    return "\n".join([*lines[:_MOST_LINES], *["..."] * (len(lines) > _MOST_LINES)]) or "(no message)"


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", ())
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, (list, tuple)) else []


def _called_last(trace: TracebackType | None) -> str:
    """The name of the user's function that our code called last; "" where our own code raised, or none was called."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(trace)]
    ours = [place for place, code in enumerate(codes) if code.co_filename.startswith(_OURS)]
    last = ours[-1] if ours else -1
    users = [(place, code) for place, code in enumerate(codes) if is_users_file(code.co_filename)]
    if last == len(codes) - 1 or not users:
        return ""
    _, code = next((each for each in users if each[0] > last), users[-1])
    return code.co_qualname.rpartition("<locals>.")[2]


def user_frames(trace: TracebackType | None, most: int = 4) -> list[str]:
    """The innermost frames that are neither ours nor a library's, outermost first."""
    frames = [each for each in traceback.extract_tb(trace) if is_users_file(each.filename)]
    shown = []
    for frame in frames[-most:]:
        shown.append(f'File "{frame.filename}", line {frame.lineno}, in {frame.name}')
        if frame.line:
            shown.append(f"    {frame.line.strip()}")
    return shown


def users_own(error: BaseException) -> bool:
    """The user's own code raised it, by a statement of its own: no library that was given something it cannot take."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(codes) and is_users_file(codes[-1].co_filename)


def is_users_file(filename: str) -> bool:
    """Neither installed nor of the standard library, nor ours."""
    if filename.startswith((_OURS, "<frozen")) or "site-packages" in filename:
        return False
    return not filename.startswith(_LIBRARIES)


def is_users_class(kind: type) -> bool:
    """The class is written in the user's own code; True also where that is unknown, as in a notebook."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is None or is_users_file(file)
