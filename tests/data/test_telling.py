"""The first batch stays wherever it can tell; of sorted data, rows from further on are taken in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

from pytest_overfit import Case, Verdict, run_probes
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.telling import batch_of, untelling

A_CLASS = 60
random = np.random.default_rng(0)
Y = np.repeat(np.arange(3), A_CLASS)
X = (random.normal(size=(len(Y), 6)) + Y[:, None]).astype("float32")
TX, TY = torch.as_tensor(X), torch.as_tensor(Y)


class Counting(Dataset[Any]):
    """A dataset that keeps which samples were read."""

    def __init__(self, x: Tensor = TX, y: Tensor = TY) -> None:
        self.x, self.y, self.read = x, y, list[int]()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> Any:
        self.read.append(row)
        return self.x[row], self.y[row]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return zip(TX, TY, strict=True)


class Columns:
    """What a Hugging Face dataset looks like."""

    column_names = ("x", "label")

    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, rows: Any) -> dict[str, Any]:
        return {"x": X[rows].tolist(), "label": Y[rows].tolist()}


class Numbered:
    """What a PyDataset of Keras looks like: batches by number."""

    num_batches = 12

    def __getitem__(self, number: int) -> Any:
        return X[number * 15 : number * 15 + 15], Y[number * 15 : number * 15 + 15]


def net(blind: bool = False) -> nn.Module:
    first = nn.Linear(6, 64)
    if blind:
        nn.init.zeros_(first.weight).requires_grad_(False)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(64, 3))


def case(train: Any = None, **more: Any) -> Case:
    fields = {"name": "case", "model": net, "loss": F.cross_entropy, "train": train}
    return Case(**{**fields, "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2), **more})


def notes(verdict: Verdict) -> str:
    return "\n".join(each.message for each in verdict.findings)


def batches(size: int, x: Any = TX, y: Any = TY) -> Iterator[Any]:
    for start in range(0, len(x), size):
        yield x[start : start + size], y[start : start + size]


def by_name(samples: list[Any]) -> dict[str, Tensor]:
    return {"x": torch.stack([x for x, _ in samples]), "labels": torch.stack([y for _, y in samples])}


#: sorted by class; how many rows a batch has
SORTED: dict[str, tuple[Callable[[], Any], int]] = {
    "arrays": (lambda: (X, Y), 32),
    "tensors": (lambda: (TX, TY), 32),
    "one-hot": (lambda: (X, np.eye(3, dtype="float32")[Y]), 32),
    "lists": (lambda: (X.tolist(), Y.tolist()), 32),
    "dict": (lambda: {"x": X, "y": Y}, 32),
    "dataset": (lambda: Counting(), 32),
    "part of a dataset": (lambda: Subset(Counting(), range(100)), 32),
    "list of samples": (lambda: list(zip(TX, TY, strict=True)), 32),
    "columns": (lambda: Columns(), 32),
    "loader": (lambda: DataLoader(Counting(), batch_size=8), 8),
    "loader with its own collation": (lambda: DataLoader(Counting(), batch_size=8, collate_fn=by_name), 8),
    "loader with a sampler": (lambda: DataLoader(TensorDataset(TX, TY), batch_size=8, sampler=range(20, 140)), 8),
    "loader of batches": (lambda: DataLoader(list(batches(16)), batch_size=None), 16),
    "stream": (lambda: Stream(), 32),
    "batches by number": (lambda: Numbered(), 15),
    "list of batches": (lambda: list(batches(10)), 10),
    "generator": (lambda: batches(16), 16),
    "generator whose batches are of one class each": (lambda: batches(20), 20),
}


@pytest.mark.parametrize("what", SORTED)
def test_rows_from_further_on(what: str) -> None:
    make, rows = SORTED[what]
    found = batch_of(case(make))
    assert untelling(found) is None
    assert found.rows == rows
    assert "the first batch cannot tell: all" in found.remark
    assert "taken in its place: " in found.remark
    pairs = zip(*(side[0] for side in found.sides({"labels"} if "own" in what else set())), strict=True)
    true = {x.tobytes(): y for x, y in zip(X, Y, strict=True)}
    for x, y in pairs:
        assert true[np.asarray(x, "float32").tobytes()] == (y if np.ndim(y) == 0 else y.argmax())


def test_a_whole_run_on_sorted_data() -> None:
    good, blind = (run_probes(case((X, Y), model=lambda b=b: net(b)), ["overfit_batch"], steps=200)[0] for b in (0, 1))
    assert good.passed, good.summary
    assert "32 of all 180 rows (0, 5, 11, ... 174)" in notes(good)
    assert blind.outcome == "failed", blind.summary


def test_the_first_batch_stays_where_it_can_tell() -> None:
    data = Counting(TX, TY % 2 + torch.arange(len(TY)) % 2)
    found = batch_of(case(data))
    assert data.read == list(range(32))
    assert found.remark == ""
    assert torch.equal(found.x, TX[:32])


def test_a_batch_that_the_user_gave_stays_as_it_is() -> None:
    for given in ((X[:16], Y[:16]), lambda: DataLoader(TensorDataset(TX, TY), batch_size=16)):
        verdict = run_probes(case((X, Y), batch=given), ["overfit_batch"])[0]
        assert verdict.outcome == "inconclusive"
        assert "all 16 targets of the batch are equal (0); shuffle the data, or give batch=" in verdict.summary


@pytest.mark.parametrize("what", ["dataset", "loader", "generator"])
def test_one_class_only_is_inconclusive_and_says_what_was_looked_at(what: str) -> None:
    data = Counting(torch.randn(1000, 6), torch.zeros(1000, dtype=torch.long))
    given = {
        "dataset": data,
        "loader": DataLoader(data, batch_size=16),
        "generator": lambda: batches(16, data.x, data.y),
    }
    verdict = run_probes(case(given[what]), ["overfit_batch"])[0]
    assert verdict.outcome == "inconclusive"
    assert "shuffle the data, or give batch=" in verdict.summary
    looked = {"dataset": "256 rows spread over all 1000", "loader": "128 rows spread over all 1000"}
    assert looked.get(what, "any of 32 batches") in notes(verdict)
    assert len(data.read) <= {"dataset": 288, "loader": 144, "generator": 0}[what]


def test_a_source_without_places_is_read_ahead_no_further_than_needed() -> None:
    read: list[int] = []

    def given() -> Iterator[Any]:
        for number in range(1000):
            read.append(number)
            yield TX[number : number + 10], torch.full((10,), number // 5)

    found = batch_of(case(given))
    assert read == list(range(6))
    assert set(found.y.tolist()) == {0, 1}


def test_an_iterator_that_can_be_read_once_loses_nothing() -> None:
    source = batches(16)
    again = [batch_of(case(source)) for _ in range(3)]
    assert all(torch.equal(each.x, again[0].x) for each in again)
    assert len(list(source)) == 12 - 4, "four batches were read ahead, once"
    passed = run_probes(case(source), ["overfit_batch"], steps=200)[0]
    assert passed.passed, passed.summary


def test_generators_stand_where_they_stood() -> None:
    torch_generator, own = torch.Generator().manual_seed(1), np.random.default_rng(2)

    class Noisy(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.noise = own

        def __getitem__(self, row: int) -> Any:
            self.noise.random()
            return super().__getitem__(row)

    sampler = WeightedRandomSampler([1.0] * 60 + [0.0] * 120, 60, generator=torch_generator)
    before = torch_generator.get_state(), torch.get_rng_state()
    loader = DataLoader(Noisy(), batch_size=16, sampler=sampler, generator=torch_generator)
    verdict = run_probes(case(loader), ["overfit_batch"])[0]
    assert verdict.outcome == "inconclusive"
    assert torch.equal(torch_generator.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_rows_that_cannot_be_read_leave_the_verdict_to_the_first_batch() -> None:
    class Broken(Counting):
        def __getitem__(self, row: int) -> Any:
            if row > 100:
                raise OSError("no such picture")
            return super().__getitem__(row)

    verdict = run_probes(case(Broken()), ["overfit_batch"])[0]
    assert verdict.outcome == "inconclusive"
    assert "no such picture" in notes(verdict)


def test_inputs_that_are_all_equal_at_first() -> None:
    x = np.concatenate([np.zeros((40, 6), "float32"), X])
    found = batch_of(case((x, np.arange(len(x)) % 3)))
    assert "all 32 inputs of the batch are equal" in found.remark
    assert untelling(found) is None


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_sizes_of_the_classes(seed: int) -> None:
    """Some rows of another class are found wherever each has more rows than lie between two places that are read."""
    chance = np.random.default_rng(seed)
    size = int(chance.integers(2, 33))
    counts = chance.integers(1, 400, size=int(chance.integers(2, 6))) + size
    y = np.repeat(np.arange(len(counts)), counts)
    x = np.arange(len(y), dtype="float32")[:, None]
    found: Batch = batch_of(case((x, y), fit_kwargs={"batch_size": size}))
    assert found.rows == size
    assert found.places is not None
    assert len(set(found.places)) == size
    assert list(found.places) == sorted(found.places)
    assert np.array_equal(found.x[:, 0], np.asarray(found.places))
    assert np.array_equal(found.y, y[np.asarray(found.places)])
    rare = np.diff(np.flatnonzero(np.diff(y, prepend=-1, append=-1))).min()
    if rare * 8 * size > len(y):
        assert len(set(found.y.tolist())) > 1
