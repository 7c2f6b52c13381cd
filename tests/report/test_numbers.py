"""Numbers as people read them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pytest_overfit.core.figures import apart, legible, signed, thousandths
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


@given(value=st.floats(allow_nan=False), usual=st.sampled_from([".4g", ".2f", ".3f", "+.3f", ".0f", ".1%", "g"]))
def test_no_number_has_more_than_six_significant_digits(value: float, usual: str) -> None:
    mantissa = legible(value, usual=usual).partition("e")[0]
    assert len(re.sub(r"\D", "", mantissa).lstrip("0")) <= 6


@given(value=st.floats(-1e30, 1e30), limit=st.floats(-1e30, 1e30))
def test_a_number_and_its_limit_stand_as_they_do(value: float, limit: float) -> None:
    shown, bound = map(float, apart(value, limit))
    assert (shown < bound, shown > bound) == (value < limit, value > limit)


def test_scores_without_an_end_stay_short() -> None:
    """R2 and scores of the user's own have no lower end."""
    assert thousandths(-(10.0**150)) == "-1e+150"
    assert signed(1234567.0) == "+1.23457e+06"
    assert signed(0.25) == "+0.250"
    assert legible(12345.678, usual=".1%") == "1.23457e+06%"


def test_a_value_beside_a_limit_that_needs_digits_itself() -> None:
    assert apart(0.12349, 0.123456789) == ("0.12349", "0.12346")
    assert apart(0.5, 0.5) == ("0.5", "0.5")


def test_the_table_tells_a_value_from_its_limit() -> None:
    finding = {"name": "score", "value": 0.94999, "limit": 0.95, "relation": ">=", "source": "default"}
    (line,) = findings_table([{**finding, "outcome": "failed", "message": "wrong"}])
    assert "0.94999" in line
