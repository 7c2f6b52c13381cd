"""Operations that leave the finite numbers: a logarithm, a root or a division at zero."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_overfit.adapters.programs import Change, Origin
from pytest_overfit.diagnosis.hypotheses import BROKEN, Hypothesis
from pytest_overfit.diagnosis.symptoms import Symptoms

#: operation -> fault of the vocabulary
_FAULTS = {
    "log": "log_of_zero",
    "log10": "log_of_zero",
    "log1p": "log_of_zero",
    "sqrt": "sqrt_zero_gradient",
    "pow": "sqrt_zero_gradient",
    "norm": "sqrt_zero_gradient",
    "rsqrt": "division_by_zero",
    "div": "division_by_zero",
    "reciprocal": "division_by_zero",
}

#: an operation that was given this little is one at zero
_ZERO = 1e-6


def suspected(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """Where the first such number came from."""
    origin = symptoms.origin
    if origin is None or origin.operation not in _FAULTS:
        return
    fault = _FAULTS[origin.operation]
    if origin.given is not None and abs(origin.given) > _ZERO and not origin.given < 0:
        return
    yield Hypothesis(
        fault=fault,
        family="numerics",
        what=f"{_words(origin)} makes the first number that is not finite, at step {origin.step}",
        observed="" if origin.given is None else f"it was given {origin.given:g}",
        change=Change(kind="guarded"),
        changed="with 1e-6 kept from zero there",
        cure=f"keep {origin.operation} from zero: clamp(min=1e-6), or add a small epsilon",
        rank=BROKEN,
        broken=True,
    )


def _words(origin: Origin) -> str:
    where = f" in {origin.where}" if origin.where else ""
    return f"the gradient of {origin.operation}{where}" if origin.backward else f"{origin.operation}{where}"
