"""Answers that dropout takes away, and labels that share one probability."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from pytest_overfit.adapters.base import Head, Reading
from pytest_overfit.core.arrays import Array
from pytest_overfit.probes.wiring import answers_dropped, several_labels

RNG = np.random.default_rng(0)
SCORES, LABELS = RNG.normal(size=(24, 3)), np.arange(24) % 3
ONE_HOT = np.eye(3)[LABELS]


def head(outputs: Array, targets: Array = LABELS, **more: Any) -> Head:
    return Head(**{"kind": "classes", "outputs": outputs, "targets": targets, "loss_name": "cross_entropy", **more})


class Answering:
    """A learner that answers so in training."""

    def __init__(self, trained: Any, fit: Array = SCORES, heads: bool = True) -> None:
        self.trained, self.inputs = trained, (RNG.normal(size=(24, 5)),)
        self.known = Reading(loss=1.0, outputs=(fit,), heads=(head(fit),) if heads else ())

    def read(self, mode: str) -> Reading:
        assert mode == "train"
        return Reading(loss=1.0, outputs=(self.trained(),))

    def faults(self) -> list[str]:
        measured = answers_dropped.look(cast("Any", self), self.known)
        return [each.name for each in answers_dropped.faults(measured)]


def dropped(values: Array, rate: float = 0.5) -> Array:
    return np.asarray(values * (RNG.uniform(size=values.shape) >= rate) / (1 - rate))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_behind_the_last_layer(rate: float) -> None:
    assert Answering(lambda: dropped(SCORES, rate)).faults() == ["dropout_on_output"]
    positive = np.exp(SCORES)  # of probabilities too: what stays has one factor
    assert Answering(lambda: dropped(positive, rate), positive).faults() == ["dropout_on_output"]


def test_dropout_before_it() -> None:
    assert Answering(lambda: SCORES).faults() == []
    assert Answering(lambda: SCORES + 0.1 * RNG.normal(size=SCORES.shape)).faults() == []
    above = np.maximum(SCORES + 1.5, 0.1)  # a ReLU that is on in evaluation, and off where dropout moved it
    assert Answering(lambda: np.maximum(above + RNG.normal(size=above.shape), 0.0), above).faults() == []
    assert Answering(lambda: np.maximum(SCORES + RNG.normal(size=(24, 3)), 0), np.maximum(SCORES, 0)).faults() == []


def test_features_that_no_loss_predicts_with() -> None:
    assert Answering(lambda: dropped(SCORES), heads=False).faults() == []


def labelled(targets: Array, inputs: Array = SCORES, **more: Any) -> list[str]:
    learner = cast("Any", Answering(None))
    learner.inputs = (inputs,)
    known = Reading(loss=1.0, outputs=(SCORES,), heads=(head(SCORES, targets, **more),))
    return [each.name for each in several_labels.faults(several_labels.look(learner, known))]


def test_several_labels_under_one_probability() -> None:
    tags = (RNG.uniform(size=(24, 3)) > 0.4).astype(float)
    assert labelled(tags) == ["wrong_loss"]
    assert labelled(0.9 * tags + 0.05) == ["wrong_loss"]
    assert labelled(tags, inputs=tags) == []  # what was bought, given and asked for
    assert labelled(tags, kind="binary") == []


@pytest.mark.parametrize(
    "targets",
    [
        LABELS,
        ONE_HOT,
        0.9 * ONE_HOT + 0.1 / 3,  # smoothed
        0.6 * ONE_HOT + 0.4 * ONE_HOT[::-1],  # mixed up
        np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True),  # a teacher's
        ONE_HOT * 2.5,  # weighted
        RNG.poisson(2.0, size=(24, 3)).astype(float),  # counted
    ],
)
def test_targets_that_are_shares(targets: Array) -> None:
    assert labelled(targets) == []
