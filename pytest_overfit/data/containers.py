"""Which container is this? What holds data is recognised here, for training and for the duplicate search.

Libraries are not imported for it: an object of a library only exists once that library has been imported.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from pytest_overfit.core import foreign
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.signatures import call_of, required_arguments
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.layout import is_plain, laid_out
from pytest_overfit.data.tree import Rows, is_array, leaves, parts_of, rank


def is_function(given: Any) -> bool:
    """A function that returns the data, or a class of them, rather than data that can be called as well."""
    return isinstance(given, type) or (
        callable(given) and not hasattr(given, "__getitem__") and not hasattr(given, "__iter__")
    )


def called(given: Any, field: str, what: str = "") -> Any:
    """What the user gave for this field, or what it returns if it is a function; `what` names it where it raises."""
    if not is_function(given):
        return given
    what = what or given_as(given, field)
    with user_code(what):
        try:
            return given()
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # the call itself
                _check_arguments(given, field, what)
            raise


def given_as(given: Any, field: str) -> str:
    """What the user gave for this field to be called, in words."""
    return f"the {'class' if isinstance(given, type) else 'function'} given as {field}"


def _check_arguments(function: Callable[..., Any], field: str, what: str) -> None:
    required = required_arguments(function)
    if required:
        several = "s" * (len(required) > 1)
        raise CaseError(
            f"{what} needs the argument{several} {', '.join(required)}, and is called without any; "
            f"write {field}=lambda: {call_of(function, required)}"
        ) from None


def is_torch_loader(source: Any) -> bool:
    return foreign.is_instance(source, "torch.utils.data", "DataLoader")


def is_torch_dataset(source: Any) -> bool:
    """With an order of its own or by place."""
    return foreign.is_instance(source, "torch.utils.data", "Dataset")


def is_torch_stream(source: Any) -> bool:
    """Samples one after the other, without places."""
    return foreign.is_instance(source, "torch.utils.data", "IterableDataset")


def is_stream(source: Any) -> bool:
    """The same of torch or of the `datasets` library."""
    return is_torch_stream(source) or foreign.is_instance(source, "datasets", "IterableDataset")


def is_keras_batches(source: Any) -> bool:
    """A Keras PyDataset: batches by number."""
    return hasattr(source, "__getitem__") and hasattr(source, "num_batches")


def keras_batches(source: Any) -> Iterator[Any]:
    """All batches of a PyDataset; one without a number of batches goes on."""
    count = source.num_batches
    return (source[number] for number in (itertools.count() if count is None else range(count)))


def is_by_place(source: Any) -> bool:
    """Anything whose entries are read by their place."""
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def is_columns(source: Any) -> bool:
    """A Hugging Face dataset: rows by number or by a list of numbers, as a dict of columns."""
    return hasattr(source, "column_names") and hasattr(source, "__len__")


def is_hugging_face(source: Any) -> bool:
    """The same by its class: tables of other libraries have names of columns as well."""
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(source).__mro__}
    return "datasets.arrow_dataset.Dataset" in names


def holds_a_split(source: Any) -> bool:
    """A whole dataset or loader, as an entry of a dict of splits."""
    return hasattr(source, "column_names") or is_torch_dataset(source) or is_torch_loader(source)


def is_table(value: Any) -> bool:
    """One table of named columns, inputs and targets side by side."""
    return is_array(value) and hasattr(value, "columns")


def is_whole(source: Any) -> bool:
    """All rows at once: an array, a list of numbers or texts, a pair of inputs and targets."""
    return is_array(source) or is_plain(source) or _is_pair(source)


def _is_pair(source: Any) -> bool:
    if isinstance(source, tuple):
        return len(source) in (1, 2, 3) and not hasattr(source, "_fields")
    if not isinstance(source, list) or len(source) != 2:
        return False
    read = laid_out(*source)
    doubtful = read is None or any(isinstance(leaf, Rows) and not is_plain(leaf) for leaf in leaves(read[:2]))
    return not (doubtful and all(isinstance(each, tuple) for each in source) and are_samples(source))


def gives_samples(source: Any) -> bool:
    """One sample a number: a torch `Dataset`, a list of samples, or another object with a length and no order."""
    if is_torch_stream(source):
        return False
    if isinstance(source, list):
        return not source or are_samples(source)
    if not is_by_place(source):
        return False
    others = any(hasattr(source, name) for name in ("__iter__", "num_batches", "column_names"))
    return is_torch_dataset(source) or not (others or parts_of(source) is not None)


def are_samples(entries: list[Any]) -> bool:
    """True for a list of samples (`(x, y)` or dicts of one row); False for one of batches, or of anything else.

    A pair with as many rows of x as of y is a batch, unless it would have one row or its inputs one number a row.
    """
    first = entries[0]
    parts = parts_of(first)
    if parts is not None:
        read = laid_out(parts, None)
        return read is None or read[2] == 1
    if not isinstance(first, (tuple, list)) or len(first) not in (2, 3):
        return False
    if isinstance(first, list) and is_plain(first):  # a row of numbers
        return False
    read = laid_out(first[0], dict(enumerate(first[1:])))
    one_number = is_array(first[0]) and rank(first[0]) == 1
    return read is None or read[2] == 1 or one_number
