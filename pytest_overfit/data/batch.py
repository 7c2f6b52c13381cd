"""The one batch a model has to memorise: taken from what the user gave, checked, and copied.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_overfit.core import foreign
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.usercode import user_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_overfit.core.case import Case

    Array = NDArray[Any]

#: rows taken from arrays and datasets, which have no batch size of their own
ROWS = 32


@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs and targets as the user's own loop would get them: arrays, tensors, or tuples, lists and dicts of them."""

    x: Any
    y: Any
    rows: int
    #: a weight a row, the third part of a Keras batch; None: there are none
    weights: Any = None

    def map(self, change: Callable[[Any], Any]) -> Batch:
        """The same batch with every leaf changed."""
        x, y, weights = (map_leaves(each, change) for each in (self.x, self.y, self.weights))
        return Batch(x, y, self.rows, weights)


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Rebuild tuples, lists and dicts around changed leaves; None stays None."""
    if isinstance(value, Mapping):
        return {key: map_leaves(each, change) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_leaves(each, change) for each in value))
    if isinstance(value, (tuple, list)):
        return type(value)(map_leaves(each, change) for each in value)
    return None if value is None else change(value)


def leaves(value: Any) -> Iterator[Any]:
    """The arrays and tensors inside tuples, lists and dicts, in order."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from leaves(each)
    elif value is not None:
        yield value


def to_numpy(leaf: Any) -> Array:
    """A leaf as a numpy array on the host; tensors of half precision become float32."""
    import numpy as np

    if foreign.is_torch_tensor(leaf):
        leaf = leaf.detach()
        if str(leaf.dtype) in ("torch.bfloat16", "torch.float16"):
            leaf = leaf.float()
        return np.asarray(leaf.cpu())
    array = np.asarray(leaf)
    if array.dtype == object and not isinstance(leaf, np.ndarray):  # a tensor of strings
        return array.astype("S")
    return array.astype(np.float32) if str(array.dtype) == "bfloat16" else array


def batch_of(case: Case) -> Batch:
    """Take the batch of a case and check it.

    Raises `CaseError` for a batch that no model could be judged on: empty, of unequal lengths, not numeric.
    """
    given = _called(case.batch, "the batch function") if case.batch is not None else None
    if given is None:
        given = first_batch(_called(case.train, "the function given as train"), case)
    x, y, weights = _parts(given, case)
    return checked(_listless(x), _listless(y), _listless(weights), case)


def _called(source: Any, what: str) -> Any:
    if callable(source) and not hasattr(source, "__getitem__") and not hasattr(source, "__iter__"):
        with user_code(what):
            return source()
    return source


def first_batch(train: Any, case: Case) -> Any:
    """The first batch of a loader, or the first rows of arrays and datasets."""
    if (isinstance(train, tuple) and len(train) in (2, 3)) or (isinstance(train, list) and len(train) == 2):
        rows = int(case.fit_kwargs.get("batch_size") or ROWS)
        return tuple(map_leaves(each, lambda leaf: leaf[:rows]) for each in train)
    if foreign.is_instance(train, "torch.utils.data", "Dataset") and not foreign.is_instance(
        train, "torch.utils.data", "IterableDataset"
    ):
        if not len(train):
            raise CaseError(f"Case {case.name!r}: train= gave no batch: it is empty")
        with user_code("reading the dataset given as train"):
            return _collated([train[index] for index in range(min(ROWS, len(train)))])
    if hasattr(train, "__getitem__") and hasattr(train, "num_batches"):  # a Keras PyDataset yields whole batches
        with user_code("reading the dataset given as train"):
            return train[0]
    if hasattr(train, "__iter__"):
        with user_code("reading the loader given as train"):
            for batch in train:
                return batch
        raise CaseError(f"Case {case.name!r}: train= gave no batch: it is empty")
    raise CaseError(
        f"Case {case.name!r}: train= is {foreign.describe(train)}, but (x, y), a dataset, a loader, or a function "
        "that returns one of these is wanted"
    )


def _collated(samples: list[Any]) -> Any:
    """Stack the samples of a dataset, as a loader's default does."""
    import sys

    return sys.modules["torch.utils.data"].default_collate(samples)


