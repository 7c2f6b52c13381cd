"""Say in the first line of an error which layer refused which shape: Keras puts that in the third."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from pytest_overfit.core.errors import OverfitError
from pytest_overfit.core.usercode import user_code

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_HEADER = re.compile(r"\AException encountered when calling (?P<what>[^\n]*?)\.\s*\n+")
_ARGUMENTS = re.compile(r"\n+Arguments received by .*\Z", re.DOTALL)


@contextlib.contextmanager
def user_call(what: str) -> Iterator[None]:
    """`user_code`, with Keras' message put in order first."""
    __tracebackhide__ = True
    with user_code(what):
        try:
            yield
        except OverfitError:
            raise
        except Exception as error:
            _tidy(error)
            raise


def _tidy(error: Exception) -> None:
    text = str(error)
    clean = tidied(text)
    if clean == text:
        return
    error.args = (clean, *error.args[1:])
    if hasattr(error, "_message"):  # TensorFlow's errors do not print their arguments
        error._message = clean


def tidied(text: str) -> str:
    """The message without colours and the list of arguments, led by the layer unless it names one itself."""
    text = _ARGUMENTS.sub("", _COLOURS.sub("", text)).strip()
    header = _HEADER.match(text)
    if header is None:
        return text
    body = text[header.end() :].strip()
    names_layer = re.search(r'layer "?[\w/]+"?', body.split("\n", 1)[0])
    return body if names_layer else f"in {header['what']}: {body}"
