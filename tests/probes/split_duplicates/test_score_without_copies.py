"""What copies cost: the score of a leaky split with and without its copied rows, for arrays and for loaders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pytest_overfit import Case, run_probes


def leaky_digits(**more: Any) -> Case:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    test = (np.concatenate([x[1300:1450], x[:60]]), np.concatenate([y[1300:1450], y[:60]]))
    given: dict[str, Any] = {
        "model": lambda: torch.nn.Linear(64, 10),
        "loss": torch.nn.functional.cross_entropy,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
        "train": (x[:400], y[:400]),
        "test": test,
        **more,
    }
    return Case(name="leaky", **given)


def test_the_score_stands_beside_that_without_the_copies() -> None:
    found = run_probes(leaky_digits(), ["split_duplicates"])[0]
    score = found.data["score"]
    assert (score["split"], score["metric"], score["rows"], score["epochs"]) == ("test", "accuracy", 60, 20)
    assert score["copied"] > score["whole"] > score["clean"]
    assert score["whole"] == pytest.approx((60 * score["copied"] + 150 * score["clean"]) / 210)
    said = next(each.message for each in found.findings if each.name == "score")
    assert said.startswith(
        f"test accuracy {score['whole']:.3f}, without the 60 rows that have a copy {score['clean']:.3f}"
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": object}, "neither a torch.nn.Module nor a compiled keras.Model"),
        ({"optimizer": None}, "needs an optimizer"),
    ],
)
def test_a_model_that_cannot_be_trained_leaves_the_verdict_as_it_is(more: dict[str, Any], words: str) -> None:
    found = run_probes(leaky_digits(**more), ["split_duplicates"])[0]
    assert found.summary == "60 of 210 rows of test (28.57%) have an exact copy in train, a leak"
    assert any("score with and without the copies: not measured" in each.message and words in each.message
               for each in found.findings)  # fmt: skip


def test_no_model_is_trained_where_that_is_not_wanted_or_nothing_is_copied() -> None:
    def never() -> Any:
        raise AssertionError("no model is wanted")

    off = {"split_duplicates": {"score": False}}
    assert run_probes(leaky_digits(model=never, options=off), ["split_duplicates"])[0].outcome == "failed"
    x, y = load_digits(return_X_y=True)
    clean = leaky_digits(model=never, train=(x[:400], y[:400]), test=(x[400:600], y[400:600]))
    assert run_probes(clean, ["split_duplicates"])[0].passed


# ------------------------------------------------------------------------------------------------------------- loaders


class Stream(IterableDataset):
    """Samples one after the other."""

    def __init__(self, x: Any, y: Any) -> None:
        self.samples = list(zip(x, y, strict=True))

    def __iter__(self) -> Any:
        return iter(self.samples)


class Batches(keras.utils.PyDataset):
    """Batches by number."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return (len(self.x) + 31) // 32

    def __getitem__(self, number: int) -> Any:
        return self.x[32 * number : 32 * number + 32], self.y[32 * number : 32 * number + 32]


class Turned:
    """Batches of NumPy arrays, in another order at each reading if so wanted."""

    def __init__(self, x: Any, y: Any, shuffled: bool = False) -> None:
        self.x, self.y, self.random = x, y, np.random.default_rng(0) if shuffled else None

    def __iter__(self) -> Any:
        order = np.arange(len(self.x)) if self.random is None else self.random.permutation(len(self.x))
        for start in range(0, len(order), 50):
            rows = order[start : start + 50]
            yield torch.tensor(self.x[rows]), torch.tensor(self.y[rows])


def tensors(x: Any, y: Any) -> TensorDataset:
    return TensorDataset(torch.tensor(x), torch.tensor(y))


STEADY: dict[str, Callable[..., Any]] = {
    "DataLoader": lambda x, y: DataLoader(tensors(x, y), batch_size=32),
    "DataLoader of a Subset": lambda x, y: DataLoader(
        torch.utils.data.Subset(tensors(x[::-1].copy(), y[::-1].copy()), list(range(len(x)))[::-1]), batch_size=7
    ),
    "DataLoader of a stream": lambda x, y: DataLoader(Stream(x, y), batch_size=16),
    "a loader of its own kind": Turned,
}


@pytest.mark.parametrize("make", STEADY.values(), ids=STEADY)
def test_rows_of_a_loader_that_keeps_its_order_are_told_by_their_place(make: Callable[..., Any]) -> None:
    arrays = leaky_digits()
    wanted = run_probes(arrays, ["split_duplicates"])[0].data["score"]
    found = run_probes(leaky_digits(test=make(*arrays.test)), ["split_duplicates"])[0]
    assert found.data["score"] == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_so_are_those_of_tensorflow_and_keras(kind: str) -> None:
    arrays = leaky_digits()

    def model() -> Any:
        dense = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
        dense.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return dense

    test = Batches(*arrays.test) if kind == "PyDataset" else tf.data.Dataset.from_tensor_slices(arrays.test).batch(32)
    case = Case(name="leaky", model=model, train=arrays.train, test=test)
    score = run_probes(case, ["split_duplicates"])[0].data["score"]
    assert (score["split"], score["metric"], score["rows"]) == ("test", "accuracy", 60)
    assert score["copied"] > score["whole"] > score["clean"]
    assert score["whole"] == pytest.approx((60 * score["copied"] + 150 * score["clean"]) / 210)


def test_rows_that_a_loader_drops_are_not_counted() -> None:
    x, y = leaky_digits().test
    order = np.r_[150:210, 0:150]  # the copies first
    test = DataLoader(tensors(x[order], y[order]), batch_size=100, drop_last=True)
    score = run_probes(leaky_digits(test=test), ["split_duplicates"])[0].data["score"]
    assert score["whole"] == pytest.approx((60 * score["copied"] + 140 * score["clean"]) / 200)


UNTOLD: dict[str, tuple[Callable[..., Any], str]] = {
    "shuffled": (lambda x, y: DataLoader(tensors(x, y), batch_size=32, shuffle=True), "an order of its own"),
    "shuffled the same each time": (
        lambda x, y: DataLoader(tensors(x, y), batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(1)),
        "an order of its own",
    ),
    "another order each time": (lambda x, y: Turned(x, y, shuffled=True), "in another order each time"),
}


@pytest.mark.parametrize(("make", "words"), UNTOLD.values(), ids=UNTOLD)
def test_rows_of_a_shuffled_loader_are_not_told_and_that_is_said(make: Callable[..., Any], words: str) -> None:
    found = run_probes(leaky_digits(test=make(*leaky_digits().test)), ["split_duplicates"])[0]
    assert found.summary == "60 of 210 rows of test (28.57%) have an exact copy in train, a leak"
    assert words in found.data["score"]
    assert any(f"not measured: {found.data['score']}" in each.message for each in found.findings)


def test_an_epoch_of_too_many_updates_is_not_trained() -> None:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    many = DataLoader(tensors(np.tile(x[:400], (11, 1)), np.tile(y[:400], 11)), batch_size=1)
    found = run_probes(leaky_digits(train=many), ["split_duplicates"])[0]
    assert found.data["score"] == "one epoch has more than 4000 updates"
