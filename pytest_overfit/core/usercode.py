"""Call the user's own code and, when it raises, show the user's frames and hide ours."""

from __future__ import annotations

import contextlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from pytest_overfit.core.errors import OverfitError, ProgramError

if TYPE_CHECKING:
    from pytest_overfit.core.verdict import Diagnosis

#: given an exception and the call that raised it
FindCause = Callable[[Exception, str], "Diagnosis | None"]

_OURS = str(Path(__file__).parent.parent)
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})

#: a message longer than this (frameworks print whole graphs) is cut
_LONGEST = 600


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
        # `from None`: pytest would print the chain with all of the framework's frames; `__context__` still has it
        crash = ProgramError(_message(what, error))
        crash.diagnoses = _cause(error, what)
        raise crash from None


#: finds out which fault an exception shows; set once by what knows the frameworks, which this room does not
_find_cause: FindCause = lambda *_: None  # noqa: E731


def causes_found_by(find: FindCause) -> None:
    """Ask this of every exception of the user's code, while the model and the frames are as they were."""
    global _find_cause
    _find_cause = find


def _cause(error: Exception, what: str) -> tuple[Diagnosis, ...]:
    found = _find_cause(error, what)
    return () if found is None else (found,)


def _message(what: str, error: Exception) -> str:
    text = str(error).strip() or "(no message)"
    first, *rest = text[:_LONGEST].splitlines()
    lines = [f"{what} raised {type(error).__name__}: {first}"]
    lines += [f"  {note}" for note in getattr(error, "__notes__", ())]
    lines += [f"  {line}" for line in rest]
    lines += [f"  {line}" for line in _user_frames(error.__traceback__)]
    return "\n".join(lines)


def _user_frames(trace: TracebackType | None, most: int = 4) -> list[str]:
    """The innermost frames that are neither ours nor a library's, outermost first."""
    frames = [each for each in traceback.extract_tb(trace) if is_users_file(each.filename)]
    shown = []
    for frame in frames[-most:]:
        shown.append(f'File "{frame.filename}", line {frame.lineno}, in {frame.name}')
        if frame.line:
            shown.append(f"    {frame.line.strip()}")
    return shown


def is_users_file(filename: str) -> bool:
    """Neither installed nor of the standard library, nor ours."""
    if filename.startswith((_OURS, "<frozen")) or "site-packages" in filename:
        return False
    return not filename.startswith(_LIBRARIES)


def is_users_class(kind: type) -> bool:
    """The class is written in the user's own code; True also where that is unknown, as in a notebook."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is None or is_users_file(file)
