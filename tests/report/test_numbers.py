"""Numbers as people read them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_overfit.core.verdict import legible
from pytest_overfit.report.text import findings_table


def test_more_digits_only_where_a_number_would_read_as_its_limit() -> None:
    assert legible(0.25412) == "0.2541"
    assert legible(0.949, 0.95, ".2f") == "0.949"
    assert legible(0.93, 0.95, ".2f") == "0.93"
    assert legible(0.9499999, 0.95) == "0.9499999"
    assert legible(0.95, 0.95) == "0.95"
    assert legible(float("nan"), 0.95) == "nan"


@given(value=st.floats(-1e6, 1e6), limit=st.floats(-1e6, 1e6))
def test_no_number_reads_as_a_limit_that_it_is_not(value: float, limit: float) -> None:
    assert (float(legible(value, limit)) == limit) <= (value == limit)


def test_the_table_tells_a_value_from_its_limit() -> None:
    finding = {"name": "score", "value": 0.94999, "limit": 0.95, "relation": ">=", "source": "default"}
    (line,) = findings_table([{**finding, "outcome": "failed", "message": "wrong"}])
    assert "0.94999" in line
