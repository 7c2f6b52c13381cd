"""Each probe names the fault that its findings show, with numbers and a cure, and names none on the healthy twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pytest_overfit import Case, Verdict, run_probes
from pytest_overfit.core.bounds import at_most, with_bounds
from pytest_overfit.core.verdict import Cause, Finding, Judgement

RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(4, 6)) * 3


def drawn(rows: int, classes: int = 3, seed: int = 0) -> tuple[Any, Any]:
    """Rows around one centre a class."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    return (CENTRES[y] + rng.normal(size=(rows, 6))).astype("float32"), y


TRAIN, VAL = drawn(300, seed=1), drawn(120, seed=2)


def mlp(inputs: int = 6, *middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), *middle, nn.Linear(16, 4))


def case(**changed: Any) -> Case:
    fields: dict[str, Any] = {
        "name": "net",
        "model": mlp,
        "loss": F.cross_entropy,
        "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    }
    if "batch" not in changed:
        fields |= {"train": TRAIN, "val": VAL}
    return Case(**{**fields, **changed})


def named(verdict: Verdict, *faults: str) -> None:
    """The verdict names these faults, the first of them first."""
    assert [each.fault for each in verdict.diagnoses] == list(faults), (verdict.summary, verdict.diagnoses)
    said = {each.message for each in verdict.findings}
    for found in verdict.diagnoses:
        assert found.evidence in said
        assert any(character.isdigit() for character in found.evidence) or len(found.evidence) > 20
        assert found.cure
    again = Verdict.from_dict(verdict.to_dict())
    assert again.diagnoses == verdict.diagnoses
    assert all("cause" not in each for each in verdict.to_dict()["findings"])


def run(probe: str, given: Case, **limits: Any) -> Verdict:
    (verdict,) = run_probes(given, [probe], **limits)
    return verdict


# ------------------------------------------------------------------------------------------------------- duplicates


def copied(rows: int) -> tuple[Any, Any]:
    x, y = VAL
    return np.concatenate([x[rows:], TRAIN[0][:rows]]), np.concatenate([y[rows:], TRAIN[1][:rows]])


def grouped(shared: bool) -> dict[str, Any]:
    first, second = np.arange(300) // 10, 30 - shared + np.arange(120) // 10
    return {"split_duplicates": {"group": {"train": first, "val": second}, "score": False}}


UNSCORED = {"split_duplicates": {"score": False}}


def test_split_duplicates() -> None:
    named(run("split_duplicates", case(options=UNSCORED)))
    leak = run("split_duplicates", case(val=copied(30), options=UNSCORED))
    named(leak, "split_leak")
    assert leak.diagnoses[0].evidence.startswith("30 of 120 rows of val (25.00%) have an exact copy in train")
    assert "clean('val')" in leak.diagnoses[0].cure
    assert leak.diagnoses[0].confidence == "shown"


def test_split_duplicates_with_other_labels() -> None:
    x, y = copied(30)
    y = np.where(np.arange(120) >= 90, (y + 1) % 3, y)
    named(run("split_duplicates", case(val=(x, y), options=UNSCORED)), "split_leak", "conflicting_labels")


def test_split_duplicates_by_group() -> None:
    named(run("split_duplicates", case(options=grouped(shared=False))))
    verdict = run("split_duplicates", case(options=grouped(shared=True)))
    named(verdict, "split_leak")
    assert "GroupShuffleSplit" in verdict.diagnoses[0].cure


# ---------------------------------------------------------------------------------------------------- early accuracy


def early(**changed: Any) -> Verdict:
    return run("early_accuracy", case(**changed))


def test_early_accuracy_of_a_healthy_case() -> None:
    named(early())


def with_label(data: tuple[Any, Any]) -> tuple[Any, Any]:
    x, y = data
    return np.concatenate([x, y[:, None].astype("float32") * 2], axis=1), y


def test_label_in_input() -> None:
    verdict = early(train=with_label(TRAIN), val=with_label(VAL), model=lambda: mlp(7))
    named(verdict, "label_in_input")
    assert verdict.diagnoses[0].cure.endswith("numpy.delete(x, [6], axis=1)")


def test_copies_and_classes() -> None:
    named(early(val=copied(60)), "split_leak")
    unseen = early(val=drawn(120, 4, seed=2))
    named(unseen, "unseen_class")
    assert "of class 3, which train has none of" in unseen.diagnoses[0].evidence


def test_classes_renumbered() -> None:
    x, y = VAL
    verdict = early(val=(x, (y + 1) % 3))
    named(verdict, "classes_renumbered")
    assert "train and val" in verdict.diagnoses[0].cure


def test_misaligned_labels() -> None:
    x, y = VAL
    verdict = early(val=(x, np.random.default_rng(5).permutation(y)))
    named(verdict, "misaligned_labels")
    assert verdict.diagnoses[0].confidence == "likely"


@pytest.mark.parametrize(("rate", "fault"), [(1e-7, "lr_too_low"), (300.0, "lr_too_high")])
def test_a_rate_that_another_cures_is_proved(rate: float, fault: str) -> None:
    verdict = early(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate))
    assert [(each.fault, each.confidence) for each in verdict.diagnoses] == [(fault, "proved")], verdict.summary
    assert "times the learning rate" in verdict.diagnoses[0].cure


