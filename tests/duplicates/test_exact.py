"""Exact copies against a brute-force oracle: every number type, order and stride, hash collisions and hard cases."""

# ruff: noqa: E501, PLR0124, PLC3002 - tables of cases, one a line

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit import find_duplicates
from pytest_overfit.duplicates.exact import in_memory as exact
from pytest_overfit.duplicates.exact import rows as columns
from pytest_overfit.duplicates.exact.in_memory import overlap, repeats
from pytest_overfit.duplicates.exact.rows import RowsInMemory, all_keys, choose_columns
from pytest_overfit.duplicates.values import lasting_names as naming
from pytest_overfit.duplicates.values.canonical import canonical, common_dtype, compared
from pytest_overfit.duplicates.values.lasting_names import lasting_name, lasting_names

#: the gate runs a few, `OVERFIT_FUZZ=10000 pytest tests/duplicates/test_exact.py -k oracle` many
CASES = int(os.environ.get("OVERFIT_FUZZ", "60"))

DTYPES = ("f8", "f4", "f2", "i8", "i4", "u1", "?", "u8", "c8", ">f8", ">i4")


# -------------------------------------------------------------------------------------------------------------- oracle


def value_of(number: Any, dtype: str) -> Any:
    """One number as the rules have it: Python decides what is equal."""
    if isinstance(number, (complex, np.complexfloating)):
        return value_of(number.real, dtype), value_of(number.imag, dtype)
    number = np.dtype(dtype).type(number) if dtype.endswith(("f2", "f4", "f8")) else number
    plain = number.item() if hasattr(number, "item") else number
    return "nan" if plain != plain else plain  # -0.0 == 0.0 == False, and they hash alike


def row_values(array: Any, dtype: str) -> list[Any]:
    return [tuple(value_of(each, dtype) for each in row.ravel()) for row in array]


def oracle(a: list[Any], b: list[Any]) -> tuple[list[int], list[int]]:
    in_a, in_b = set(a), set(b)
    return [i for i, row in enumerate(a) if row in in_b], [i for i, row in enumerate(b) if row in in_a]


def oracle_within(rows: list[Any]) -> list[int]:
    return [i for i, row in enumerate(rows) if rows.count(row) > 1]


VALUES = [0, 1, 2, 3, 255, -0.0, 0.5, 0.1, float("nan"), float("inf"), -1]


def laid_out(array: Any, how: str) -> Any:
    if how == "F":
        return np.asfortranarray(array)
    if how == "strided":
        wide = np.zeros((2 * len(array), *array.shape[1:]), array.dtype)
        wide[::2] = array
        return wide[::2]
    if how == "reversed":
        return array[::-1].copy()[::-1]
    return array


@st.composite
def arrays(draw: Any, width: int) -> Any:
    dtype = draw(st.sampled_from(DTYPES))
    rows = draw(st.integers(1, 12))
    pool = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=4))
    if np.dtype(dtype).kind in "iu":
        pool = [int(abs(each)) % 200 if each == each and abs(each) != float("inf") else 7 for each in pool]
    flat = draw(st.lists(st.sampled_from(pool), min_size=rows * width, max_size=rows * width))
    with np.errstate(all="ignore"):
        array = np.array(flat).reshape(rows, width).astype(dtype)
    if draw(st.booleans()):
        array = array.reshape(rows, width, 1)
    return laid_out(array, draw(st.sampled_from(["C", "F", "strided", "reversed"])))


@st.composite
def pairs(draw: Any) -> tuple[Any, Any]:
    width = draw(st.integers(1, 5))
    a = draw(arrays(width))
    b = draw(arrays(width))
    if draw(st.booleans()):  # of one type, and with rows in common
        b = b.real if b.dtype.kind == "c" and a.dtype.kind != "c" else b
        with np.errstate(all="ignore"):
            cast = b.reshape(len(b), -1).astype(a.dtype)
        b = np.concatenate([cast, a.reshape(len(a), -1)[: draw(st.integers(0, 6))]])
        b = b.reshape(len(b), *a.shape[1:])
    return a, b


def complexity(array: Any) -> int:
    return 2 if array.dtype.kind == "c" else 1


