"""Whole splits in batches: every row once, in an order that can be repeated, the user's objects left alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pytest_overfit import Case
from pytest_overfit.core.errors import CaseError, ProgramError
from pytest_overfit.data.splits import Arrays, Subset, open_split
from pytest_overfit.data.tree import to_numpy
from pytest_overfit.probes.regularization.new_split import resplit

X, Y = np.arange(100.0).reshape(50, 2), np.arange(50)


def case(train: Any, **more: Any) -> Case:
    return Case(name="c", model=lambda: None, loss=lambda outputs, targets: None, train=train, **more)


def ys(batches: Iterator[Any]) -> list[list[int]]:
    return [to_numpy(each.y).tolist() for each in batches]


def rows_in(batches: list[list[int]]) -> list[int]:
    return [row for each in batches for row in each]


class Doubling(Dataset[Any]):
    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> Any:
        return X[index], Y[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return zip(torch.as_tensor(X), torch.as_tensor(Y), strict=True)


SOURCES = {
    "arrays": lambda: (X, Y),
    "tensors": lambda: (torch.as_tensor(X), torch.as_tensor(Y)),
    "dataset": Doubling,
    "tensor dataset": lambda: TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)),
    "samples": lambda: list(zip(X, Y, strict=True)),
    "loader": lambda: DataLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), batch_size=32, shuffle=True),
    "stream": Stream,
    "batches": lambda: [(X[:20], Y[:20]), (X[20:40], Y[20:40]), (X[40:], Y[40:])],
    "function": lambda: lambda: (X, Y),
}


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_an_epoch_has_every_row_once_beside_its_target(kind: str) -> None:
    split = open_split(case(SOURCES[kind]()), "train")
    for batches in (split.epoch(3), split.chunks()):
        seen = [(to_numpy(each.x)[:, 0].tolist(), to_numpy(each.y).tolist()) for each in batches]
        assert all([2.0 * row for row in y] == x for x, y in seen)
        assert sorted(row for _, y in seen for row in y) == Y.tolist()


@pytest.mark.parametrize("kind", ["arrays", "tensors", "dataset", "samples"])
def test_order_is_that_of_its_seed_and_batches_are_of_the_size_asked_for(kind: str) -> None:
    split = open_split(case(SOURCES[kind](), fit_kwargs={"batch_size": 20}), "train")
    first, again, other = ys(split.epoch(1)), ys(split.epoch(1)), ys(split.epoch(2))
    assert first == again != other
    assert [len(each) for each in first] == [20, 20, 10]
    assert rows_in(first) != Y.tolist()
    assert rows_in(ys(split.chunks())) == Y.tolist()


def test_a_loaders_own_generator_is_seeded_and_put_back() -> None:
    generator = torch.Generator().manual_seed(5)
    data = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
    loader = DataLoader(data, batch_size=8, shuffle=True, generator=generator)
    before = generator.get_state()
    split = open_split(case(loader), "train")
    assert ys(split.epoch(1)) == ys(split.epoch(1)) != ys(split.epoch(2))
    next(split.epoch(1))  # a reader that stops early gives it back too
    assert torch.equal(generator.get_state(), before)


def test_the_users_arrays_are_copied() -> None:
    x = X.copy()
    batch = next(open_split(case((x, Y)), "train").chunks())
    batch.x[:] = -1
    assert (x == X).all()


@given(rows=st.integers(1, 70), size=st.integers(1, 80), order=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_any_size_and_order_give_every_row_once(rows: int, size: int, order: int) -> None:
    split = open_split(case((np.arange(float(rows))[:, None], np.arange(rows))), "train", batch_size=size)
    found = ys(split.epoch(order))
    assert sorted(rows_in(found)) == list(range(rows))
    assert all(len(each) == size for each in found[:-1])


def test_several_inputs_and_parts_without_rows() -> None:
    train = ({"a": X, "b": X[:, 0]}, {"y": Y, "z": Y + 1})
    batch = next(open_split(case(train), "train").epoch(0))
    assert set(batch.x) == {"a", "b"}
    assert (batch.x["a"][:, 0] == batch.x["b"]).all()
    assert (batch.y["z"] == batch.y["y"] + 1).all()


def test_prepared_changes_add_up() -> None:
    for kind in ("arrays", "dataset", "loader"):
        split = open_split(case(SOURCES[kind]()), "train")
        twice = split.prepared(lambda b: b.map(lambda leaf: leaf + 1)).prepared(lambda b: b.map(lambda leaf: leaf * 2))
        assert sorted(rows_in(ys(twice.chunks()))) == [2 * (row + 1) for row in range(50)]


def test_a_subset_has_its_rows_only() -> None:
    for kind in ("arrays", "dataset"):
        subset = Subset(open_split(case(SOURCES[kind]()), "train"), [3, 49, 0])
        assert rows_in(ys(subset.chunks())) == [0, 3, 49]
        assert subset.rows == 3


def test_resplit_keeps_every_row_once_and_the_sizes() -> None:
    both = case((X[:40], Y[:40]), val=(X[40:], Y[40:]))
    train, val = open_split(both, "train"), open_split(both, "val")
    new, other = resplit(train, val, 1, "c:")
    assert (new.rows, other.rows) == (40, 10)
    assert sorted(rows_in(ys(new.chunks())) + rows_in(ys(other.chunks()))) == Y.tolist()
    assert ys(resplit(train, val, 1, "c:")[1].chunks()) == ys(other.chunks())
    assert ys(resplit(train, val, 2, "c:")[1].chunks()) != ys(other.chunks())
    assert isinstance(train, Arrays)


def test_resplit_wants_arrays() -> None:
    both = case(Doubling(), val=(X, Y))
    with pytest.raises(CaseError, match=r"resplit=True pools the rows of train and val, so both must be arrays"):
        resplit(open_split(both, "train"), open_split(both, "val"), 0, "Case 'c':")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, CaseError, "val= is 3; expected"),
        (lambda: None, CaseError, "it has no val data"),
        ([], CaseError, "val= is empty"),
        ((X, Y[:3]), CaseError, "val=: inputs and targets are of different length|inputs and targets"),
        (iter([(X, Y)]), CaseError, "can be read once only"),
        (DataLoader([]), CaseError, "val= gave no batch: it is empty"),
        (lambda: 1 / 0, ProgramError, "the function given as val raised ZeroDivisionError"),
    ],
)
def test_what_cannot_be_read_is_named(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(open_split(case((X, Y), val=source), "val").chunks())


def test_a_dataset_that_raises_is_named() -> None:
    class Broken(Doubling):
        def __getitem__(self, index: int) -> Any:
            raise KeyError("no such file")

    with pytest.raises(ProgramError, match=r"reading train= raised KeyError"):
        list(open_split(case(Broken()), "train").epoch(0))
