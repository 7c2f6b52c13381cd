"""Datasets and loaders of torch, tensorflow and Keras, and whatever else can be indexed or iterated."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core import foreign
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.containers import (
    is_keras_batches,
    is_torch_dataset,
    is_torch_loader,
    is_torch_stream,
    keras_batches,
)
from pytest_overfit.duplicates.reading.fields import (
    Facts,
    given_values,
    label_list,
    refuse_names,
    row_values,
    rows_of,
    takes_samples,
)
from pytest_overfit.duplicates.reading.sources import Collated, Indexed
from pytest_overfit.duplicates.reading.split import SampleChunk, Samples

_TORCH = "torch.utils.data"

#: attributes under which datasets keep what they do to a sample
_TRANSFORMS = ("transform", "transforms")


# --------------------------------------------------------------------------------------------------------------- torch


def torch_data(name: str, source: Any, facts: Facts) -> Samples | None:
    """Datasets and loaders of torch."""
    if is_torch_loader(source):
        return _loader(name, source, facts)
    if is_torch_stream(source):
        return Samples(
            name, "torch IterableDataset", facts, open=lambda: source, again=not isinstance(source, Iterator)
        )
    if is_torch_dataset(source):
        return _torch_dataset(name, source, facts, None)
    return None


def _loader(name: str, loader: Any, facts: Facts) -> Samples:
    """The dataset behind a loader, in its own order; the loader's batches where there is no way around them."""
    dataset, how = loader.dataset, "torch DataLoader"
    if is_torch_stream(dataset):
        batched = loader.batch_size is not None or loader.batch_sampler is not None
        return Samples(name, f"{how} over an IterableDataset", facts, open=lambda: loader, batched=batched)
    places = _sampled(loader, len(dataset))
    split = _torch_dataset(name, dataset, facts, places)
    split.how = f"{how} over a {type(dataset).__name__}"
    collate = getattr(loader.collate_fn, "__module__", "")
    if loader.collate_fn is not None and not collate.startswith("torch.utils.data"):
        return _collated(split, loader.collate_fn)
    return split


def _sampled(loader: Any, size: int) -> Sequence[int] | None:
    """The places that a loader's sampler can give; None: all."""
    sampler = loader.sampler
    kind = type(sampler).__name__
    if kind == "SequentialSampler" or (kind == "RandomSampler" and not sampler.replacement):
        if loader.batch_sampler is None or type(loader.batch_sampler).__name__ == "BatchSampler":
            return None
        return _walked(itertools.chain.from_iterable(loader.batch_sampler), size)
    if kind == "SubsetRandomSampler":
        return sorted(int(each) for each in sampler.indices)
    weights = getattr(sampler, "weights", None)
    if weights is not None:
        return [place for place, weight in enumerate(weights) if float(weight) > 0]
    return _walked(sampler, size)


def _walked(sampler: Iterable[Any], size: int) -> list[int]:
    """What one pass of a sampler gives, each place once."""
    return sorted({int(each) for each in itertools.islice(sampler, 4 * size)})


def _collated(split: Samples, collate: Callable[[Any], Any]) -> Samples:
    """The loader's own collate function makes the model's input: it is given one sample at a time."""
    if split.fetch is None:
        split.notes.append(f"{split.name}: the loader's collate_fn is left out, samples are read from the dataset")
        return split
    note = f"{split.name}: read through the loader's collate_fn, one sample at a time"
    split.read_through(lambda source, _: Collated(source, collate), note)
    return split


def _torch_dataset(name: str, dataset: Any, facts: Facts, places: Sequence[int] | None) -> Samples:
    if type(dataset).__name__ == "Subset" and foreign.is_instance(dataset, _TORCH, "Subset"):
        inner = list(dataset.indices)
        chosen = [int(inner[place]) for place in (range(len(inner)) if places is None else places)]
        split = _torch_dataset(name, dataset.dataset, facts, chosen)
        split.how = f"torch Subset of {split.how.removeprefix('torch ')}"
        return split
    kind: Any = type(dataset)
    tensors = foreign.is_instance(dataset, _TORCH, "TensorDataset") and not takes_samples(facts)
    if tensors and kind.__getitem__ is sys.modules[_TORCH].TensorDataset.__getitem__:  # a subclass may change samples
        return _tensors(name, dataset, facts, places)
    return indexed(name, dataset, f"torch {kind.__name__}", facts, places)


def _tensors(name: str, dataset: Any, facts: Facts, places: Sequence[int] | None) -> Samples:
    refuse_names(facts, name, "torch TensorDataset")
    columns = [rows_of(tensor) for tensor in dataset.tensors]
    if places is not None:
        columns = [column[_slice_or_list(places)] for column in columns]
    x, y = columns[: len(columns) if len(columns) > 3 else 1], columns[1:2] if len(columns) in (2, 3) else []
    leaves = {str(number): each for number, each in enumerate(x)} if len(x) > 1 else {"": x[0]}
    index = np.arange(len(columns[0]), dtype=np.int64)
    extras = [
        row_values(fact, (), index.tolist(), name, what) if isinstance(fact, Mapping) else None
        for fact, what in ((facts.group, "group"), (facts.time, "time"))
    ]
    labels = label_list(y[0]) if y else None
    if isinstance(facts.label, Mapping):
        labels = given_values(facts.label, name, "label", index.tolist())
    whole = SampleChunk(index, leaves, labels, *extras)
    return Samples(name, "torch TensorDataset", facts, len(index), whole)