@given(pairs())
@settings(max_examples=CASES, deadline=None)
def test_find_duplicates_agrees_with_the_oracle(pair: tuple[Any, Any]) -> None:
    a, b = pair
    if complexity(a) != complexity(b):
        return
    plain = [each.real if each.dtype.kind == "c" else each for each in (a, b)]
    how = compared({"train": _plain(plain[0]), "test": _plain(plain[1])})
    if how.scaled:
        return  # a finding of its own, tested below
    dtype = common_dtype([_plain(each).dtype for each in plain])
    rows_a, rows_b = row_values(a, dtype), row_values(b, dtype)
    with np.errstate(all="ignore"):
        found = find_duplicates(train=a, test=b, near=False, windows=False)
        streamed = find_duplicates(train=lambda: iter(list(a)), test=lambda: iter(list(b)), near=False, windows=False)
    want_a, want_b = oracle(rows_a, rows_b)
    for name, each in (("memory", found), ("streamed", streamed)):
        assert each.measured["touched"]["test"]["exact"] == want_b, name
        assert each.measured["touched"]["train"]["exact"] == want_a, name
        assert each.within["train"]["rows"] == len(oracle_within(rows_a)), name
        assert each.within["test"]["rows"] == len(oracle_within(rows_b)), name
        for pair_ in each.pairs:
            assert rows_b[pair_["i"]] == rows_a[pair_["j"]], name


def _plain(array: Any) -> Any:
    from pytest_overfit.duplicates.values.canonical import plain_numbers

    return plain_numbers(np.ascontiguousarray(array))


# ---------------------------------------------------------------------------------------------------------- hard cases


def found_rows(a: Any, b: Any) -> tuple[list[int], list[int]]:
    how = compared({"a": a, "b": b})
    left, right = RowsInMemory("a", (a,), (how,)), RowsInMemory("b", (b,), (how,))
    chosen = choose_columns(left)
    shared = overlap(left, all_keys(left, chosen), right, all_keys(right, chosen))
    return shared.rows_a.tolist(), shared.rows_b.tolist()


RANDOM = np.random.default_rng(0)

HARD = {
    "constant rows": lambda: (np.zeros((3_000, 5)), np.zeros((700, 5))),
    "one pixel a row": lambda: (np.eye(400, dtype="u1"), np.eye(400, dtype="u1")[::2].copy()),
    "only the last column differs": lambda: (
        np.concatenate([np.zeros((500, 30)), np.arange(500.0)[:, None]], axis=1),
        np.concatenate([np.zeros((90, 30)), np.arange(450.0, 540.0)[:, None]], axis=1),
    ),
    "two signs flipped": lambda: _flipped(RANDOM.normal(size=(300, 8))),
    "columns swapped": lambda: (lambda x: (x, x[:50, ::-1].copy()))(RANDOM.normal(size=(300, 8))),
    "binary": lambda: (RANDOM.integers(0, 2, (2_000, 12), "u1"), RANDOM.integers(0, 2, (300, 12), "u1")),
    "one row": lambda: (np.ones((1, 3)), np.ones((1, 3))),
    "one number": lambda: (np.arange(40), np.arange(20, 60)),
    "wide": lambda: (lambda x: (x, np.concatenate([x[3:6], x[:4] + 1])))(RANDOM.normal(size=(40, 9_000)).astype("f4")),
}


def _flipped(x: Any) -> tuple[Any, Any]:
    y = x[:80].copy()
    y[:, [1, 4]] *= -1
    y[:7] = x[:7]
    return x, y


@pytest.mark.parametrize("weak", ["good hashes", "one hash for all"])
@pytest.mark.parametrize("name", HARD)
def test_hard_cases(name: str, weak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = HARD[name]()
    if weak == "one hash for all":  # the comparison alone must sort everything out
        a, b = a[:120], b[:60]
        monkeypatch.setattr(exact, "row_hashes", lambda rows, which: np.zeros(len(which), np.uint64))
        monkeypatch.setattr(columns, "_MOST", 0)
    assert found_rows(a, b) == oracle(row_values(a, str(a.dtype)), row_values(b, str(b.dtype)))


def test_without_xxhash_the_answer_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "xxhash", None)
    for name in HARD:
        test_hard_cases(name, "good hashes", monkeypatch)
    test_labels_are_compared_after_inputs()


