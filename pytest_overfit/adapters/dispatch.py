"""From a case to a learner: build the model, find out whose it is, ask that adapter.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pytest_overfit.core import foreign
from pytest_overfit.core.errors import CaseError
from pytest_overfit.core.state import Guard, epoch_seed, seed_standard_library
from pytest_overfit.core.usercode import user_code

if TYPE_CHECKING:
    from pytest_overfit.adapters.base import Learner, Regularizers
    from pytest_overfit.adapters.trainer import Trainer
    from pytest_overfit.core.case import Case
    from pytest_overfit.data.batch import Batch
    from pytest_overfit.data.splits import Split

#: framework module -> adapter; the order matters: with the torch backend a keras.Model *is* an nn.Module
FRAMEWORKS = ("keras", "torch")


def _adapter(name: str) -> ModuleType:
    return importlib.import_module(f"pytest_overfit.adapters.{name}")


def _loaded() -> list[str]:
    return [name for name in FRAMEWORKS if name in sys.modules]


def guards() -> list[Guard]:
    """What the loaded frameworks keep globally, as context managers that restore it."""
    return [_adapter(name).guard for name in _loaded()]


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and every loaded framework."""
    seed_standard_library(seed)
    for name in _loaded():
        _adapter(name).seed(seed)


def build(case: Case, seed: int) -> Any:
    """Call the model factory after seeding everything, and check what comes back."""
    seed_everything(seed)
    with user_code(f"Case {case.name!r}: the model factory"):
        model = case.model()
    if model is None:
        raise CaseError(f"Case {case.name!r}: the model factory returned None; end it with `return model`")
    if isinstance(model, type):
        raise CaseError(
            f"Case {case.name!r}: the model factory returned the class {model.__name__}, but a model is wanted; "
            f"write model=lambda: {model.__name__}(...)"
        )
    return model


def _check_keras_case(case: Case) -> None:
    """A Keras model brings its own loss, optimizer and step; one given beside them would be ignored."""
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


class Together:
    """Implements `pytest_overfit.adapters.trainer.Company`: for torch; everything else trains one after the other."""

    def may_join(self, trainer: Trainer, members: int, epochs: int) -> bool:
        if trainer.framework != "torch":
            return False
        joining = importlib.import_module("pytest_overfit.adapters.torch.ensemble.eligible")
        return bool(joining.may_join(trainer, members, epochs))

    def train(
        self, trainers: Sequence[Trainer], epochs: int, after_epoch: Callable[[int], None]
    ) -> list[list[float]] | None:
        together = importlib.import_module("pytest_overfit.adapters.torch.ensemble.train")
        losses: list[list[float]] | None = together.train_together(trainers, epochs, after_epoch)
        return losses


def regularizers_of(learner: Learner) -> Regularizers:
    """What regularises a learner, measured by its framework's adapter; the learner is worn out afterwards."""
    from pytest_overfit.adapters.base import Regularizers

    if learner.framework not in FRAMEWORKS:
        return Regularizers(remarks=("what a loop of one's own does inside is not looked at, only the data are",))
    found: Regularizers = importlib.import_module(f"pytest_overfit.adapters.{learner.framework}.regularizers").found_in(
        learner
    )
    return found


def _new_model(case: Case, seed: int) -> tuple[Any, ModuleType]:
    """A model that nobody has trained yet, and its framework's adapter."""
    model, known_new = _watched_build(case, seed)
    name = "keras" if foreign.is_keras_model(model) else "torch" if foreign.is_torch_module(model) else "step"
    if name == "keras":
        _check_keras_case(case)
    return model if known_new else _built_again(case, seed, model, _adapter(name)), _adapter(name)


def _check_weights(case: Case, batch: Batch, adapter: ModuleType) -> None:
    if batch.weights is not None and not adapter.__name__.endswith(".keras"):
        raise CaseError(
            f"Case {case.name!r}: its batch has three parts, but only Keras takes weights; give batch=(x, y) "
            "and put the weights into the loss, or ((x1, x2), y) for two inputs"
        )


def _watched_build(case: Case, seed: int) -> tuple[Any, bool]:
    """A model, and whether it is known to be new; a framework that the factory itself imports was never seeded."""
    before = _loaded()
    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(_adapter(name).watched_build()) for name in before]
        model = build(case, seed)
    return model, _loaded() == before and any(watch(model) for watch in watches)


def _built_again(case: Case, seed: int, first: Any, adapter: ModuleType) -> Any:
    model = build(case, seed)
    if model is first or adapter.shares_parameters(first, model):
        raise CaseError(
            f"Case {case.name!r}: the model factory returned the same {'model' if model is first else 'parameters'} "
            "twice, but a new model is wanted at each call, because every run starts from untrained weights; build "
            "the layers inside the factory"
        )
    return model
