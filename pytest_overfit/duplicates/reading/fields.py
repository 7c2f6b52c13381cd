"""Which part of a sample is the input, which the label, which the group and the time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.tree import to_numpy

#: names under which tables and dict samples carry their labels unless label= is given
LABELS = ("label", "labels", "target", "targets")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of the samples of all splits.

    Each of label, group and time is the name of a column or key, a function of a sample, or a dict with one array a
    split; `key` is a function of a sample, a name or a list of names: what a sample is recognised by.
    """

    label: Any = None
    group: Any = None
    time: Any = None
    key: Any = None
    #: a plain iterable gives batches; None: decided by its first item
    batched: bool | None = None


def parted(samples: Sequence[Any], facts: Facts) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """Input leaves and labels of samples: (x, y), (x, y, more), a dict, or an input alone."""
    pairs = [halves(sample, facts) for sample in samples]
    if callable(facts.key):
        with user_code("the function given as key"):
            inputs = [flat(facts.key(sample)) for sample in samples]
    else:
        inputs = [flat(selected(pair[0], facts)) for pair in pairs]
    if callable(facts.label):
        with user_code("the function given as label"):
            labels = [label_value(facts.label(sample)) for sample in samples]
        return inputs, None if all(each is None for each in labels) else labels
    if all(pair[1] is None for pair in pairs):
        return inputs, None
    return inputs, [label_value(pair[1]) for pair in pairs]


def halves(sample: Any, facts: Facts) -> tuple[Any, Any]:
    if isinstance(sample, Mapping):
        name = label_name(sample, facts)
        no_input = {name, *(each for each in (facts.group, facts.time) if isinstance(each, str))}
        x = {key: value for key, value in sample.items() if key not in no_input}
        return x, None if name is None else sample[name]
    if isinstance(facts.label, str):
        raise CaseError(
            f"label={foreign.brief(facts.label)} names a part of a sample, but a sample is "
            f"{foreign.describe(sample)}; give label= "
            "a function of a sample, or a dict with one array a split"
        )
    if isinstance(sample, tuple) and len(sample) in (1, 2, 3):
        return sample[0], sample[1] if len(sample) > 1 else None
    if isinstance(sample, list) and len(sample) in (2, 3) and getattr(sample[0], "shape", ()) != ():
        return sample[0], sample[1]
    return sample, None


def label_name(columns: Mapping[str, Any], facts: Facts) -> str | None:
    """The column that holds the labels: the one given, or one with a usual name."""
    if isinstance(facts.label, str):
        return facts.label if facts.label in columns else None
    if facts.label is not None:
        return None
    return next((name for name in LABELS if name in columns), None)