def _slice_or_list(places: Sequence[int]) -> Any:
    """Places in a row as a slice, which copies nothing."""
    if places and list(places) == list(range(places[0], places[0] + len(places))):
        return slice(places[0], places[0] + len(places))
    return list(places)


# ----------------------------------------------------------------------------------------------- anything with an index


def indexed(name: str, dataset: Any, how: str, facts: Facts, places: Sequence[int] | None = None) -> Samples:
    """Samples by index, in one call where the dataset has `__getitems__`."""
    with user_code(f"len() of the dataset given as {name}"):
        length = len(dataset) if places is None else len(places)

    def bare() -> Samples | None:
        stripped = _without_transforms(dataset)
        return None if stripped is None else indexed(name, stripped, how, facts, places)

    return Samples(name, how, facts, length, fetch=Indexed(dataset, places), bare=bare)


def _without_transforms(dataset: Any) -> Any:
    """A copy of the dataset that gives its samples untransformed; None: there is nothing to take off."""
    names = [name for name in _TRANSFORMS if getattr(dataset, name, None) is not None]
    if not names:
        return None
    stripped = copy.copy(dataset)
    for name in names:
        try:
            setattr(stripped, name, None)
        except Exception:  # a read-only property: it cannot be taken off
            return None
    return stripped


# ------------------------------------------------------------------------------------------------- tensorflow and Keras


def tensorflow_data(name: str, source: Any, facts: Facts) -> Samples | None:
    """`tf.data`: batches as they are; single samples are batched first where their shapes are known."""
    if not foreign.is_tensorflow_dataset(source):
        return None
    count = int(source.cardinality())
    batched = _is_batched(source)
    dataset = source
    if not batched and _known_shapes(source):
        dataset, batched = source.batch(512), True
    split = Samples(name, "tf.data.Dataset", facts, open=lambda: dataset.as_numpy_iterator(), batched=batched)
    if count == -1:
        split.notes.append(f"{name} repeats without end")
    return split


def _is_batched(dataset: Any) -> bool:
    """Was it batched last? Its steps are followed from the end back to the first one that shows it."""
    step = dataset
    while step is not None:
        kind = type(step).__name__
        if "Unbatch" in kind or "FlatMap" in kind or "Interleave" in kind:
            return False
        if "Batch" in kind:
            return True
        step = getattr(step, "_input_dataset", None)
    specs = _specs(dataset.element_spec)
    return bool(specs) and all(each.shape.rank and each.shape[0] is None for each in specs)


def _specs(spec: Any) -> list[Any]:
    if isinstance(spec, Mapping):
        return [leaf for each in spec.values() for leaf in _specs(each)]
    if isinstance(spec, tuple) and not hasattr(spec, "shape"):
        return [leaf for each in spec for leaf in _specs(each)]
    return [spec]


def _known_shapes(dataset: Any) -> bool:
    return all(hasattr(each, "shape") and each.shape.is_fully_defined() for each in _specs(dataset.element_spec))


def keras_data(name: str, source: Any, facts: Facts) -> Samples | None:
    """A Keras PyDataset: batches by number."""
    if not is_keras_batches(source):
        return None
    return Samples(name, "Keras PyDataset", facts, open=lambda: keras_batches(source), batched=True)


# --------------------------------------------------------------------------------------------------- anything iterable


def iterable(name: str, source: Any, facts: Facts) -> Samples:
    """A generator or a loader of an unknown kind: its first item tells whether it gives samples or batches."""
    once = isinstance(source, Iterator)
    with user_code(f"reading {name}"):
        stream = iter(source)
        first = next(stream, None)
    if first is None:
        spent = "; was it read before? give a function that returns it" if once else ""
        raise CaseError(f"{name}= is empty: it gave no samples{spent}")
    batched = facts.batched if facts.batched is not None else gives_batches(first)
    # nothing is lost of what can be read only once: the first item is put back
    waiting = [itertools.chain([first], stream)] if once else []
    split = Samples(
        name,
        f"{type(source).__name__} of {'batches' if batched else 'samples'}",
        facts,
        open=lambda: waiting.pop() if waiting else () if once else source,
        batched=batched,
        again=not once,
    )
    if batched and facts.batched is None:
        split.notes.append(f"{name} was read as batches, rows first; give batched=False if each item is one sample")
    return split


def gives_batches(item: Any) -> bool:
    """Is this a batch (x, y), many rows of x and one label for each, rather than one sample?"""
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        return False
    x, y = (getattr(each, "shape", None) for each in item[:2])
    if x is None or y is None or len(x) < 2 or not len(y) or x[0] != y[0]:
        return False
    return len(y) == 1 or (len(y) == 2 and (y[1] == 1 or (len(x) != 2 and tuple(y) != tuple(x[:2]))))
