"""A line that tells how far a long probe is.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_overfit.report.text import progress_line

#: seconds before anything is shown
_PATIENCE = 2.0
#: seconds between two updates
_PAUSE = 0.2


class Progress:
    """Shows a progress line through `write` once a probe has run for two seconds; `clear` wipes it."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._write, self._clock = write, clock
        self._key: tuple[str, str] | None = None
        self._start = self._shown = 0.0
        self._width = 0

    def __call__(self, case: str, probe: str, step: int, of: int, loss: float) -> None:
        now = self._clock()
        if self._key != (case, probe):
            self._key, self._start = (case, probe), now
        if now - self._start < _PATIENCE or now - self._shown < _PAUSE:
            return
        line = progress_line(case, probe, step, of, loss)[:78]
        self._write("\r" + line.ljust(self._width))
        self._width, self._shown = len(line), now

    def clear(self) -> None:
        """Wipe the line, if there is one."""
        if self._width:
            self._write("\r" + " " * self._width + "\r")
        self._key, self._width = None, 0
