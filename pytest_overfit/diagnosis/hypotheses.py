"""What may be wrong: a fault of the vocabulary, what speaks for it, and the change that would cure it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from pytest_overfit.adapters.programs import Change
from pytest_overfit.core.verdict import Confidence
from pytest_overfit.diagnosis.symptoms import Symptoms

#: ranks: the program itself is at odds with a rule; the curve or a number speaks for it; nothing does, but it is common
BROKEN, SUSPECT, COMMON = 0, 10, 20

#: up to here the state of the program speaks for a fault
OF_STATE = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One suspicion. Its sentence reads: `what` (`observed`); `changed` the batch is memorised in N steps."""

    #: a name of the fault vocabulary
    fault: str
    #: causes of one family explain the same thing: of these the first that cures is taken
    family: str
    #: what is wrong, as a first line begins: "softmax in the model and again in cross_entropy"
    what: str
    #: the measurement that speaks for it; "" for none
    observed: str = ""
    #: None: nothing can be tried, it is known from the state alone
    change: Change | None = None
    #: "without it", "with standardised inputs"
    changed: str = ""
    #: what to write instead
    cure: str
    #: the lower, the sooner it is tried
    rank: int = COMMON
    #: the state breaks a rule, so it is named also where the change cannot be made
    broken: bool = False
    #: how sure that is, where no change proves it
    confidence: Confidence = "shown"

    @property
    def is_of_state(self) -> bool:
        """The program itself speaks for it, not only its curve."""
        return self.rank < OF_STATE

    @property
    def opening(self) -> str:
        """What is wrong, with the number that speaks for it."""
        return f"{self.what} ({self.observed})" if self.observed else self.what


#: looks at the symptoms and names what it suspects
Family = Callable[[Symptoms], Iterable[Hypothesis]]


def suspected(symptoms: Symptoms, families: Sequence[Family]) -> list[Hypothesis]:
    """All that is suspected, in the order in which it is tried."""
    found = [each for family in families for each in family(symptoms)]
    return sorted(found, key=lambda each: each.rank)