def test_repeats_within_are_all_found() -> None:
    x = RANDOM.normal(size=(500, 6))
    x[100:130] = x[:30]
    x[130] = x[0]
    how = compared({"a": x})
    rows = RowsInMemory("a", (x,), (how,))
    found = repeats(rows, all_keys(rows, choose_columns(rows)))
    assert found.rows.tolist() == [*range(30), *range(100, 131)]
    assert len(set(found.ids.tolist())) == 30


# ------------------------------------------------------------------------------------------------------ what is compared


def test_labels_are_compared_after_inputs() -> None:
    x, y = RANDOM.normal(size=(50, 4)), np.arange(50) % 3
    test, labels = np.concatenate([x[:6], RANDOM.normal(size=(20, 4))]), np.arange(26) % 3
    labels[2] = 1
    labels[:2] = y[:2]
    found = find_duplicates(train=(x, y), test=(test, labels))
    assert [each["i"] for each in found.conflicts] == [2]
    assert (found.conflicts[0]["label_a"], found.conflicts[0]["label_b"]) == (1, 2)
    assert found.measured["across"][0]["rows"] == 6
    assert found.clean("test") == list(range(6, 26))
    assert not found.ok


def test_a_copy_with_both_labels_in_train_is_a_conflict() -> None:
    x = np.array([[1.0, 2], [1, 2], [3, 4]])
    found = find_duplicates(train=(x, [0, 1, 1]), test=(np.array([[1.0, 2], [9, 9]]), [0, 1]))
    assert (found.pairs[0]["conflict"], found.pairs[0]["copies"], found.within["train"]["conflicts"]) == (True, 2, 1)


@pytest.mark.parametrize("narrow", ["f4", "f2"])
def test_float_widths_are_compared_in_the_narrower_and_told(narrow: str) -> None:
    x = RANDOM.normal(size=(60, 5))
    found = find_duplicates(train=x, test=x[:20].astype(narrow))
    assert found.measured["touched"]["test"]["exact"] == list(range(20))
    assert found.info["differences"][0][0] == "dtype"
    assert any(each.name == "dtype_differs" and each.outcome == "warning" for each in found.judgement.findings)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_bytes_against_scaled_floats(dtype: str, stream: bool) -> None:
    images = RANDOM.integers(0, 256, (80, 6, 6), "u1")
    scaled = (images[:10].astype("f4") / 255).astype(dtype)
    test: Any = lambda: iter(list(scaled)) if stream else scaled  # noqa: E731
    found = find_duplicates(train=images, test=test, near=False)
    assert found.measured["touched"]["test"]["exact"] == list(range(10))
    assert found.info["differences"][0][0] == "scale"
    back = find_duplicates(train=(images.astype("f4") / 255), test=images[:10], near=False)
    assert back.measured["touched"]["test"]["exact"] == list(range(10))


def test_small_numbers_are_not_taken_for_scaled_bytes() -> None:
    train, test = np.array([[0.0, 1, 2], [3, 1, 0]]), np.array([[0.0, 1, 0.2], [0.4, 1, 0]])
    assert find_duplicates(train=train, test=test, near=False).info["differences"] == []


def test_whole_numbers_and_floats_and_truth_values_are_equal() -> None:
    found = find_duplicates(train=np.array([[1, 0], [2, 3]]), test=np.array([[1.0, -0.0], [2.5, 3.0]]), near=False)
    assert found.measured["touched"]["test"]["exact"] == [0]
    found = find_duplicates(train=np.array([[True, False]]), test=np.array([[1.0, 0.0]]), near=False)
    assert found.rate == 1.0


def test_rows_between_validation_and_test_are_found_too() -> None:
    x = RANDOM.normal(size=(90, 4))
    found = find_duplicates(train=x[:50], val=x[50:75], test=x[70:])
    assert found.rates == {"val in train": 0.0, "test in train": 0.0, "test in val": 5 / 20}
    assert (found.clean("val"), found.clean("test")) == (list(range(20)), list(range(5, 20)))


# ------------------------------------------------------------------------------------------------ repetition, allow-list


