"""May a run that has made its steps go on, because it is on its way?"""

from __future__ import annotations

from collections.abc import Callable

from pytest_overfit.measures.memorising.progress import FitProgress
from pytest_overfit.measures.memorising.trend import WINDOW

#: optimizer steps by default
STEPS = 500

#: how far a run may go that is near its limits, or projected to be there by then; who needs more is warned about
MORE_STEPS = 1_000

#: how far one may go that is slow but sure: a net of a public tutorial needs 2,700
MOST_STEPS = 4_000

#: a projection that grew by more than this since the last one, beyond what the steps between them explain, runs away:
#: the curve is on its way to a plateau. One that falls as a power of the steps, as autoencoders' do, is projected from
#: its slope to so many times the steps made, at 750 half as far again as at 500
_GROWTH = 1.5

#: steps between two projections
_STRETCH = 250

#: a longer look back: a slow curve has stretches in which it rests
_WIDE = 0.8


class Extension:
    """Decides at the end of each stretch; no clock is asked, so that every machine decides the same."""

    def __init__(self) -> None:
        self._projected: int | None = None
        self._made = 0
        #: the run goes on although it was not projected to fit in as many steps as any healthy run needs
        self.is_slow = False

    def steps(self, progress_over: Callable[[float], FitProgress]) -> int:
        """How many more steps the run may have; 0: it is judged where it stands. `progress_over`: of a window."""
        progress = progress_over(WINDOW)
        done, end = progress.last.step, progress.fits_by()
        if done < MORE_STEPS and (progress.is_near() if end is None else end <= MORE_STEPS):
            return MORE_STEPS - done
        ends = [each for each in (end, progress_over(_WIDE).fits_by()) if each is not None]
        before, self._projected = self._projected, min(ends, default=None)
        allowed = MOST_STEPS if before is None else _GROWTH * before * done / self._made
        self._made = done
        if self._projected is None or self._projected > min(MOST_STEPS, allowed):
            return 0
        if not progress.below_constant():
            return 0
        self.is_slow = True
        return min(_STRETCH, MOST_STEPS - done)
