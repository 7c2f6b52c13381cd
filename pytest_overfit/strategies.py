"""Hypothesis strategies: batches of a kind, cases over the arguments of a factory, changed batches.

Importing this module registers the settings profile "pytest-overfit" and leaves the active profile alone. Load it with
`hypothesis.settings.load_profile("pytest-overfit")`.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_overfit.adapters.dispatch import guards, seed_everything
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.core.foreign import describe
from pytest_overfit.core.state import preserved
from pytest_overfit.data.batch import map_leaves
from pytest_overfit.data.telling import batch_of
from pytest_overfit.properties.batch_spec import BatchSpec, Field
from pytest_overfit.properties.batch_spec_of import spec_of_batch
from pytest_overfit.properties.perturbed import Pair, noisy, padded, rows_of, scaled, with_rows
from pytest_overfit.settings import current_settings

try:
    import hypothesis
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as arrays
except ImportError as error:
    raise ImportError(
        "pytest_overfit.strategies needs Hypothesis; write pip install 'pytest-overfit[hypothesis]'"
    ) from error

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy


__all__ = ["PROFILE", "BatchSpec", "Field", "batches", "batches_like", "cases_of", "perturbations", "spec_of"]

PROFILE = "pytest-overfit"

#: rows up to this size are drawn number by number; larger ones are one value with some others in it, which is what
#: keeps examples fast to draw and small to read. By the row: a batch of fewer rows must be drawn in the same way
_EVERY_NUMBER = 8

#: most rows that `batches_like` draws by itself: mix-ups of rows show in a few, and examples cost time by the row
_ROWS = 8

#: what `perturbations` can do
KINDS = ("permuted", "duplicated", "noise", "scaled", "padded")


def _register() -> None:
    """Add the profile.

    No deadline: the first example builds the model. Random examples at a desk, the same ones in CI, where a red run
    must stay red when it is run again; Hypothesis then keeps no example database. The phase that explains a failure
    runs the model under a tracer, and tells nothing about layers, so it is left out.
    """
    phases = [each for each in hypothesis.Phase if each is not hypothesis.Phase.explain]
    default = hypothesis.settings.get_profile("default")
    fixed: dict[str, Any] = {"derandomize": True, "database": None} if os.environ.get("CI") else {}
    hypothesis.settings.register_profile(
        PROFILE, parent=default, deadline=None, max_examples=100, phases=phases, **fixed
    )


_register()


def batches(spec: BatchSpec) -> SearchStrategy[Pair]:
    """Batches `(x, y)` of numpy arrays as the spec says, of 1 to `spec.rows` rows.

    They shrink towards one row, short sequences, zeros (or the number nearest to zero) and nothing missing. Cost: about
    a millisecond for a batch of some hundred numbers.
    """
    if not isinstance(spec, BatchSpec):
        raise CaseError(
            f"batches: expected a BatchSpec, got {describe(spec)}; write batches(BatchSpec(x=Field(shape=(64,)), "
            "y=Field(classes=10))), or batches_like(case)"
        )
    return _batches(spec)


@st.composite
def _batches(draw: DrawFn, spec: BatchSpec) -> Pair:
    often = [spec.last or spec.rows, spec.rows] * 2
    size = draw(st.integers(1, spec.rows + len(often)))  # one number, so that it shrinks through every size
    rows = size if size <= spec.rows else often[size - spec.rows - 1]
    lengths = None
    if spec.lengths is not None:
        lengths = np.asarray(draw(st.lists(st.integers(*spec.lengths), min_size=rows, max_size=rows)))
    x, y = (map_leaves(side, lambda field: _array(draw, field, rows, lengths)) for side in (spec.x, spec.y))
    return x, y


def _array(draw: DrawFn, field: Field, rows: int, lengths: Array | None) -> Array:
    """One array of the batch."""
    shape: tuple[int, ...] = (rows, *field.shape)
    behind = None
    if field.lengths is not None and lengths is not None:
        width = field.width or int(lengths.max())
        shape = (rows, width, *field.shape)
        behind = np.arange(width)[None, :] >= lengths[:, None]
    array = np.ones(shape, field.dtype) if field.mask else _numbers(draw, field, shape)
    if field.missing:
        most = max(1, int(field.missing * array.size))
        holes = draw(st.lists(st.integers(0, array.size - 1), max_size=most, unique=True))
        array.reshape(-1)[holes] = np.nan
    if behind is not None:
        array[behind] = field.padding
    return array


def _numbers(draw: DrawFn, field: Field, shape: tuple[int, ...]) -> Array:
    low, high = field.bounds
    dtype = np.dtype(field.dtype)
    whole = field.classes is not None or dtype.kind != "f"
    elements: SearchStrategy[Any] = st.integers(int(low), int(high)) if whole else _floats(low, high, dtype)
    longest = 1 if field.lengths is None else field.lengths[1]
    fill = st.nothing() if int(np.prod(field.shape)) * longest <= _EVERY_NUMBER else None
    drawn = draw(arrays.arrays("int64" if whole and dtype != "uint64" else dtype, shape, elements=elements, fill=fill))
    return np.eye(int(high) + 1, dtype=dtype)[drawn] if field.one_hot else drawn.astype(dtype)


def _floats(low: float, high: float, dtype: Any) -> SearchStrategy[float]:
    """Floats that the dtype can hold; a range too small for it is its nearest number."""
    bounds = [float(dtype.type(each)) for each in (low, high)]
    width: Any = 8 * dtype.itemsize
    return st.floats(*bounds, width=width, allow_subnormal=False)


def batches_like(case: Case, rows: int | None = None) -> SearchStrategy[Pair]:
    """Batches like the case's own: its shapes, dtypes, ranges, classes, padding and share of missing values.

    `rows`: the largest batch; default: the case's own rows, at most 8. The data are read when the first example is
    drawn, not at collection. What ranges cannot say (texts, graphs, rows of other lengths) raises `CaseError` then.
    """
    return st.deferred(lambda: batches(spec_of(case, rows)))


def spec_of(case: Case, rows: int | None = None) -> BatchSpec:
    """The spec that `batches_like` draws from, to be changed with `dataclasses.replace`. Reads the case's data."""
    if not isinstance(case, Case):
        raise CaseError(f"expected a Case, got {describe(case)}; write batches_like(Case(name='mlp', ...))")
    with preserved(guards()):
        seed_everything(current_settings().seed_of(case))
        batch = batch_of(case)
    return spec_of_batch(case, batch, min(batch.rows, _ROWS) if rows is None else rows)


