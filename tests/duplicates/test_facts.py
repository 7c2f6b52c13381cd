"""Facts that the user gives (label, group, time, gap, key, features): unusable ones are errors, what lacks is said."""

# ruff: noqa: E501 - tables of cases, one a line

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pytest_overfit import CaseError, Duplicates, find_duplicates

R = np.random.default_rng(0)
A, B, C = (R.normal(size=(count, 5)) for count in (200, 100, 50))
NAN = float("nan")
TIMES = {"train": np.arange(200), "test": np.arange(200, 300)}
DAYS = {name: times.astype("M8[D]") for name, times in TIMES.items()}


def tensors(rows: np.ndarray) -> TensorDataset:
    return TensorDataset(torch.tensor(rows), torch.zeros(len(rows)))


def samples(rows: np.ndarray) -> list[Any]:
    return [(row, 0) for row in rows]


def table(rows: np.ndarray, **more: Any) -> dict[str, Any]:
    return {**{f"c{place}": column for place, column in enumerate(rows.T)}, **more}


def found(**given: Any) -> Duplicates:
    return find_duplicates(**{"train": A, "test": B, "near": False, "windows": False, **given})


def in_form(form: Callable[[np.ndarray], Any], **given: Any) -> dict[str, Any]:
    return {"train": form(A), "test": form(B), **given}


UNUSABLE = {
    "times of NaN": ({"time": {"train": np.full(200, NAN), "test": np.arange(100)}}, "time=... gives nothing for any sample of train"),
    "times of None": ({"time": {"train": np.arange(200), "test": [None] * 100}}, "time=... gives nothing for any sample of test"),
    "infinite time": ({"time": {"train": [*range(199), np.inf], "test": np.arange(100)}}, "expected finite times, got inf"),
    "times of one split": ({"time": {"test": np.arange(100)}}, "time= is given for test alone, and it is compared between two; give it for train too"),
    "gap of NaN": ({"time": TIMES, "gap": NAN}, "gap=nan; expected a length of time"),
    "gap below zero": ({"time": TIMES, "gap": -5}, "gap=-5; expected a length of time, or a number in the unit of time=, of 0 or more"),
    "endless gap": ({"time": TIMES, "gap": float("inf")}, "gap=inf; expected"),
    "gap backwards": ({"time": DAYS, "gap": -datetime.timedelta(1)}, "expected a length of time"),
    "gap of no time": ({"time": DAYS, "gap": np.timedelta64("NaT")}, "expected a length of time"),
    "gap in words": ({"time": TIMES, "gap": "5"}, "gap='5'; expected"),
    "gap without time": ({"gap": 5}, "gap=5 is given without time="),
    "group None": ({"group": lambda sample: None}, "group=... gives nothing for any sample of train and test"),
    "group NaN": ({"group": lambda sample: NAN}, "group=... gives nothing for any sample of train and test"),
    "group None of a stream": (in_form(lambda x: lambda: iter(list(x)), group=lambda sample: None), "group=... gives nothing for any sample"),
    "group of one split": ({"group": {"train": np.arange(200)}}, "group= is given for train alone"),
    "group of one dataset": (in_form(samples, group={"test": np.arange(100)}), "group= is given for test alone"),
    "too few groups": ({"group": {"train": np.arange(200), "test": np.arange(99)}}, "group={'test': ...} has 99 values"),
    "too many groups": ({"group": {"train": np.arange(300), "test": np.arange(100)}}, "group={'train': ...} has 300 values, but train has 200 samples"),
    "groups of two kinds": ({"group": {"train": np.arange(200), "test": [str(each) for each in range(100)]}}, "group= is of different kinds (train numbers, test text)"),
    "group of tensors": (in_form(tensors, group="patient"), "group='patient' names a column, but train= is torch TensorDataset without names"),
    "group of a loader": (in_form(lambda x: DataLoader(tensors(x), 8), group="patient"), "group='patient' names a column"),
    "time of tensors": (in_form(tensors, time="day"), "time='day' names a column"),
    "key of tensors": (in_form(tensors, key=["id"]), "key=['id'] names a column, but train= is torch TensorDataset without names; give key= a function of a sample"),
    "keys of an array": ({"key": ["id"]}, "key=['id'] names a column"),
    "label of tensors": (in_form(tensors, label="y"), "label='y' names a column"),
    "label of an array": ({"label": "y"}, "label='y' names a column, but train= is numpy ndarray without names"),
    "label of samples": (in_form(samples, label="y"), "label='y' names a part of a sample, but a sample is tuple of 2"),
    "label nowhere": (in_form(table, label="sick"), "label='sick' gives no label in train and test"),
    "label None": ({"label": lambda sample: None}, "label=... gives no label in train and test"),
    "features of one split": ({"features": {"train": A}}, "features= is given for one split alone"),
    "features of no split": ({"features": {"train": A, "tst": B}}, "features=: there is no split 'tst'; did you mean 'test'?"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_fact_that_cannot_be_used_is_an_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError) as caught:
        found(**given)
    assert message in str(caught.value)


MISSING = {
    "group": ({"group": {"train": [*range(199), NAN], "test": np.arange(300, 400)}}, ["1 of 200 rows of train have no group (None, NaN or empty): not compared"]),
    "time": ({"time": {"train": np.arange(200), "test": [None, None, *range(200, 298)]}}, ["2 of 100 rows of test have no time (None, NaN or empty): not compared"]),
    "group of a third split": ({"val": C, "group": {"train": np.arange(200), "test": np.arange(300, 400)}}, ["group= has nothing for val: it is not compared there"]),
    "label of one split": ({"train": table(A, sick=np.arange(200)), "test": table(B), "label": "sick"}, ["label= gives no label in test: its labels are not compared"]),
    "nothing": ({"time": DAYS, "gap": datetime.timedelta(0), "group": {"train": np.arange(200), "test": np.arange(300, 400)}}, []),
    "tensors": (in_form(tensors, group={"train": np.arange(200), "test": np.arange(300, 400)}), []),
    "a number of numpy's": ({"time": TIMES, "gap": np.int64(0)}, []),
}  # fmt: skip


@pytest.mark.parametrize(("given", "warnings"), MISSING.values(), ids=MISSING)
def test_what_lacks_is_counted_and_said(given: dict[str, Any], warnings: list[str]) -> None:
    answer = found(**given)
    assert answer.ok
    assert [each.message for each in answer.judgement.findings if each.outcome == "warning"] == warnings


def test_labels_given_for_tensors_take_the_place_of_their_own() -> None:
    copied = torch.tensor(np.concatenate([B[:99], A[:1]]))
    labels = {"train": np.zeros(200), "test": np.ones(100)}
    answer = found(train=tensors(A), test=TensorDataset(copied, torch.zeros(100)), label=labels)
    assert [(each["label_a"], each["label_b"]) for each in answer.conflicts] == [(1.0, 0.0)]
