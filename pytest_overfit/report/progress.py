"""A line that tells how far a long probe is."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: seconds before anything is shown
_PATIENCE = 2.0
#: seconds between two updates
_PAUSE = 0.2


class ProgressLine:
    """Shows a progress line through `write` once a probe has run for two seconds; `clear` wipes it.

    It stands behind what is on the terminal's line already (`room` columns are left) and takes itself back with
    backspaces, so that pytest's own dots stay.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float], room: Callable[[], int] = lambda: 79
    ) -> None:
        self._write, self._clock, self._room = write, clock, room
        self._key: tuple[str, str] | None = None
        self._start = self._shown = 0.0
        self._width = 0

    def __call__(self, case: str, probe: str, step: int, of: int | None, loss: float | None = None) -> None:
        now = self._clock()
        if self._key != (case, probe):
            self.clear()
            self._key, self._start = (case, probe), now
        if now - self._start < _PATIENCE or (self._width and now - self._shown < _PAUSE):
            return
        from pytest_overfit.report.text import progress_line

        line = f" {progress_line(case, probe, step, of, loss)}"[: max(0, self._room())]
        self._write("\b" * self._width + line.ljust(self._width))
        self._width, self._shown = max(self._width, len(line)), now

    def clear(self) -> None:
        """Wipe the line, if there is one."""
        if self._width:
            self._write("\b" * self._width + " " * self._width + "\b" * self._width)
        self._key, self._width = None, 0


def is_watched(stream: Any, environment: Mapping[str, str] = os.environ) -> bool:
    """True for a terminal that a person watches, False for a file, a pipe, a CI log."""
    in_ci = any(environment.get(name) for name in ("CI", "BUILD_NUMBER"))
    return not in_ci and stream is not None and bool(stream.isatty())


@contextmanager
def shown(
    name: str, stream: Any = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int | None], None]]:
    """`progress(count, of)` for what runs outside of pytest: a line on standard error, where a person watches."""
    stream = sys.stderr if stream is None else stream
    if not is_watched(stream):
        yield lambda count, of: None
        return

    def write(text: str) -> None:
        print(text, end="", file=stream, flush=True)

    progress = ProgressLine(write, clock, _columns)
    try:
        yield lambda count, of: progress("", name, count, of)
    finally:
        progress.clear()


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns - 1
