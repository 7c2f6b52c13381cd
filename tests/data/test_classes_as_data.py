"""A class of data instead of data: called as a function is; one that needs arguments says what to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pytest_overfit import Case, CaseError, ProgramError, find_duplicates, run_probes

torch = pytest.importorskip("torch")

#: those that read a whole split, and those that read one batch
PROBES = (
    "overfit_batch",
    "wiring",
    "split_duplicates",
    "early_accuracy",
    "inert_regularizer",
    "generalization_gap",
    "regularization",
)


class Digits(torch.utils.data.Dataset):
    """Separable rows, made without arguments."""

    seed = 0

    def __init__(self) -> None:
        drawn = np.random.default_rng(self.seed)
        self.y = torch.as_tensor(drawn.permutation(np.arange(48) % 2))
        self.x = torch.as_tensor(drawn.normal(size=(48, 3)).astype("float32")) + 3 * self.y[:, None]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, place: int) -> Any:
        return self.x[place], self.y[place]


class Unseen(Digits):
    seed = 1


class Stored(Digits):
    def __init__(self, root: str, split: str, size: int = 8) -> None:
        super().__init__()


class Broken(Digits):
    def __init__(self) -> None:
        len(3)  # type: ignore[arg-type]


def case(**fields: Any) -> Case:
    given = {"train": Digits, "val": Unseen, **fields}
    make = lambda: torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))  # noqa: E731
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.05)  # noqa: E731
    return Case(name="net", model=make, loss=torch.nn.functional.cross_entropy, optimizer=adam, **given)


@pytest.mark.parametrize("probe", PROBES)
def test_a_class_is_called_as_a_function_is(probe: str) -> None:
    of_classes, of_functions = (
        run_probes(case(**fields), [probe])[0] for fields in ({}, {"train": lambda: Digits(), "val": lambda: Unseen()})
    )
    assert of_classes.outcome == of_functions.outcome
    assert of_classes.summary == of_functions.summary
    assert of_classes.outcome in ("passed", "not_applicable")


CURE = "needs the arguments root, split, and is called without any; write {}=lambda: Stored(root=..., split=...)"


#: these read no other split than train
OF_TRAIN = ("overfit_batch", "wiring", "inert_regularizer")


@pytest.mark.parametrize(
    ("probe", "field"),
    [(probe, field) for probe in PROBES for field in ("train", "val") if field == "train" or probe not in OF_TRAIN],
)
def test_a_class_that_needs_arguments(probe: str, field: str) -> None:
    with pytest.raises(CaseError) as caught:
        run_probes(case(**{field: Stored}), [probe])
    assert f"Case 'net': the class given as {field} {CURE.format(field)}" in str(caught.value)


def test_of_a_search_and_of_a_batch() -> None:
    assert find_duplicates(train=Digits, test=Unseen).clean("test") is not None
    with pytest.raises(CaseError, match=r"the class given as test needs the arguments root, split"):
        find_duplicates(train=Digits, test=Stored)
    with pytest.raises(CaseError, match=r"the batch function needs the argument size, .* write batch=lambda: "):
        run_probes(case(batch=lambda size: None), ["wiring"])


def test_what_a_class_raises_itself_is_its_own() -> None:
    with pytest.raises(ProgramError, match=r"the class given as train raised TypeError: .* has no len\(\)"):
        run_probes(case(train=Broken), ["overfit_batch"])


def wrapped(load: Callable[[str], Any]) -> Callable[[], Any]:
    """A decorator that gives the argument itself, which the signature does not show."""
    import functools

    return functools.wraps(load)(lambda: load("/data"))


def test_an_argument_that_a_decorator_gives() -> None:
    assert run_probes(case(train=wrapped(lambda root: Digits())), ["overfit_batch"])[0].passed


def test_a_class_of_keras() -> None:
    keras = pytest.importorskip("keras")

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, place: int) -> Any:
            data = Digits()
            rows = slice(24 * place, 24 * place + 24)
            return data.x[rows].numpy(), data.y[rows].numpy()

    def compiled() -> Any:
        model = keras.Sequential([keras.layers.Dense(16, "relu"), keras.layers.Dense(2)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.optimizer.learning_rate = 0.05
        return model

    assert run_probes(Case(name="net", model=compiled, train=Batches), ["overfit_batch"])[0].passed
    with pytest.raises(CaseError, match=r"Case 'net': the class given as train needs the arguments root, split"):
        run_probes(Case(name="net", model=compiled, train=Stored), ["overfit_batch"])
