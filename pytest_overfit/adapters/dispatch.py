"""From a case to a learner: build the model, find out whose it is, ask that adapter."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from pytest_overfit.adapters.base import Learner, Regularizers
from pytest_overfit.adapters.causes import find_cause
from pytest_overfit.adapters.frameworks import FRAMEWORKS, adapter_of, part_of
from pytest_overfit.adapters.trainer import JointTraining, Trainer
from pytest_overfit.core import foreign
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.fit_kwargs import check_names
from pytest_overfit.core.state import Guard, epoch_seed, seed_standard_library
from pytest_overfit.core.usercode import causes_found_by, user_code
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.splits import Split

causes_found_by(find_cause)


def _loaded() -> list[str]:
    return [name for name in FRAMEWORKS if name in sys.modules]


def guards() -> list[Guard]:
    """What the loaded frameworks keep globally, as context managers that restore it."""
    return [adapter_of(name).guard for name in _loaded()]


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and every loaded framework."""
    seed_standard_library(seed)
    for name in _loaded():
        adapter_of(name).seed(seed)


def build(case: Case, seed: int) -> Any:
    """Call the model factory after seeding everything, and check what comes back."""
    seed_everything(seed)
    with user_code(f"Case {case.name!r}: the model factory"):
        model = case.model()
    if model is None:
        raise CaseError(f"Case {case.name!r}: the model factory returned None; end it with `return model`")
    if isinstance(model, type):
        raise CaseError(
            f"Case {case.name!r}: the model factory returned the class {model.__name__}, expected a model; "
            f"write model=lambda: {model.__name__}(...)"
        )
    return model


def _check_keras_case(case: Case) -> None:
    """A Keras model brings its own loss, optimizer and step; others given with the case would be ignored."""
    for field, instead in (
        ("loss", "model.compile(loss=...)"),
        ("optimizer", "model.compile(optimizer=...)"),
        ("scheduler", "a LearningRateSchedule in the optimizer"),
        ("step", "a train_step method on the model"),
    ):
        if getattr(case, field) is not None:
            raise CaseError(
                f"Case {case.name!r}: {field}= was given, but its model is a keras.Model, which brings its own; leave "
                f"{field}= out and give it through {instead}"
            )


def learner_for(case: Case, batch: Batch, seed: int) -> Learner:
    """Make the learner of a case.

    The factory is called once where its framework can tell that everything trainable was made in that call; else once
    more, to see that it makes new models. Raises `CaseError` when it does not.
    """
    model, adapter = _new_model(case, seed)
    _check_weights(case, batch, adapter)
    rebuild: Callable[[], Any] = lambda: build(case, seed)  # noqa: E731
    learner: Learner = adapter.make_learner(case, model, batch, rebuild)
    return learner


def trainer_for(case: Case, train: Split, seed: int, plain: bool) -> Trainer:
    """Make the trainer of a case on a whole split; `plain`: with its regularisers taken out. Raises `CaseError`."""
    model, adapter = _new_model(case, seed)

    def reseed(epoch: int) -> int:
        value = epoch_seed(seed, epoch)
        seed_everything(value)
        return value

    trainer: Trainer = adapter.make_trainer(case, model, train, reseed, plain)
    return trainer


class JointTrainingByFramework(JointTraining):
    """At once where the framework's adapter has a module `ensemble`; all others train one after the other."""

    def may_join(self, trainer: Trainer, members: int, epochs: int) -> bool:
        ensemble = part_of(trainer.framework, "ensemble")
        return ensemble is not None and bool(ensemble.may_join(trainer, members, epochs))

    def train(
        self, trainers: Sequence[Trainer], epochs: int, after_epoch: Callable[[int], None]
    ) -> list[list[float]] | None:
        ensemble = part_of(trainers[0].framework, "ensemble")
        losses: list[list[float]] | None = None if ensemble is None else ensemble.train(trainers, epochs, after_epoch)
        return losses


def regularizers_of(learner: Learner) -> Regularizers:
    """What regularises a learner, measured by its framework's adapter; the learner must not be used afterwards."""
    from pytest_overfit.adapters.base import Regularizers

    regularizers = part_of(learner.framework, "regularizers")
    if regularizers is None:
        return Regularizers(remarks=("only the data of a custom training loop are looked into",))
    found: Regularizers = regularizers.found_in(learner)
    return found


def _new_model(case: Case, seed: int) -> tuple[Any, ModuleType]:
    """A model that nobody has trained yet, and its framework's adapter."""
    made: dict[int, object] = {}  # the parameters themselves are kept: an id may be given again after one has gone
    seeded = _loaded()
    with contextlib.ExitStack() as stack:
        for name in seeded:
            stack.enter_context(adapter_of(name).noting_parameters(lambda each: made.update({id(each): each})))
        model = build(case, seed)
    name = "keras" if foreign.is_keras_model(model) else "torch" if foreign.is_torch_module(model) else "step"
    if name == "keras":
        _check_keras_case(case)
    check_names(case.fit_kwargs, model.fit if name == "keras" else None, f"Case {case.name!r}")
    adapter = adapter_of(name)
    held = {id(each) for each in adapter.parameters_of(model)}
    # a framework that the factory itself imports was never seeded; copies and scripted modules never register theirs
    if _loaded() == seeded and held and held <= made.keys():
        return model, adapter
    return _built_again(case, seed, model, adapter), adapter


def _built_again(case: Case, seed: int, first: Any, adapter: ModuleType) -> Any:
    model = build(case, seed)
    held = {id(each) for each in adapter.parameters_of(first)}
    if model is first or any(id(each) in held for each in adapter.parameters_of(model)):
        raise CaseError(
            f"Case {case.name!r}: the model factory returned the same {'model' if model is first else 'parameters'} "
            "twice; expected a new model at each call, because every run starts from untrained weights; build the "
            "layers inside the factory"
        )
    return model


def _check_weights(case: Case, batch: Batch, adapter: ModuleType) -> None:
    if batch.weights is not None and not adapter.__name__.endswith(".keras"):
        raise CaseError(
            f"Case {case.name!r}: its batch has three parts, but only Keras takes weights; give batch=(x, y) "
            "and put the weights into the loss, or ((x1, x2), y) for two inputs"
        )
