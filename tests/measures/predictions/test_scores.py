"""Scores of a whole split, against scikit-learn's, and the same however the split is cut."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, r2_score

from pytest_overfit.adapters.base import Head, Reading
from pytest_overfit.adapters.trainer import ChunkReading
from pytest_overfit.measures.predictions.scores import Scores, scores_of


def chunks(cuts: list[int], *heads: dict[str, Any], loss: float | None = 1.0) -> list[ChunkReading]:
    rows = len(heads[0]["targets"])
    edges = sorted({0, rows, *(cut % rows for cut in cuts)})
    found = []
    for start, stop in itertools.pairwise(edges):
        part = slice(start, stop)
        cut = [
            Head(**{k: v[part] if k in ("outputs", "targets", "mask") else v for k, v in head.items()})
            for head in heads
        ]
        found.append(ChunkReading(rows=stop - start, reading=Reading(loss=loss, heads=tuple(cut)), targets=()))
    return found


CUTS = st.lists(st.integers(1, 1000), max_size=4)


@given(seed=st.integers(0, 9999), cuts=CUTS)
@settings(deadline=None)
def test_accuracy_is_scikit_learns_and_does_not_depend_on_the_cuts(seed: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    outputs, targets = random.normal(size=(40, 3)), random.integers(0, 3, 40)
    found = scores_of(chunks(cuts, {"kind": "classes", "outputs": outputs, "targets": targets}), None)
    assert found.score == pytest.approx(accuracy_score(targets, outputs.argmax(1)))
    assert found.chance == pytest.approx(np.bincount(targets).max() / 40)
    assert (found.metric, found.rows, found.loss) == ("accuracy", 40, 1.0)


@given(seed=st.integers(0, 9999), cuts=CUTS, offset=st.sampled_from([0.0, 1e6]))
@settings(deadline=None)
def test_r2_is_scikit_learns_also_far_from_zero(seed: int, cuts: list[int], offset: float) -> None:
    random = np.random.default_rng(seed)
    targets = random.normal(size=(40, 2)) + offset
    outputs = targets + random.normal(size=(40, 2))
    found = scores_of(chunks(cuts, {"kind": "values", "outputs": outputs, "targets": targets}), None)
    assert found.score == pytest.approx(r2_score(targets, outputs), abs=1e-6)
    assert (found.metric, found.chance) == ("R2", 0.0)


def test_yes_or_no_by_logits_and_by_probabilities() -> None:
    targets = np.array([[0.0], [1.0], [1.0], [0.0]])
    logits = np.array([[-1.0], [2.0], [-1.0], [0.4]])
    asked = {"kind": "binary", "outputs": logits, "targets": targets}
    assert scores_of(chunks([], asked), None).score == 0.5
    assert scores_of(chunks([], {**asked, "domain": "probabilities"}), None).score == 0.75


def test_masked_tokens_and_padding_do_not_count() -> None:
    targets = np.array([[1, 2, 0, 0], [2, 1, 1, 0], [1, 1, 2, 2]])
    outputs = np.eye(3)[targets]
    outputs[0, 2] = [0, 1, 0]  # wrong on padding
    outputs[2, 0] = [0, 0, 1]  # wrong on a token that is masked below
    mask = np.ones(targets.shape, bool)
    mask[2, 0] = False
    found = scores_of(chunks([], {"kind": "classes", "outputs": outputs, "targets": targets, "mask": mask}), None)
    assert found.score == 1.0


def test_missing_targets_and_constant_columns_do_not_count() -> None:
    targets = np.array([[1.0, 5.0], [2.0, 5.0], [np.nan, 5.0], [4.0, 5.0]])
    outputs = np.array([[1.0, 0.0], [2.0, 0.0], [99.0, 0.0], [4.0, 0.0]])
    assert scores_of(chunks([], {"kind": "values", "outputs": outputs, "targets": targets}), None).score == 1.0


def test_the_cases_own_score_wins_and_rows_weigh_its_parts() -> None:
    parts = [
        ChunkReading(rows=rows, reading=Reading(loss=loss), targets=(), score=score)
        for rows, loss, score in ((30, 1.0, 0.5), (10, 3.0, 0.9))
    ]
    assert scores_of(parts, None) == Scores(loss=1.5, score=0.6, metric="score", chance=None, rows=40)


def test_what_cannot_be_scored_is_not_measured() -> None:
    parts = [ChunkReading(rows=4, reading=Reading(loss=None, outputs=(np.zeros((4, 7)),)), targets=(np.zeros((4, 2)),))]
    assert scores_of(parts, None) == Scores(loss=None, score=None, metric="", chance=None, rows=4)


def test_a_nan_among_the_outputs_is_no_good_score() -> None:
    targets = np.arange(4.0)[:, None]
    found = scores_of(chunks([], {"kind": "values", "outputs": targets * np.nan, "targets": targets}), None)
    assert found.score is not None
    assert np.isnan(found.score)
