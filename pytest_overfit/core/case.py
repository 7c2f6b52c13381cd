"""The case: what is under test, checked when it is written down.

Nothing is built, loaded or trained here: cases are made at collection time, in every worker.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from pytest_overfit.core import foreign
from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.core.fit_kwargs import check_values
from pytest_overfit.core.signatures import call_of, required_arguments

#: what `task` may declare; inferred from loss, outputs and targets when it is None
TASKS = ("multiclass", "binary", "multilabel", "regression", "language_model", "segmentation")

#: what may differ between a case and its unregularised twin
_TWIN_FIELDS = ("model", "loss", "optimizer", "scheduler", "step", "fit_kwargs", "train")

_NAME = re.compile(r"[A-Za-z0-9_.]+")


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Case:
    """A model factory with its loss, optimizer and data.

    A Keras case needs only `name`, `model` (a factory of a *compiled* model) and data; a PyTorch case needs
    `loss` and `optimizer` too; any other loop needs `step`.

    Raises `CaseError` when a field cannot be used, at construction.
    """

    #: letters, digits, `_` and `.`; unique within a test run
    name: str
    #: called without arguments, returns a new model each time
    model: Callable[[], Any]
    #: `loss(outputs, targets) -> scalar`, as in the user's own loop
    loss: Callable[..., Any] | None = None
    #: `optimizer(parameters) -> optimizer`; an argument called `model` gets the model instead
    optimizer: Callable[..., Any] | None = None
    #: `scheduler(optimizer) -> scheduler`, stepped after every optimizer step
    scheduler: Callable[..., Any] | None = None
    #: name of a torch dtype for `torch.autocast`, e.g. "bfloat16"
    autocast: str | None = None
    #: `step(model, x, y) -> loss`: one update of the user's own training loop
    step: Callable[..., Any] | None = None
    #: keyword arguments for `keras.Model.fit`
    fit_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: the batch to memorise, `(x, y)`, or a function that returns it; default: the first batch of `train`
    batch: Any = None
    #: `(x, y)`, a dataset, a loader, or a function or class that is called without arguments and returns one
    train: Any = None
    val: Any = None
    test: Any = None
    #: the axis along which the rows of a batch lie, where it is not the first: `1` for batches of time first, for every
    #: array that is as long there; or by part, `{"x": 1}` (`x`, `y`, or keys and places of the batch)
    row_axis: int | Mapping[Any, int] | None = None
    #: one of `TASKS`
    task: str | None = None
    #: number of classes
    classes: int | None = None
    #: `score(model, x, y) -> float`, 1.0 when every prediction is right; replaces the built-in agreement
    score: Callable[..., Any] | None = None
    #: factory of the same model without its regularisers, or the fields of the case that differ without them, e.g.
    #: `{"train": load_without_augmentation}`; default: derived from the model
    unregularized: Callable[[], Any] | Mapping[str, Any] | None = None
    #: patterns of parameter names (torch) or variable paths (Keras) that must stay as they are: `("encoder.*",)`
    frozen: tuple[str, ...] = ()
    #: None: the run's seed (option or ini `overfit_seed`, else 0)
    seed: int | None = None
    #: limits of this case, by name, or by probe: `{"steps": 300}`, `{"overfit_batch": {"steps": 300}}`
    limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: facts for one probe, by probe name
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_factory(self.name, "model", self.model, "make_model")
        if self.unregularized is not None:
            self.without_regularizers()
        _check_optimizer(self.name, self.optimizer)
        for field in ("loss", "scheduler", "step", "score"):
            _check_callable(self.name, field, getattr(self, field))
        for field in ("fit_kwargs", "limits", "options"):
            _check_mapping(self.name, field, getattr(self, field))
        check_values(self.fit_kwargs, f"Case {self.name!r}")
        _check_values(self)

    def without_regularizers(self) -> Case | None:
        """The case that `unregularized` describes; None where the twin is to be derived from the model."""
        given = self.unregularized
        if given is None:
            return None
        if not isinstance(given, Mapping):
            _check_factory(self.name, "unregularized", given, "make_plain_model")
            return dataclasses.replace(self, model=given, unregularized=None)
        for name in given:
            if name not in _TWIN_FIELDS:
                meant = did_you_mean(name, _TWIN_FIELDS)
                raise CaseError(f"Case {self.name!r}: unregularized= names the field {foreign.brief(name)}{meant}")
        return dataclasses.replace(self, unregularized=None, **given)

    def __repr__(self) -> str:
        return f"Case({self.name!r})"


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CaseError(
            f"Case name={foreign.brief(name)}: a name is made of letters, digits, '_' and '.', because it becomes a "
            "part of "
            "the test's id; write e.g. name='mlp'"
        )


def _check_factory(case: str, field: str, factory: Any, example: str) -> None:
    where = f"Case {case!r}: {field}="
    if foreign.is_model(factory):
        raise CaseError(
            f"Case {case!r}: {field}: expected a factory, got a model ({type(factory).__name__}): a probe trains new "
            f"models and leaves yours alone; write {field}={example}, a function that builds the model and returns it"
        )
    if not callable(factory):
        raise CaseError(
            f"Case {case!r}: {field}: expected a factory, a function without arguments that returns a new model, got "
            f"{foreign.describe(factory)}; write {field}={example}"
        )
    required = required_arguments(factory)
    if required:
        raise CaseError(
            f"{where} needs the argument{'s' * (len(required) > 1)} {', '.join(required)}, and a factory is called "
            f"without any; write {field}=lambda: {call_of(factory, required)}"
        )


def _check_optimizer(case: str, optimizer: Any) -> None:
    if optimizer is None:
        return
    if foreign.is_torch_optimizer(optimizer) or foreign.is_keras_optimizer(optimizer):
        raise CaseError(
            f"Case {case!r}: optimizer: expected a function that makes one for the model's parameters, got an "
            f"optimizer ({type(optimizer).__name__}) that belongs to another model; write optimizer=lambda parameters: "
            "torch.optim.Adam(parameters, lr=1e-3) (a Keras model brings its own: give it to model.compile)"
        )
    _check_callable(case, "optimizer", optimizer)


def _check_callable(case: str, field: str, value: Any) -> None:
    if value is not None and not callable(value):
        raise CaseError(f"Case {case!r}: {field}: expected a function, got {foreign.describe(value)}")


def _check_mapping(case: str, field: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise CaseError(f"Case {case!r}: {field}: expected a dict with string keys, got {foreign.describe(value)}")


def _check_values(case: Case) -> None:
    where = f"Case {case.name!r}:"
    if case.seed is not None and (isinstance(case.seed, bool) or not isinstance(case.seed, int) or case.seed < 0):
        raise CaseError(f"{where} seed: expected a whole number of 0 or more, got {foreign.brief(case.seed)}")
    _check_row_axis(case.row_axis, where)
    if case.task is not None and (not isinstance(case.task, str) or case.task not in TASKS):
        raise CaseError(f"{where} unknown task {foreign.brief(case.task)}{did_you_mean(case.task, TASKS)}")
    classes = case.classes
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 2):
        raise CaseError(f"{where} classes: expected a whole number of 2 or more, got {foreign.brief(classes)}")
    if not isinstance(case.frozen, (tuple, list, set, frozenset)) or not all(
        isinstance(each, str) for each in case.frozen
    ):
        raise CaseError(
            f"{where} frozen: expected patterns of names, got {foreign.brief(case.frozen)}; write frozen=('encoder.*',)"
        )
    if case.autocast is not None and not isinstance(case.autocast, str):
        raise CaseError(
            f"{where} autocast: expected the name of a dtype, e.g. 'bfloat16', got {foreign.brief(case.autocast)}"
        )
    if case.batch is None and case.train is None:
        raise CaseError(f"{where} it has no data; give batch=(x, y), or train= with a dataset, a loader or (x, y)")


def _check_row_axis(given: Any, where: str) -> None:
    axes = given.values() if isinstance(given, Mapping) else () if given is None else (given,)
    for axis in axes:
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise CaseError(
                f"{where} row_axis: expected the number of an axis, or a dict of them by part of the batch, got "
                f"{foreign.brief(given)}; write row_axis=1, or row_axis={{'x': 1, 'y': 0}}"
            )
