"""Planted copies and their clean twins in every container; unsteady, broken, endless and wrong ones."""

# ruff: noqa: E501, PLE0303 - tables of cases, one a line

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from pytest_overfit import CaseError, find_duplicates

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(140, 2, 3)).astype("f4")
Y = np.arange(140) % 3
#: rows of the test split that are copies in the planted twin, and where they come from
COPIES = {2: 7, 5: 8, 11: 30}


def halves(planted: bool) -> tuple[Any, Any, Any, Any]:
    train, test = X[:100].copy(), X[100:].copy()
    labels, test_labels = Y[:100].copy(), Y[100:].copy()
    if planted:
        for row, source in COPIES.items():
            test[row], test_labels[row] = train[source], labels[source]
    return train, labels, test, test_labels


class Pictures(Dataset):
    """A dataset with a transform, as users write them."""

    def __init__(self, x: Any, y: Any, transform: Any = None, broken: int | None = None) -> None:
        self.x, self.y, self.transform, self.broken = x, y, transform, broken

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index == self.broken:
            raise OSError("truncated file")
        x = torch.tensor(self.x[index])
        return x if self.transform is None else self.transform(x), int(self.y[index])


class Stream(IterableDataset):
    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.tensor(x), int(y)) for x, y in zip(self.x, self.y, strict=True)])


def flat(x: Any) -> Any:
    return x.reshape(len(x), -1)


def named(x: Any, y: Any) -> dict[str, Any]:
    return {**{f"f{place}": column for place, column in enumerate(flat(x).T)}, "label": y}