def _parts(given: Any, case: Case) -> tuple[Any, Any, Any]:
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return given[0], given[1], None
    if isinstance(given, tuple) and len(given) == 3:
        return given
    raise CaseError(
        f"Case {case.name!r}: a batch is {foreign.describe(given)}, but a pair (inputs, targets) is wanted "
        "(for Keras also (inputs, targets, weights)); write batch=lambda: (x, y), or ((x1, x2), y) for two inputs"
    )


def _listless(value: Any) -> Any:
    """Make arrays of plain lists of numbers, which no framework batches by itself."""
    import numpy as np

    if isinstance(value, list) and value and not any(hasattr(each, "shape") for each in value):
        try:
            return np.asarray(value)
        except ValueError:
            return value
    return map_leaves(value, _stringed)


def _stringed(leaf: Any) -> Any:
    """An object array of nothing but strings, as tables give it, becomes an array of strings."""
    import numpy as np

    if isinstance(leaf, np.ndarray) and leaf.dtype == object and all(isinstance(each, str) for each in leaf.flat):
        return leaf.astype(str)
    return leaf


def checked(x: Any, y: Any, weights: Any, case: Case) -> Batch:
    """Check lengths and dtypes and copy, so that nothing a step does can reach the user's data."""
    where = f"Case {case.name!r}:"
    inputs, targets = list(leaves(x)), list(leaves(y))
    if not inputs:
        raise CaseError(f"{where} the batch has no inputs; give batch=(x, y) with at least two rows")
    for side, found in (("inputs", inputs), ("targets", targets)):
        for leaf in found:
            _check_leaf(leaf, f"{where} the batch's {side}")
    sizes = [len(leaf) for leaf in (*inputs, *targets)]
    if min(sizes) == 0:
        raise CaseError(
            f"{where} the batch is empty: inputs and targets have {_sizes(inputs)} and {_sizes(targets)} rows"
        )
    if len(set(sizes)) > 1:
        raise CaseError(
            f"{where} inputs and targets are of different length: {_sizes(inputs)} rows of x, {_sizes(targets)} of y; "
            "rows come first on both sides (a model that wants another axis first transposes inside)"
        )
    return Batch(x, y, sizes[0], weights).map(_copied)


def _sizes(found: list[Any]) -> str:
    return " and ".join(str(len(leaf)) for leaf in found) or "no"


def _copied(leaf: Any) -> Any:
    if foreign.is_torch_tensor(leaf):
        return leaf.detach().clone()
    return leaf.copy() if hasattr(leaf, "copy") else copy.deepcopy(leaf)


def _check_leaf(leaf: Any, where: str) -> None:
    import numpy as np

    shape = getattr(leaf, "shape", None)
    if shape is None:
        raise CaseError(
            f"{where}: {foreign.describe(leaf)}, but numpy arrays or tensors are wanted; write numpy.asarray(...)"
        )
    if len(shape) == 0:
        raise CaseError(f"{where}: a single number without rows, but an array with one row a sample is wanted")
    if isinstance(leaf, np.ndarray) and leaf.dtype == object:  # strings have become an array of strings before
        raise CaseError(
            f"{where}: {foreign.describe(leaf)}; an array of Python objects cannot be fed to a model; write "
            "x.astype('float32'), or pad rows of unequal length to one length"
        )


def missing_values(inputs: Sequence[Array], targets: Sequence[Array]) -> str | None:
    """Where the batch has NaN or infinite numbers, in words; None: nowhere.

    They are a mistake only where the model or the loss does not mask them, which its first loss tells.
    """
    import numpy as np

    for side, found in (("inputs", inputs), ("targets", targets)):
        for array in found:
            if array.dtype.kind in "fc" and not np.isfinite(array).all():
                holes = ~np.isfinite(array)
                return (
                    f"the batch's {side}: {int(holes.sum())} of {array.size} numbers are NaN or infinite, the first in "
                    f"row {int(np.argwhere(holes)[0][0])}, and neither model nor loss masks them; impute or drop them "
                    "before the batch is made"
                )
    return None
