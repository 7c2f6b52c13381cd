"""`wiring` on Keras programs: planted faults are refused or warned by name, healthy ones pass without a word."""

from __future__ import annotations

import pytest

pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from tests.programs.wiring import (
    keras_data,
    keras_more_data,
    keras_more_outputs,
    keras_more_parts,
    keras_more_steps,
    keras_outputs,
    keras_steps,
    keras_tutorials,
    keras_tutorials_loops,
    keras_updates,
    keras_zoo,
)
from tests.programs.wiring.corpus import Corpus, check_broken, check_healthy

#: Keras' own words on some of these programs, as `fit` would have them too
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

#: a program takes a second or two: one in ten is a part of the gate, all are with -m slow
FIRST = (keras_updates, keras_data, keras_outputs, keras_steps, keras_zoo)
#: those that were written without a look at the rules
LATER = (
    keras_more_parts,
    keras_more_data,
    keras_more_outputs,
    keras_more_steps,
    keras_tutorials,
    keras_tutorials_loops,
)
PROGRAMS = Corpus.of(each.PROGRAMS for each in (*FIRST, *LATER))


@pytest.mark.parametrize("name", PROGRAMS.broken_ones(one_in=10))
def test_a_planted_fault_is_named(name: str) -> None:
    check_broken(PROGRAMS[name])


@pytest.mark.parametrize("name", PROGRAMS.healthy_ones(one_in=10))
def test_its_healthy_twin_passes_without_a_name(name: str) -> None:
    check_healthy(PROGRAMS[name])
