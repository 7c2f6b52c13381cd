"""What a probe states of itself: its cost, whether it is in the default set, and what it needs of a case's fields."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_overfit import Case, CaseError, run_probes
from pytest_overfit.core.verdict import Verdict
from pytest_overfit.probes import built_in, known
from pytest_overfit.probes.base import LAST

DEFAULT = ["wiring", "inert_regularizer", "split_duplicates", "overfit_batch", "early_accuracy", "bounds"]


def unread() -> Any:
    raise AssertionError("nothing may be loaded")


def case(**fields: Any) -> Case:
    return Case(name="mlp", model=unread, **{"batch": unread, **fields})


def test_order_and_default_set() -> None:
    assert list(built_in()) == [*DEFAULT, "generalization_gap", "regularization"]
    assert [name for name, probe in built_in().items() if probe.default] == DEFAULT


@pytest.mark.parametrize(
    "name", ["split_duplicates", "early_accuracy", "bounds", "generalization_gap", "regularization"]
)
def test_what_a_case_lacks_is_known_from_its_fields(name: str) -> None:
    why = built_in()[name].needs(case())
    assert why
    (verdict,) = run_probes(case(), [name])
    assert (verdict.outcome, verdict.summary, verdict.findings) == ("not_applicable", why, ())
    whole = case(train=unread, test=unread, options={"bounds": {"gap": (0, 1)}})
    assert built_in()[name].needs(whole) is None


def test_options_that_cannot_be_used_are_an_error_all_the_same() -> None:
    with pytest.raises(CaseError, match="unknown option 'grup'"):
        run_probes(case(options={"split_duplicates": {"grup": 1}}), ["split_duplicates"])


def test_a_probe_that_states_nothing_comes_last_and_applies_always() -> None:
    class Plain:
        name = "a_first_name"
        limits = object

        def measure(self, bench: Any, limits: Any) -> dict[str, Any]:
            return {"asked": [bench, limits]}

        def judge(self, measured: Any, limits: Any) -> Any:
            raise NotImplementedError

    probe = known([Plain()])["a_first_name"]  # type: ignore[list-item]
    assert list(known([Plain()]))[-1] == "a_first_name"  # type: ignore[list-item]
    assert (probe.cost, probe.default, probe.needs(case())) == (LAST, True, None)
    assert probe.measure(None, 3) == {"asked": [None, 3]}  # type: ignore[arg-type]
    verdict = Verdict(probe=probe.name, case="mlp", framework="", outcome="passed", summary="")
    assert list(probe.numbers(verdict)) == []
