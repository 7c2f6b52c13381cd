"""Data that are read again: what changed is found, and what a loader draws from is put back."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler

from pytest_overfit.data.rereading import changed_place, seeded_generators, spread


def test_places_are_spread_from_the_first_to_the_last() -> None:
    assert spread(3).tolist() == [0, 1, 2]
    assert spread(1_000, 5).tolist() == [0, 249, 499, 749, 999]


def test_the_first_place_that_changed_is_named() -> None:
    def read(place: int, number: int) -> Any:
        return (place, number if place == 2 and number == 2 else 0)

    assert changed_place(range(4), read, operator.eq) is None
    assert changed_place(range(4), read, operator.eq, readings=3) == 2


def test_generators_of_a_loader_and_of_its_sampler_are_seeded_and_put_back() -> None:
    data, own = list(range(50)), torch.Generator()
    sampler = RandomSampler(data, generator=torch.Generator())
    loader = DataLoader(data, sampler=sampler, generator=own)
    before = own.get_state(), sampler.generator.get_state()

    def order(seed: int) -> list[int]:
        with seeded_generators(loader, seed):
            return [int(item) for item in loader]

    assert order(1) == order(1) != order(2)
    assert all(
        torch.equal(one, now) for one, now in zip(before, (own.get_state(), sampler.generator.get_state()), strict=True)
    )