def pandas_table(x: Any, y: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame(named(x, y))


def pandas_pair(x: Any, y: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(flat(x)), pandas.Series(y)


def polars_table(x: Any, y: Any) -> Any:
    return pytest.importorskip("polars").DataFrame(named(x, y))


def arrow_table(x: Any, y: Any) -> Any:
    return pytest.importorskip("pyarrow").table(named(x, y))


def hugging_face(x: Any, y: Any) -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(
        {"pixels": [each.tolist() for each in x], "label": y.tolist()}
    )


def hugging_face_numpy(x: Any, y: Any) -> Any:
    return hugging_face(x, y).with_format("numpy")


def tensorflow_dataset(x: Any, y: Any) -> Any:
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((x, y))


def keras_dataset(x: Any, y: Any) -> Any:
    keras = pytest.importorskip("keras")

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return -(-len(x) // 16)

        def __getitem__(self, index: int) -> Any:
            part = slice(16 * index, 16 * index + 16)
            return x[part], y[part]

    return Batches()


def sparse(x: Any, y: Any) -> Any:
    scipy = pytest.importorskip("scipy.sparse")
    return scipy.csr_matrix(np.where(np.abs(flat(x)) > 0.2, flat(x), 0)), y


def with_strings(x: Any, y: Any) -> Any:
    return {"name": [f"row {each.tobytes().hex()}" for each in x], "size": x[:, 0, 0], "label": y}


def memory_mapped(x: Any, y: Any) -> Any:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, x)
        return np.load(file.name, mmap_mode="r"), y


CONTAINERS: dict[str, Callable[[Any, Any], Any]] = {
    "numpy": lambda x, y: (x, y),
    "numpy alone": lambda x, y: x,
    "float16": lambda x, y: (x.astype("f2"), y),
    "big endian": lambda x, y: (x.astype(">f8"), y),
    "column-major": lambda x, y: (np.asfortranarray(x), y),
    "strided": lambda x, y: (np.repeat(x, 2, axis=0)[::2], y),
    "structured": lambda x, y: np.array([(each[0, 0], each[1, 2]) for each in x], [("a", "f8"), ("b", "f4")]),
    "complex": lambda x, y: (x + 1j, y),
    "dates": lambda x, y: (flat(x * 1e6).astype("i8").astype("M8[s]"), y),
    "memory map": memory_mapped,
    "lists": lambda x, y: (x.tolist(), y.tolist()),
    "list of arrays": lambda x, y: list(x),
    "list of samples": lambda x, y: list(zip(x, y.tolist(), strict=True)),
    "list of dicts": lambda x, y: [{"a": each, "label": int(one)} for each, one in zip(x, y, strict=True)],
    "ragged": lambda x, y: ([each.ravel()[: 3 + int(each[0, 0] > 0)] for each in x], y),
    "ragged objects": lambda x, y: (np.array([each.ravel()[: 3 + int(each[0, 0] > 0)] for each in x] + [None], object)[:-1], y),
    "nested lists": lambda x, y: ([[["a", str(each[0, 0])], each[0].tolist()] for each in x], y),
    "texts": lambda x, y: [f"a text about {each.tobytes().hex()}" for each in x],
    "bytes": lambda x, y: ([each.tobytes() for each in x], y),
    "tensors": lambda x, y: (torch.tensor(x), torch.tensor(y)),
    "bfloat16": lambda x, y: (torch.tensor(x).bfloat16(), torch.tensor(y)),
    "dict of arrays": lambda x, y: ({"a": x, "b": x[:, 0] * 2}, y),
    "tuple of arrays": lambda x, y: ((x, x[:, 0] * 2), y),
    "table of strings and numbers": with_strings,
    "pandas": pandas_table,
    "pandas and series": pandas_pair,
    "polars": polars_table,
    "arrow": arrow_table,
    "hugging face": hugging_face,
    "hugging face numpy": hugging_face_numpy,
    "sparse": sparse,
    "tensor dataset": lambda x, y: TensorDataset(torch.tensor(x), torch.tensor(y)),
    "torch dataset": lambda x, y: Pictures(x, y),
    "torch subset": lambda x, y: Subset(Pictures(np.concatenate([x[:3], x]), np.concatenate([y[:3], y])), range(3, 3 + len(x))),
    "subset of tensors": lambda x, y: Subset(TensorDataset(torch.tensor(x[::-1].copy()), torch.tensor(y[::-1].copy())), list(range(len(x)))[::-1]),
    "torch loader": lambda x, y: DataLoader(Pictures(x, y), batch_size=8, shuffle=True),
    "loader with collate_fn": lambda x, y: DataLoader(Pictures(x, y), batch_size=8, collate_fn=lambda rows: (torch.stack([a for a, _ in rows]), torch.tensor([b for _, b in rows]))),
    "loader with a sampler": lambda x, y: DataLoader(Pictures(x, y), batch_size=8, sampler=SubsetRandomSampler(range(len(x)))),
    "torch iterable": lambda x, y: Stream(x, y),
    "loader of an iterable": lambda x, y: DataLoader(Stream(x, y), batch_size=7),
    "tf.data": tensorflow_dataset,
    "tf.data batches": lambda x, y: tensorflow_dataset(x, y).batch(9),
    "tf.data shuffled": lambda x, y: tensorflow_dataset(x, y).shuffle(1000).batch(9),
    "keras": keras_dataset,
    "function": lambda x, y: lambda: (x, y),
    "function that makes generators": lambda x, y: lambda: zip(x, y, strict=True),
    "batches": lambda x, y: lambda: iter([(x[at : at + 8], y[at : at + 8]) for at in range(0, len(x), 8)]),
}  # fmt: skip

UNORDERED = ("tf.data shuffled",)


@pytest.mark.parametrize("name", CONTAINERS)
def test_copies_are_found_and_the_clean_twin_passes(name: str) -> None:
    make = CONTAINERS[name]
    x, y, test, labels = halves(planted=True)
    found = find_duplicates(train=make(x, y), test=make(test, labels), near=False, windows=False)
    assert found.outcome == "failed", found
    assert found.measured["across"][0]["rows"] == len(COPIES)
    assert found.conflicts == []
    if name not in UNORDERED:
        assert {each["i"]: each["j"] for each in found.pairs} == COPIES
        assert found.measured["info"]["unverified"] == 0
    x, y, test, labels = halves(planted=False)
    clean = find_duplicates(train=make(x, y), test=make(test, labels), near=False, windows=False)
    assert clean.outcome == "passed", clean
    assert clean.clean("test") == list(range(40))


WITH_LABELS = [
    name for name in CONTAINERS if name not in ("numpy alone", "structured", "list of arrays", "texts", *UNORDERED)
]


@pytest.mark.parametrize("name", WITH_LABELS)
def test_another_label_is_a_conflict(name: str) -> None:
    x, y, test, labels = halves(planted=True)
    labels[5] = (labels[5] + 1) % 3
    found = find_duplicates(
        train=CONTAINERS[name](x, y), test=CONTAINERS[name](test, labels), near=False, windows=False
    )
    assert [each["i"] for each in found.conflicts] == [5]


PAIRS = [
    ("numpy", "torch dataset"), ("torch loader", "tf.data"), ("tensors", "lists"), ("pandas", "polars"),
    ("arrow", "pandas"), ("keras", "torch iterable"), ("numpy", "batches"), ("list of samples", "memory map"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_containers_may_differ(one: str, other: str) -> None:
    x, y, test, labels = halves(planted=True)
    found = find_duplicates(
        train=CONTAINERS[one](x, y), test=CONTAINERS[other](test, labels), near=False, windows=False
    )
    assert {each["i"]: each["j"] for each in found.pairs} == COPIES


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
@pytest.mark.parametrize("name", ["numpy", "texts", "dict of arrays", "pandas"])
def test_an_executor_gives_the_same_answer(name: str, pool: Any) -> None:
    import multiprocessing

    x, y, test, labels = halves(planted=True)
    make = CONTAINERS[name]
    more = {"mp_context": multiprocessing.get_context("spawn")} if pool is ProcessPoolExecutor else {}
    with pool(2, **more) as executor:
        found = find_duplicates(train=make(x, y), test=make(test, labels), near=False, windows=False, executor=executor)
    alone = find_duplicates(train=make(x, y), test=make(test, labels), near=False, windows=False)
    for each in (found, alone):
        each.measured["info"].pop("seconds")
    assert found.measured == alone.measured


def test_folders_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    x = RANDOM.integers(0, 256, (12, 8, 8, 3), "u1")
    for split, rows in (("train", x[:8]), ("test", np.concatenate([x[8:], x[:1]]))):
        for number, pixels in enumerate(rows):
            folder = tmp_path / split / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).save(folder / f"{number}.{'png' if split == 'train' else 'bmp'}")
    found = find_duplicates(train=tmp_path / "train", test=str(tmp_path / "test"), near=False)
    assert [(each["label_a"], each["label_b"]) for each in found.pairs] == [("a", "a")]


def test_text_is_folded_on_request() -> None:
    train, test = ["Caf\u00e9  au lait", "tea"], ["cafe\u0301 AU lait\n", "coffee"]
    assert find_duplicates(train=train, test=test, near=False).ok
    assert find_duplicates(train=train, test=test, near=False, text="normalized").measured["touched"]["test"][
        "exact"
    ] == [0]
    stream = find_duplicates(train=lambda: iter(train), test=test, near=False, text="normalized")
    assert stream.measured["touched"]["test"]["exact"] == [0]


def test_tables_are_compared_by_name_without_row_numbers_and_labels() -> None:
    columns = {"id": np.arange(50), "a": RANDOM.normal(size=50), "b": RANDOM.normal(size=50), "y": np.arange(50) % 2}
    test = {"b": columns["b"][:9], "y": columns["y"][:9], "a": columns["a"][:9], "id": np.arange(100, 109)}
    found = find_duplicates(train=columns, test=test, label="y")
    assert found.rate == 1.0
    assert "left out, because they only number the rows: id" in found.info["notes"]
    test.pop("y")
    less = find_duplicates(train=columns, test=test)
    assert (less.rate, less.ok) == (1.0, False)
    assert any("left out: y" in each for each in less.info["notes"])


def test_key_and_label_may_be_functions() -> None:
    x, y, test, labels = halves(planted=False)
    x[:, 1], test[:, 1] = 0, 0
    test[4, 0] = x[9, 0]
    test[4, 1] = 5
    found = find_duplicates(train=(x, y), test=(test, labels), near=False)
    assert found.rate == 0
    found = find_duplicates(
        train=Pictures(x, y), test=Pictures(test, labels), key=lambda sample: sample[0][0], near=False
    )
    assert [(each["i"], each["j"]) for each in found.pairs] == [(4, 9)]
    table = {"a": np.arange(9.0) ** 2, "b": np.arange(9) * 3}
    other = {"a": np.arange(4.0) ** 2, "b": np.arange(4) - 30}
    assert find_duplicates(train=table, test=other, key="a", near=False).rate == 1.0


# -------------------------------------------------------------------------------------------------- what cannot be believed


def noisy(x: Any) -> Any:
    return x + torch.randn(()) * 0.1


def sometimes(x: Any) -> Any:
    return x.flip(-1) if torch.rand(()) < 0.3 else x


@pytest.mark.parametrize("change", [noisy, sometimes])
def test_random_transforms_are_taken_off(change: Any) -> None:
    x, y, test, labels = halves(planted=True)
    found = find_duplicates(train=Pictures(x, y, change), test=Pictures(test, labels), near=False)
    assert {each["i"]: each["j"] for each in found.pairs} == COPIES
    assert any("without them" in each for each in found.info["notes"])
    x, y, test, labels = halves(planted=False)
    assert find_duplicates(train=DataLoader(Pictures(x, y, change)), test=Pictures(test, labels), near=False).ok


class Augmented(Pictures):
    """Random where nobody can take it off."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        x, y = super().__getitem__(index)
        return noisy(x), y


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: DataLoader(data, shuffle=True), lambda data: Subset(data, range(40))])  # fmt: skip
def test_random_data_are_never_called_clean(wrap: Any) -> None:
    x, y, test, labels = halves(planted=True)
    found = find_duplicates(train=wrap(Augmented(x, y)), test=Pictures(test, labels), near=False)
    assert found.outcome == "inconclusive"
    assert "augmented at random" in found.judgement.summary


def test_a_random_stream_is_noticed_and_a_shuffled_one_is_not_taken_for_it() -> None:
    x, _, test, _ = halves(planted=False)

    def random_order() -> Iterator[Any]:
        return iter([x[place] for place in np.random.permutation(len(x))])

    assert find_duplicates(train=random_order, test=list(test), near=False).ok
    found = find_duplicates(train=lambda: (each + np.random.normal() for each in x), test=list(test), near=False)
    assert found.outcome == "inconclusive"


def test_a_sample_that_raises_is_named_and_the_rest_is_checked() -> None:
    x, y, test, labels = halves(planted=True)
    found = find_duplicates(train=Pictures(x, y, broken=50), test=Pictures(test, labels), near=False)
    assert {each["i"]: each["j"] for each in found.pairs} == COPIES
    assert any(
        "sample 50 could not be read: OSError: truncated file" in each.message for each in found.judgement.findings
    )
    x, y, test, labels = halves(planted=False)
    clean = find_duplicates(train=Pictures(x, y), test=Pictures(test, labels, broken=0), near=False)
    assert clean.outcome == "inconclusive"
    assert "sample 0 could not be read" in clean.judgement.summary


def test_a_generator_is_read_once_and_wholly() -> None:
    x, y, test, labels = halves(planted=True)
    found = find_duplicates(train=zip(x, y, strict=True), test=zip(test, labels, strict=True), near=False)
    assert {each["i"]: each["j"] for each in found.pairs} == COPIES
    x, y, test, labels = halves(planted=False)
    clean = find_duplicates(train=zip(x, y, strict=True), test=(test, labels), near=False)
    assert clean.outcome == "inconclusive"
    assert "give a function that returns it" in clean.judgement.summary


def test_endless_streams_are_bounded_and_told() -> None:
    x, _, test, _ = halves(planted=True)
    again = find_duplicates(train=lambda: itertools.cycle(x), test=list(test), near=False)
    assert {each["i"]: each["j"] for each in again.pairs} == COPIES
    assert "train starts again after 100 samples: read once" in again.info["notes"]
    endless = find_duplicates(train=lambda: (np.full(3, each) for each in itertools.count()), test=np.ones((4, 3)) / 2, near=False, max_samples=5_000)  # fmt: skip
    assert endless.info["splits"]["train"]["samples"] <= 6_024


def test_an_endless_stream_that_nobody_bounded_is_no_clean_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_overfit.duplicates import search as measuring

    monkeypatch.setattr(measuring, "MAX_SAMPLES", 3_000)
    found = find_duplicates(
        train=lambda: (np.full(3, each) for each in itertools.count()), test=np.ones((4, 3)) / 2, near=False
    )
    assert found.outcome == "inconclusive"
    assert "it goes on after the first" in found.judgement.summary


def test_padded_batches_are_told() -> None:
    rows = [np.arange(1 + each % 5) + each for each in range(40)]

    def padded(rows: Any) -> Any:
        for at in range(0, len(rows), 4):
            part = rows[at : at + 4]
            width = max(map(len, part))
            yield np.stack([np.pad(each, (0, width - len(each))) for each in part]), np.zeros(len(part))

    found = find_duplicates(train=lambda: padded(rows), test=lambda: padded(rows[20:27]), near=False)
    assert found.outcome in ("failed", "inconclusive")
    assert any("different widths" in each.message for each in found.judgement.findings)


# ----------------------------------------------------------------------------------------------------------------- misuse

A = np.zeros((4, 3))

WRONG = {
    "one split": (lambda: find_duplicates(train=A), "got train= alone; expected two splits or more"),
    "none": (lambda: find_duplicates(), "got no split; expected two splits"),
    "empty": (lambda: find_duplicates(train=A, test=A[:0]), "test= is empty"),
    "empty list": (lambda: find_duplicates(train=[], test=[]), "train= is empty"),
    "empty stream": (lambda: find_duplicates(train=A, test=lambda: iter([])), "test= is empty"),
    "width": (lambda: find_duplicates(train=A, test=np.zeros((4, 5))), r"different shapes \(train \(3,\), test \(5,\)\)"),
    "kind": (lambda: find_duplicates(train=A, test=["a", "b"]), r"different kinds \(train numbers, test text\)"),
    "parts": (lambda: find_duplicates(train={"a": A}, test={"b": A}), "different parts"),
    "labels": (lambda: find_duplicates(train=(A, [1, 2]), test=A), "x has 4 rows and y has 2"),
    "a number": (lambda: find_duplicates(train=A, test=3), "test= is 3; expected arrays"),
    "no folder": (lambda: find_duplicates(train="nowhere", test=A), "train= is 'nowhere', which is not a folder"),
    "unhashable": (lambda: find_duplicates(train=[object()], test=[object()]), "cannot be compared by value; give key="),
    "executor": (lambda: find_duplicates(train=A, test=A, executor=3), "expected something with a method `map`"),
    "text": (lambda: find_duplicates(train=A, test=A, text="folded"), "text='folded'"),
    "near": (lambda: find_duplicates(train=A, test=A, near="never"), "near='never'"),
    "max_rate": (lambda: find_duplicates(train=A, test=A, max_rate=1), "max_rate: expected a number of 0 or more and below 1, got 1"),
    "allow without a reason": (lambda: find_duplicates(train=A, test=A, allow=["test:3"]), "without a reason"),
    "allow of nothing": (lambda: find_duplicates(train=A, test=A, allow={"tset:3": "x"}), "neither a place in train or test"),
    "group": (lambda: find_duplicates(train=A, test=A, group="patient"), "group='patient' names a column"),
    "column": (lambda: find_duplicates(train={"a": A}, test={"a": A}, group="b"), "group='b': train has no such column"),
    "label split": (lambda: find_duplicates(train=A, test=A, label={"tset": [1]}), "there is no split 'tset'"),
    "key": (lambda: find_duplicates(train={"a": A}, test={"a": A}, key="b"), "a sample has no 'b'"),
    "raises": (lambda: find_duplicates(train=lambda: 1 / 0, test=A), "the function given as train raised ZeroDivisionError"),
    "clean": (lambda: find_duplicates(train=A, test=A).clean("val"), "there is no such split"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_misuse_is_told(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(CaseError, match=message):
        call()


def test_rows_of_another_shape_but_as_many_numbers_are_compared() -> None:
    x, _, test, _ = halves(planted=True)
    found = find_duplicates(train=flat(x), test=test, near=False)
    assert {each["i"]: each["j"] for each in found.pairs} == COPIES
    assert found.info["differences"][0][0] == "shape"


def test_nothing_heavy_is_imported_and_the_data_are_not_changed() -> None:
    program = """
        import sys
        import numpy as np
        from pytest_overfit import find_duplicates
        x = np.random.default_rng(0).normal(size=(200, 5)); before = x.copy()
        assert find_duplicates(train=x[:150], test=x[150:]).ok
        assert find_duplicates(train=["a text", "b text"], test=["c text"]).ok
        assert (x == before).all()
        print([each for each in ("torch", "tensorflow", "keras", "pandas", "polars", "pyarrow", "sklearn", "pytest") if each in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