def cases_of(
    factory: Callable[..., Any], case: Case | None = None, /, **arguments: SearchStrategy[Any]
) -> SearchStrategy[Case]:
    """Cases whose model factory is called with drawn arguments.

    `cases_of(make_case, hidden=st.integers(1, 64))`: a factory of cases. `cases_of(make_model, case, hidden=...)`: a
    factory of models, everything else from `case`. The name of a case tells its arguments, `mlp.hidden_8`, so equal
    arguments give equal names in every run. Raises `CaseError` for arguments that the factory does not take, and for
    values that have no name of their own.
    """
    if not callable(factory):
        raise CaseError(f"cases_of: expected a factory, got {describe(factory)}; write cases_of(make_mlp, case, ...)")
    _check_arguments(factory, arguments)
    made: dict[str, Case] = {}

    def make(drawn: Mapping[str, Any]) -> Case:
        suffix = ".".join(f"{name}_{_named(name, drawn[name])}" for name in arguments)
        if suffix not in made:
            made[suffix] = _made(factory, case, drawn, suffix)
        return made[suffix]

    return st.fixed_dictionaries(arguments).map(make)


def _made(factory: Callable[..., Any], case: Case | None, drawn: Mapping[str, Any], suffix: str) -> Case:
    found = case if case is not None else factory(**drawn)
    if not isinstance(found, Case):
        raise CaseError(
            f"cases_of: expected the factory to return a Case, got {describe(found)}; for a factory of models write "
            "cases_of(make_model, case, ...), with the case that has everything else"
        )
    model = found.model if case is None else lambda: factory(**drawn)
    return dataclasses.replace(found, name=f"{found.name}.{suffix}" if suffix else found.name, model=model)


def _check_arguments(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    for name, given in arguments.items():
        if not isinstance(given, st.SearchStrategy):
            raise CaseError(f"cases_of: expected a strategy, got {name}={given!r}; write {name}=st.just({given!r})")
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    known = [each.name for each in parameters if each.kind is not each.VAR_POSITIONAL]
    for name in arguments:
        if name not in known:
            raise CaseError(f"cases_of: the factory takes no argument {name!r}{did_you_mean(name, known)}")


def _named(argument: str, value: Any) -> str:
    """The value as a part of a name: as it is where it is short and plain, else a checksum of its text."""
    text = getattr(value, "__qualname__", None) or repr(value)
    if "<lambda>" in text or " at 0x" in text:
        raise CaseError(
            f"cases_of: a value of {argument} is {text}, which has no name that is the same in every run; draw a name "
            "or a number, and look the object up inside the factory"
        )
    plain = "".join(each for each in text if each.isascii() and (each.isalnum() or each in "_."))
    return text if plain == text and len(text) <= 20 else f"{zlib.crc32(text.encode()):08x}"


def perturbations(
    batch: Pair,
    kinds: Sequence[str] | None = None,
    *,
    noise: float = 0.1,
    factors: tuple[float, float] = (0.5, 2.0),
    padding: BatchSpec | float | None = None,
) -> SearchStrategy[tuple[str, Pair]]:
    """Changed batches, each as `(name, batch)`; the given one is left as it is.

    "permuted": rows in another order; "duplicated": some rows twice; "noise": Gaussian, of at most `noise` standard
    deviations of each array; "scaled": inputs times a factor between `factors`; "padded": one to four more columns of
    padding, only with `padding=` (the spec, or the value that pads). Targets go with their rows.
    """
    rows = rows_of(batch)
    chosen = [each for each in KINDS if each != "padded" or padding is not None] if kinds is None else list(kinds)
    for kind in chosen:
        if kind not in KINDS:
            raise CaseError(f"perturbations: unknown kind {kind!r}{did_you_mean(kind, KINDS)}")
    if not chosen or ("padded" in chosen and padding is None):
        raise CaseError("perturbations: say what pads the sequences, padding=spec or a number, or leave 'padded' out")
    if not noise >= 0 or not 0 < factors[0] <= factors[1]:
        raise CaseError(
            f"perturbations(noise={noise!r}, factors={factors!r}): expected noise >= 0 and factors 0 < low <= high"
        )

    def more(twice: list[int]) -> Pair:
        return with_rows(batch, [*range(rows), *twice])

    sizes, seeds = st.floats(0, noise), st.integers(0, 2**16)
    made: dict[str, SearchStrategy[Pair]] = {
        "permuted": st.permutations(range(rows)).map(lambda order: with_rows(batch, order)),
        "duplicated": st.lists(st.integers(0, rows - 1), min_size=1, max_size=rows).map(more),
        "noise": st.builds(lambda size, seed: noisy(batch, size, seed), sizes, seeds),
        "scaled": st.floats(*factors).map(lambda factor: scaled(batch, factor)),
        "padded": st.integers(1, 4).map(lambda columns: padded(batch, columns, padding or 0.0)),
    }
    return st.one_of([st.tuples(st.just(kind), made[kind]) for kind in chosen])
