"""`wiring` on torch programs: planted faults are refused or warned by name, healthy ones pass without a word."""

from __future__ import annotations

import pytest

from tests.programs.wiring import (
    torch_data,
    torch_gradients,
    torch_healthy,
    torch_loops,
    torch_more_parts,
    torch_more_steps,
    torch_outputs,
    torch_steps,
    torch_unseen_data,
    torch_unseen_healthy,
    torch_unseen_loops,
    torch_unseen_parts,
    torch_unseen_second,
    torch_unseen_steps,
    torch_updates,
    torch_zoo,
)
from tests.programs.wiring.corpus import Corpus, check_broken, check_healthy

MODULES = (
    torch_gradients,
    torch_updates,
    torch_data,
    torch_outputs,
    torch_steps,
    torch_more_parts,
    torch_more_steps,
    torch_healthy,
    torch_loops,
    torch_zoo,
)
PROGRAMS = Corpus.of(each.PROGRAMS for each in MODULES)

#: written without a look at the rules, and what they brought to light was cured afterwards; most are slow tests
UNSEEN = Corpus.of(
    each.PROGRAMS
    for each in (
        torch_unseen_parts,
        torch_unseen_data,
        torch_unseen_steps,
        torch_unseen_healthy,
        torch_unseen_loops,
        torch_unseen_second,
    )
)


@pytest.mark.parametrize("name", PROGRAMS.broken_ones(one_in=4))
def test_a_planted_fault_is_named(name: str) -> None:
    check_broken(PROGRAMS[name])


@pytest.mark.parametrize("name", PROGRAMS.healthy_ones(one_in=4))
def test_its_healthy_twin_passes_without_a_name(name: str) -> None:
    check_healthy(PROGRAMS[name])


@pytest.mark.parametrize("name", UNSEEN.broken_ones(one_in=6))
def test_a_fault_of_a_stranger_is_named(name: str) -> None:
    check_broken(UNSEEN[name])


@pytest.mark.parametrize("name", UNSEEN.healthy_ones(one_in=6))
def test_a_healthy_program_of_a_stranger_passes_without_a_name(name: str) -> None:
    check_healthy(UNSEEN[name])