def selected(x: Any, facts: Facts) -> Any:
    """The parts of a dict that `key=` names."""
    names = [facts.key] if isinstance(facts.key, str) else facts.key
    if names is None:
        return x
    if not isinstance(x, Mapping):
        raise CaseError(
            f"key={foreign.brief(facts.key)} names parts of a sample, but a sample is {foreign.describe(x)}; give a "
            "function"
        )
    missing = [name for name in names if name not in x]
    if missing:
        raise CaseError(
            f"key={foreign.brief(facts.key)}: a sample has no "
            f"{foreign.brief(missing[0])}{did_you_mean(missing[0], map(str, x))}"
        )
    return {name: x[name] for name in names}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested dicts and tuples by their path; the only leaf there is has the path ''."""
    if isinstance(value, Mapping) and not value:
        raise CaseError("a sample has no input: nothing is left of it besides its label; give label= or key=")
    found = dict(_leaves(value, path))
    return {"": next(iter(found.values()))} if len(found) == 1 else found


def _leaves(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        for name in sorted(value, key=str):
            yield from _leaves(value[name], f"{path}.{name}" if path else str(name))
    elif isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from _leaves(each, f"{path}.{number}" if path else str(number))
    else:
        yield path, value


def label_value(label: Any) -> Any:
    """A label as something that can be compared and shown: a number, a text, or a short digest of an array."""
    if label is None or isinstance(label, (str, bool, int, float)):
        return label
    if isinstance(label, (list, tuple, Mapping)):
        return repr([label_value(each) for each in (label.values() if isinstance(label, Mapping) else label)])
    try:
        array = to_numpy(label)
    except (TypeError, ValueError):
        return repr(label)
    if array.size == 1:
        return array.reshape(-1)[0].item()
    from pytest_overfit.duplicates.values.lasting_names import lasting

    return f"array {lasting(np.ascontiguousarray(array).tobytes())}"


def label_list(labels: Any) -> list[Any]:
    """Labels of many rows, each as `label_value` has it."""
    array = labels if isinstance(labels, list) else to_numpy(labels)
    if not isinstance(array, list) and array.dtype.kind == "M":
        array = array.astype("M8[us]")  # finer ones would become plain numbers
    if not isinstance(array, list) and array.ndim == 1 and array.dtype.kind in "biufUSM":
        found: list[Any] = array.tolist()
        return found
    return [label_value(each) for each in array]


def row_values(fact: Any, samples: Sequence[Any], places: Sequence[int], split: str, what: str) -> list[Any] | None:
    """Group or time of samples: by a key, by a function, or from the array given for the split."""
    if fact is None:
        return None
    if isinstance(fact, Mapping):
        return given_values(fact, split, what, places)
    if callable(fact):
        with user_code(f"the function given as {what}"):
            return [label_value(fact(sample)) for sample in samples]
    found = []
    for sample in samples:
        parts = sample if isinstance(sample, Mapping) else sample[0] if isinstance(sample, tuple) else None
        if not isinstance(parts, Mapping) or fact not in parts:
            known = map(str, parts) if isinstance(parts, Mapping) else ()
            raise CaseError(
                f"{what}={foreign.brief(fact)}: a sample of {split} has no such part{did_you_mean(fact, known)}"
            )
        found.append(label_value(parts[fact]))
    return found


def extras(facts: Facts, samples: Sequence[Any], places: Sequence[int], split: str) -> list[list[Any] | None]:
    """Groups and times of samples."""
    return [
        row_values(fact, samples, places, split, what) for fact, what in ((facts.group, "group"), (facts.time, "time"))
    ]


def refuse_names(facts: Facts, split: str, how: str) -> None:
    """Facts that name a column, where columns have no names."""
    for what in ("label", "group", "time", "key"):
        fact = getattr(facts, what)
        if isinstance(fact, str) or (what == "key" and fact is not None and not callable(fact)):
            raise CaseError(
                f"{what}={foreign.brief(fact)} names a column, but {split}= is {how} without names; give {what}= "
                + ("a function of a sample" if what == "key" else "a dict with one array a split")
            )


def takes_samples(facts: Facts) -> bool:
    """A fact is a function, which takes one sample each."""
    return any(callable(fact) for fact in (facts.key, facts.label, facts.group, facts.time))


def lines(columns: Mapping[str, Any], places: Sequence[int]) -> list[dict[str, Any]]:
    """The lines of named columns at these places, each as a dict."""
    return [{name: column[place] for name, column in columns.items()} for place in places]


def given_values(fact: Mapping[str, Any], split: str, what: str, places: Any) -> list[Any] | None:
    """From a dict with one array a split."""
    if split not in fact:
        return None
    values = fact[split]
    if len(places) and int(max(places)) >= len(values):
        raise CaseError(
            f"{what}={{{foreign.brief(split)}: ...}} has {len(values)} values, but the split has more samples"
        )
    listed = values if isinstance(values, list) else to_numpy(values)
    return [label_value(listed[int(place)]) for place in places]


def table_parts(
    columns: Mapping[str, Any], facts: Facts, split: str, index: Array
) -> tuple[dict[str, Any], list[Any] | None, list[Any] | None, list[Any] | None]:
    """Inputs, labels, groups and times of named columns."""
    label = label_name(columns, facts)
    rows = lines(columns, range(len(index))) if takes_samples(facts) else []

    def values(fact: Any, what: str) -> list[Any] | None:
        if isinstance(fact, str):
            if fact not in columns:
                raise CaseError(
                    f"{what}={foreign.brief(fact)}: {split} has no such column{did_you_mean(fact, map(str, columns))}"
                )
            return label_list(columns[fact])
        return row_values(fact, rows, index.tolist(), split, what)

    if callable(facts.key):
        with user_code("the function given as key"):
            inputs: dict[str, Any] = {"": [facts.key(row) for row in rows]}
    else:
        no_input = {label, *(each for each in (facts.group, facts.time) if isinstance(each, str))}
        inputs = selected({name: each for name, each in columns.items() if name not in no_input}, facts)
    if callable(facts.label):
        labels: list[Any] | None = [label_value(facts.label(row)) for row in rows]
        labels = None if all(each is None for each in labels or ()) else labels
    elif isinstance(facts.label, Mapping):
        labels = given_values(facts.label, split, "label", index.tolist())
    else:
        labels = None if label is None else label_list(columns[label])
    return inputs, labels, values(facts.group, "group"), values(facts.time, "time")


def rows_of(column: Any) -> Any:
    """A column, rows first: a numpy array of numbers, or a list."""
    if isinstance(column, (list, tuple)):
        return list(column)
    array = to_numpy(column)
    return array if array.dtype.kind not in "OUS" else [_text(each) for each in array.tolist()]


def _text(value: Any) -> Any:
    """Tensors of strings come as bytes."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value
