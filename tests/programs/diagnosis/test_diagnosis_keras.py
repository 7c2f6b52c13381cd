"""Keras programs with one fault are refused by its name, their healthy twins pass without any."""

from __future__ import annotations

import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from tests.programs.diagnosis.corpus import check_broken, check_healthy, check_named, check_unnamed
from tests.programs.diagnosis.keras_programs import PROGRAMS

#: Keras' own words on some of these programs, as `fit` would have them too
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "SyntaxWarning")]

#: one program in so many is a part of every run, all are of the slow one
_ONE_IN = 24


@pytest.mark.parametrize("name", PROGRAMS.broken_ones(_ONE_IN))
def test_a_planted_fault_is_refused(name: str) -> None:
    check_broken(PROGRAMS[name])


@pytest.mark.parametrize("name", PROGRAMS.healthy_ones(_ONE_IN))
def test_its_healthy_twin_passes(name: str) -> None:
    check_healthy(PROGRAMS[name])


@pytest.mark.parametrize("name", PROGRAMS.named_ones(_ONE_IN))
def test_its_fault_is_the_first_name(name: str) -> None:
    check_named(PROGRAMS[name])


@pytest.mark.parametrize("name", PROGRAMS.unnamed_ones(_ONE_IN))
def test_its_healthy_twin_has_no_name(name: str) -> None:
    check_unnamed(PROGRAMS[name])