# ------------------------------------------------------------------------------------------------------ regularisers


class Functional(nn.Module):
    """Dropout by a function, which must be told the mode."""

    def __init__(self, told: bool, used: bool = True) -> None:
        super().__init__()
        self.first, self.last, self.told, self.used = nn.Linear(6, 16), nn.Linear(16, 4), told, used

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        dropped = F.dropout(x, 0.5, training=self.training if self.told else True)
        return self.last(dropped if self.used else x)


class Switched(nn.Module):
    """A part that is put into evaluation mode by its own forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(6, nn.Dropout(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.body[2].eval()
        return self.body(x)


def augmented(random: bool) -> Any:
    class Rows(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            x = torch.as_tensor(TRAIN[0][index])
            return (x + torch.randn(6) if random else x), int(TRAIN[1][index])

    return Rows()


REGULARISERS: dict[str, tuple[Callable[[], Case], Callable[[], Case], str]] = {
    "dropout in evaluation": (
        lambda: case(model=lambda: Functional(told=False)), lambda: case(model=lambda: Functional(told=True)),
        "random_in_eval",
    ),
    "thrown away": (
        lambda: case(model=lambda: Functional(told=True, used=False)),
        lambda: case(model=lambda: Functional(told=True)),
        "inert_regularizer",
    ),
    "switched off": (
        lambda: case(model=Switched), lambda: case(model=lambda: mlp(6, nn.Dropout(0.5))), "inert_regularizer"
    ),
    "decay": (
        lambda: case(optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-9)),
        lambda: case(optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-2)),
        "inert_regularizer",
    ),
    "decay without a rate": (
        lambda: case(optimizer=lambda p: torch.optim.AdamW(p, lr=0.0, weight_decay=0.02)),
        lambda: case(optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-2)),
        "lr_zero",
    ),
    "random validation": (
        lambda: case(train=augmented(random=False), val=augmented(random=True)),
        lambda: case(train=augmented(random=True), val=augmented(random=False)),
        "random_in_eval",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REGULARISERS)
def test_inert_regularizer(name: str) -> None:
    faulty, healthy, fault = REGULARISERS[name]
    named(run("inert_regularizer", faulty()), fault)
    named(run("inert_regularizer", healthy()))


def test_regularization() -> None:
    limits = {"seeds": 10, "epochs": 2}
    inert = case(model=lambda: mlp(6, nn.Identity()), unregularized={"model": mlp})
    named(run("regularization", inert, **limits), "inert_regularizer")
    named(run("regularization", case(model=lambda: mlp(6, nn.Dropout(0.2)), unregularized={"model": mlp}), **limits))


# ------------------------------------------------------------------------------------------------------------ bounds


class Dead(nn.Module):
    """Units that a bias keeps off."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 4)
        self.act = nn.ReLU()
        nn.init.constant_(self.first.bias, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.first(x)))


class Mixed(nn.Module):
    """Each row sees the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x - x.mean(0))


def bounded(model: Callable[[], nn.Module], **bounds: Any) -> Verdict:
    x, y = TRAIN
    given = case(model=model, batch=(x[:24], y[:24]))
    return run("bounds", with_bounds(given, "bounds", bounds, "call"))


def test_bounds() -> None:
    named(bounded(lambda: Dead(-100.0), dead_units=at_most(0.5)), "dead_relu")
    named(bounded(lambda: Dead(0.0), dead_units=at_most(0.5)))
    named(bounded(Mixed, batch_size_invariance=True), "batch_mixing")
    named(bounded(mlp, batch_size_invariance=True))
    named(bounded(lambda: Functional(told=False), eval_twice=True), "random_in_eval")
    named(bounded(lambda: Functional(told=True), eval_twice=True))


def test_a_bound_that_is_not_kept_is_no_fault_by_itself() -> None:
    verdict = bounded(mlp, parameters_trainable=at_most(3))
    assert verdict.outcome == "failed"
    named(verdict)


# --------------------------------------------------------------------------------------------------------- mechanism


def finding(outcome: Any, fault: str, message: str = "3 of 4") -> Finding:
    return Finding(name="a", value=3.0, outcome=outcome, message=message, cause=Cause(fault, "write b"))


def test_what_passed_shows_nothing_and_what_failed_comes_first() -> None:
    findings = [finding("passed", "a"), finding("note", "b"), finding("warning", "c"), finding("failed", "d")]
    judged = Judgement.of([*findings, finding("failed", "d", "4 of 4")], lambda: "fine")
    assert [(each.fault, each.evidence) for each in judged.diagnoses] == [("d", "3 of 4"), ("c", "3 of 4")]
    assert Judgement.of(findings[:2], lambda: "fine").diagnoses == ()
