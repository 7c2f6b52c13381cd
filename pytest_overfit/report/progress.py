"""A line that tells how far a long probe is.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: seconds before anything is shown
_PATIENCE = 2.0
#: seconds between two updates
_PAUSE = 0.2


class Progress:
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

    def __call__(self, case: str, probe: str, step: int, of: int, loss: float) -> None:
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