def test_natural_repetition_is_named_and_not_passed() -> None:
    pool = RANDOM.normal(size=(40, 4))
    found = find_duplicates(train=pool[RANDOM.integers(0, 40, 400)], test=pool[RANDOM.integers(0, 40, 100)], near=False)
    assert found.outcome == "failed"
    assert "the data repeat" in found.judgement.summary
    assert 0.8 <= found.rate / found.expected_rate <= 1.25


def test_a_leak_is_named_so() -> None:
    x = RANDOM.normal(size=(400, 4))
    assert "a leak" in find_duplicates(train=x, test=x[:100], near=False).judgement.summary


def test_the_rate_may_be_allowed() -> None:
    x = RANDOM.normal(size=(400, 4))
    test = np.concatenate([x[:2], RANDOM.normal(size=(98, 4))])
    assert not find_duplicates(train=x, test=test).ok
    assert find_duplicates(train=x, test=test, max_rate=0.02).ok
    assert not find_duplicates(train=x, test=test, max_rate=0.0199).ok


def test_the_allow_list_takes_places_and_fingerprints_and_tells_stale_ones() -> None:
    x = RANDOM.normal(size=(40, 4))
    test = np.concatenate([RANDOM.normal(size=(8, 4)), x[:2]])
    first = find_duplicates(train=x, test=test)
    mark = next(each["fingerprint"] for each in first.pairs if each["i"] == 9)
    found = find_duplicates(train=x, test=test, allow={"test:8": "a logo", mark: "a blank page"})
    assert (found.ok, found.pairs, found.clean("test")) == (True, [], list(range(10)))
    shuffled = find_duplicates(train=x[::-1], test=test[::-1], allow={mark: "a blank page"})
    assert [each["i"] for each in shuffled.pairs] == [1]
    stale = find_duplicates(train=x, test=test[:8], allow={"test:3": "gone"})
    assert stale.ok
    assert any(each.name == "allow" and each.outcome == "warning" for each in stale.judgement.findings)


def test_the_answer_is_json_and_can_be_read() -> None:
    import json

    x = RANDOM.normal(size=(40, 4))
    found = find_duplicates(train=(x, list("ab") * 20), test=(x[5:15], ["a"] * 10))
    assert json.loads(found.to_json())["across"][0]["rows"] == 10
    text = str(found)
    assert "10 of 10 rows of test (100.00%) have an exact copy in train" in text
    assert "exact: test[0] = train[5], labels 'a' and 'b'" in text


@pytest.mark.parametrize("dtype", [*DTYPES, "S3", "U4", "M8[s]", "O"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 2)])
def test_names_made_at_once_are_those_made_one_by_one(
    dtype: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "AT_ONCE", 256)
    count = 259
    numbers = np.random.default_rng(0).integers(-2, 3, (count, *shape))
    x = (numbers / 2 if dtype.endswith(("f2", "f4", "f8")) else abs(numbers)).astype(dtype)
    columns = {"b": x, "a": [f"text {row}" for row in range(count)], "c": np.full(count, np.nan)}
    rows = [5, *range(count), 0]
    one_by_one = [lasting_name({name: column[row] for name, column in columns.items()}) for row in rows]
    assert lasting_names(columns, rows) == one_by_one
    assert lasting_names({"": np.asfortranarray(x)}, rows) == [lasting_name({"": x[row]}) for row in rows]
    assert lasting_names(columns, []) == []


@pytest.mark.parametrize("numbers", [1, 5, 8, 9, 100, 1 << 20])
def test_names_do_not_depend_on_how_many_are_made_at_once(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row here has seven numbers: less than a row at once, one row, two, all."""
    random = np.random.default_rng(0)
    columns = {
        "x": random.normal(size=(20, 2, 3)).astype("f4"),
        "y": np.arange(20),
        "z": [f"text {n}" for n in range(20)],
    }
    rows = [19, 0, 0, *range(20)]
    expected = lasting_names(columns, rows)
    converted = []

    def counted(values: Any, dtype: str) -> Any:
        converted.append(values.size)
        return canonical(values, dtype)

    monkeypatch.setattr(naming, "canonical", counted)
    monkeypatch.setattr(naming, "AT_ONCE", numbers)
    assert lasting_names(columns, rows) == expected
    assert max(converted) <= max(numbers, 7)
    assert sum(converted) == 7 * len(rows)
