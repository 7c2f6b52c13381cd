"""Probe `early_accuracy`: planted faults beside healthy twins on real data, and its judgement on plain values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytest_overfit import Case, CaseError, Verdict, run_probes
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Judgement
from pytest_overfit.probes.early_accuracy import PROBE, EarlyAccuracyLimits
from pytest_overfit.probes.early_accuracy.estimates import Predictions, clearly_above, estimate, shrunk, wilson
from pytest_overfit.probes.early_accuracy.label_in_input import label_columns
from pytest_overfit.probes.early_accuracy.simple_models import FeatureTable, measure_baselines
from pytest_overfit.probes.early_accuracy.symptoms import halving_epochs, unseen_by_luck

Pair = tuple[Any, Any]
Arrays = tuple[np.ndarray, np.ndarray]

# ------------------------------------------------------------------------------------------------------------- programs


def cut(x: np.ndarray, y: np.ndarray, order: np.ndarray | None = None) -> tuple[Pair, Pair]:
    """Three quarters to train on, one to validate."""
    order = np.random.default_rng(0).permutation(len(x)) if order is None else order
    first, last = order[: len(x) * 3 // 4], order[len(x) * 3 // 4 :]
    return (x[first], y[first]), (x[last], y[last])


def digits() -> Arrays:
    data = load_digits()
    return (data.data / 16).astype("float32"), data.target


def breast() -> Arrays:
    data = load_breast_cancer()
    return ((data.data - data.data.mean(0)) / data.data.std(0)).astype("float32"), data.target


def diabetes() -> Arrays:
    data = load_diabetes()
    y = ((data.target - data.target.mean()) / data.target.std()).astype("float32")
    return (data.data / data.data.std(0)).astype("float32"), y[:, None]


def mlp(inputs: int = 64, outputs: int = 10, hidden: int = 64, drop: float = 0.0) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(drop), nn.Linear(hidden, outputs))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))


def dead() -> nn.Module:
    model = mlp()
    nn.init.constant_(model[0].bias, -100.0)
    return model


def slow_statistics() -> nn.Module:
    """As in large networks with a momentum of 0.01: in evaluation their outputs hardly differ for the first updates."""
    blocks = [
        each
        for inputs in (64, *[16] * 23)
        for each in (nn.Linear(inputs, 16), nn.BatchNorm1d(16, momentum=0.001), nn.ReLU())
    ]
    return nn.Sequential(*blocks, nn.Linear(16, 10))


def verdict_of(
    splits: tuple[Pair, Pair],
    model: Callable[[], nn.Module] = mlp,
    rate: float = 1e-3,
    optimizer: Any = torch.optim.Adam,
    loss: Any = nn.functional.cross_entropy,
    limits: dict[str, Any] | None = None,
    **fields: Any,
) -> Verdict:
    train, val = splits
    case = Case(name="program", model=model, loss=loss, optimizer=lambda parameters: optimizer(parameters, lr=rate),
                train=train, val=val, **fields)  # fmt: skip
    return run_probes(case, ["early_accuracy"], **(limits or {}))[0]


def names(verdict: Verdict | Judgement, outcome: str) -> list[str]:
    return [each.name for each in verdict.findings if each.outcome == outcome]


def noisy(share: float, rows: int = 1500) -> Arrays:
    """A task where the best answer is right in a good half of the rows only."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(rows, 20)).astype("float32")
    return x, (x[:, :5].sum(axis=1) + share * generator.normal(size=rows) > 0).astype(int)


def rare() -> Arrays:
    generator = np.random.default_rng(4)
    y = (generator.random(1500) < 0.05).astype(int)
    return (generator.normal(size=(1500, 20)) + 0.7 * y[:, None]).astype("float32"), y


def easy() -> Arrays:
    generator = np.random.default_rng(5)
    y = generator.integers(0, 2, 400)
    return (generator.normal(size=(400, 10)) + 6 * y[:, None]).astype("float32"), y


def one_feature() -> Arrays:
    x = np.random.default_rng(6).normal(size=(400, 10)).astype("float32")
    return x, (x[:, 0] > 0).astype(int)


def circles() -> Arrays:
    generator = np.random.default_rng(7)
    angle, y = generator.random(1200) * 2 * math.pi, generator.integers(0, 2, 1200)
    return np.stack([np.cos(angle) * (1 + y), np.sin(angle) * (1 + y)], axis=1).astype("float32"), y


def chained(optimizer: Any) -> Any:
    parts = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 20), torch.optim.lr_scheduler.StepLR(optimizer, 5)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, list(parts), [20])


def warm_up(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) * 1e-5)


HEALTHY: dict[str, Callable[[], Verdict]] = {
    "digits_mlp": lambda: verdict_of(cut(*digits())),
    "digits_mlp_10_epochs": lambda: verdict_of(cut(*digits()), limits={"epochs": 10}),
    "digits_cnn": lambda: verdict_of(cut(*digits()), cnn),
    "batch_norm": lambda: verdict_of(cut(*digits()), batch_norm),
    "slow_sgd": lambda: verdict_of(cut(*digits()), rate=0.01, optimizer=torch.optim.SGD),
    "breast_logistic": lambda: verdict_of(cut(*breast()), partial(nn.Linear, 30, 2), 1e-2),
    "diabetes": lambda: verdict_of(cut(*diabetes()), partial(mlp, 10, 1), loss=nn.functional.mse_loss),
    "diabetes_raw_target": lambda: verdict_of(
        cut(diabetes()[0], 77 * diabetes()[1] + 152), partial(mlp, 10, 1), loss=nn.functional.mse_loss
    ),
    "noisy": lambda: verdict_of(cut(*noisy(4.0)), partial(mlp, 20, 2)),
    "dropout": lambda: verdict_of(cut(*digits()), partial(mlp, 64, 10, 128, 0.7)),
    "rare_class": lambda: verdict_of(cut(*rare()), partial(mlp, 20, 2), rate=3e-3),
    "easy_two_classes": lambda: verdict_of(cut(*easy()), partial(mlp, 10, 2), 1e-2),
    "one_strong_feature": lambda: verdict_of(cut(*one_feature()), partial(mlp, 10, 2), 1e-2),
    "better_than_linear": lambda: verdict_of(cut(*circles()), partial(mlp, 2, 2), 1e-2, limits={"epochs": 5}),
    "warm_up": lambda: verdict_of(cut(*digits()), scheduler=warm_up, rate=1e-2),
    "raw_pixels_that_train": lambda: verdict_of(cut(digits()[0] * 255, digits()[1])),
    "encoded_on_train_only": lambda: verdict_of(encoded(train_only=True), partial(mlp, 31, 2)),
    "own_score": lambda: verdict_of(cut(*digits()), score=lambda m, x, y: float((m(x).argmax(1) == y).float().mean())),
    "rows_that_repeat_by_themselves": lambda: verdict_of(few_values(), partial(mlp, 4, 2)),
    "loaders": lambda: verdict_of(loaders(*cut(*digits()))),
    "own_loop": lambda: own_loop(cheats=False),
}


def copied(share: float) -> tuple[Pair, Pair]:
    train, (x, y) = cut(*digits())
    rows = int(share * len(x))
    return train, (np.concatenate([train[0][:rows], x[rows:]]), np.concatenate([train[1][:rows], y[rows:]]))


def nearly_copied() -> tuple[Pair, Pair]:
    train, (x, _) = cut(*digits())
    noise = 0.01 * np.random.default_rng(0).normal(size=x.shape)
    return train, ((train[0][: len(x)] + noise).astype("float32"), train[1][: len(x)])


def oversampled() -> tuple[Pair, Pair]:
    """Every row three times, and then the cut: train repeats itself as much as validation repeats train."""
    x, y = breast()
    return cut(np.repeat(x, 3, axis=0), np.repeat(y, 3))


def few_values() -> tuple[Pair, Pair]:
    """A table of which nearly every row stands in it many times, by itself."""
    generator = np.random.default_rng(9)
    x = generator.integers(0, 3, (1500, 4)).astype("float32")
    return cut(x, (x.sum(axis=1) + 1.5 * generator.normal(size=1500) > 4).astype(int))


def with_columns(extra: np.ndarray) -> tuple[Pair, Pair]:
    x, y = digits()
    return cut(np.concatenate([x, extra.reshape(len(x), -1)], axis=1).astype("float32"), y)


def in_a_pixel() -> tuple[Pair, Pair]:
    x, y = digits()
    x[:, 0] = y / 255
    return cut(x, y)


def encoded(train_only: bool) -> tuple[Pair, Pair]:
    """A category replaced by the mean of its labels: over all rows, or as it is done right."""
    x, y = breast()
    kinds = np.random.default_rng(8).integers(0, 150, len(y))
    order = np.random.default_rng(0).permutation(len(y))
    known = order[: len(y) * 3 // 4] if train_only else order
    means = {kind: y[known][kinds[known] == kind].mean() for kind in set(kinds[known].tolist())}
    column = np.array([means.get(kind, 0.5) for kind in kinds.tolist()])
    return cut(np.concatenate([x, column[:, None]], axis=1).astype("float32"), y)


def shuffled_val() -> tuple[Pair, Pair]:
    train, (x, y) = cut(*digits())
    return train, (x, np.random.default_rng(1).permutation(y))


def random_labels() -> tuple[Pair, Pair]:
    generator = np.random.default_rng(0)
    x, y = generator.random((160, 50)).astype("float32"), generator.integers(0, 2, 160)
    return (x[:60], y[:60]), (x[60:], y[60:])


def loaders(train: Pair, val: Pair) -> tuple[Any, Any]:
    def load(pair: Pair) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*map(torch.as_tensor, pair)), batch_size=32, shuffle=True)

    return partial(load, train), partial(load, val)


class Loop:
    """A model with its optimizer, trained by a step of its owner's."""

    def __init__(self) -> None:
        self.model = mlp()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def predict(self, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.model(torch.as_tensor(x)).numpy()

    def learn(self, x: np.ndarray, y: np.ndarray) -> float:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(torch.as_tensor(x)), torch.as_tensor(y))
        loss.backward()
        self.optimizer.step()
        return loss.item()


def own_loop(cheats: bool) -> Verdict:
    train, val = cut(*digits())

    def step(model: Loop, x: np.ndarray, y: np.ndarray) -> float:
        if cheats:  # the rows it is given are thrown away; it learns from those it is judged by
            rows = np.random.randint(0, len(val[0]), len(x))
            x, y = val[0][rows], val[1][rows]
        return model.learn(x, y)

    return run_probes(Case(name="program", model=Loop, step=step, train=train, val=val), ["early_accuracy"])[0]


#: fault -> what it is called, and the program
FAULTS: dict[str, tuple[str, Callable[[], Verdict]]] = {
    "a_third_copied": ("exact_copies", lambda: verdict_of(copied(0.3))),
    "val_is_train": ("exact_copies", lambda: verdict_of((cut(*digits())[0],) * 2)),
    "val_is_train_in_loaders": ("exact_copies", lambda: verdict_of(loaders(*(cut(*digits())[0],) * 2))),
    "oversampled_before_the_cut": ("exact_copies", lambda: verdict_of(oversampled(), partial(mlp, 30, 2))),
    "nearly_copied": ("near_copies", lambda: verdict_of(nearly_copied())),
    "label_in_a_pixel": ("label_in_input", lambda: verdict_of(in_a_pixel())),
    "label_raw": ("label_in_input", lambda: verdict_of(with_columns(digits()[1]), partial(mlp, 65))),
    "label_one_hot": ("label_in_input", lambda: verdict_of(with_columns(np.eye(10)[digits()[1]]), partial(mlp, 74))),
    "target_in_other_units": (
        "label_in_input",
        lambda: verdict_of(
            cut(np.concatenate([diabetes()[0], 3 - diabetes()[1] / 7], axis=1), diabetes()[1]),
            partial(mlp, 11, 1), loss=nn.functional.mse_loss,
        ),
    ),
    "target_encoded_with_val": ("label_in_input", lambda: verdict_of(encoded(train_only=False), partial(mlp, 31, 2))),
    "val_labels_shuffled": ("misaligned_labels", lambda: verdict_of(shuffled_val())),
    "sorted_by_label": (
        "unseen_class", lambda: verdict_of(cut(*digits(), order=np.argsort(digits()[1], kind="stable"))),
    ),
    "learns_from_val": ("permuted_labels", lambda: own_loop(cheats=True)),
    "score_ignores_the_model": ("own_score", lambda: verdict_of(cut(*digits()), score=lambda m, x, y: 1.0)),
    "rate_10_adam": ("learning_rate", lambda: verdict_of(cut(*digits()), rate=10.0)),
    "rate_10_sgd": ("learning_rate", lambda: verdict_of(cut(*digits()), rate=10.0, optimizer=torch.optim.SGD)),
    "rate_1e-7": ("learning_rate", lambda: verdict_of(cut(*digits()), rate=1e-7)),
    "raw_pixels": (
        "unnormalised_input",
        lambda: verdict_of(cut(digits()[0] * 255, digits()[1]), rate=0.1, optimizer=torch.optim.SGD),
    ),
    "raw_regression": (
        "unnormalised_input",
        lambda: verdict_of(
            cut(diabetes()[0] * 1000, diabetes()[1]), partial(mlp, 10, 1), 0.01, torch.optim.SGD, nn.functional.mse_loss
        ),
    ),
    "memorises_random_labels": (
        "memorising", lambda: verdict_of(random_labels(), partial(mlp, 50, 2, 512), 1e-2, limits={"epochs": 60}),
    ),
    "dead": ("input_ignored", lambda: verdict_of(cut(*digits()), dead)),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_program_passes(name: str) -> None:
    verdict = HEALTHY[name]()
    assert verdict.outcome == "passed", verdict.summary


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(name: str) -> None:
    finding, program = FAULTS[name]
    verdict = program()
    assert verdict.outcome == "failed", verdict.summary
    assert finding in names(verdict, "failed"), verdict.findings


def test_labels_shuffled_against_inputs_are_inconclusive() -> None:
    x, y = digits()
    verdict = verdict_of(cut(x, np.random.default_rng(2).permutation(y)))
    assert verdict.outcome == "inconclusive"
    assert "labels do not depend on inputs as far as" in verdict.summary


def test_a_constant_answer_that_is_as_good_is_said() -> None:
    assert "a constant answer reaches 0.9" in HEALTHY["rare_class"]().summary


def test_a_strong_feature_is_named_in_a_warning() -> None:
    verdict = HEALTHY["one_strong_feature"]()
    (found,) = [each for each in verdict.findings if each.name == "best_column"]
    assert found.outcome == "warning"
    assert "column 0 of the input alone" in found.message


def test_a_printed_loss_above_validation_is_of_the_model_as_it_trains() -> None:
    x, y = digits()  # few rows, so that validation's loss is clearly above that of train in evaluation
    dropping = partial(mlp, 64, 10, 128, 0.8)
    verdict = verdict_of(cut(x[:300], y[:300]), dropping, rate=3e-3, limits={"epochs": 30})
    (found,) = [each for each in verdict.findings if each.name == "printed_loss"]
    assert "a mean over the epoch, of the model as it trains" in found.message


def test_the_curves_are_in_the_verdict() -> None:
    verdict = HEALTHY["digits_mlp"]()
    assert [len(each) for each in verdict.data["curves"].values()] == [3] * 4
    assert len(verdict.losses) == 2
    assert Verdict.from_dict(verdict.to_dict()).data["curves"] == verdict.data["curves"]


def test_few_validation_rows_are_inconclusive() -> None:
    train, (x, y) = cut(*digits())
    verdict = verdict_of((train, (x[:15], y[:15])))
    assert verdict.outcome == "inconclusive"
    assert "val has 15 rows" in verdict.summary


@pytest.mark.parametrize(("given", "words"), [("train", "val= or test="), ("val", "train=")])
def test_without_two_splits_it_does_not_apply(given: str, words: str) -> None:
    case = Case(name="alone", model=mlp, loss=nn.functional.cross_entropy, optimizer=torch.optim.Adam,
                batch=cut(*digits())[0], **{given: cut(*digits())[0]})  # fmt: skip
    (verdict,) = run_probes(case, ["early_accuracy"])
    assert verdict.outcome == "not_applicable"
    assert words in verdict.summary


@pytest.mark.parametrize(
    ("alike", "outcome", "fault"),
    [
        (("x train",), "failed", "constant_input"),
        (("x train", "x val"), "inconclusive", "constant_input"),
        (("y train",), "failed", "labels_collapsed"),
        (("x val",), "", ""),
    ],
)
def test_rows_that_are_all_alike_are_named(alike: tuple[str, ...], outcome: str, fault: str) -> None:
    """A split of equal rows is not called misaligned; a validation split of equal rows is another matter."""
    parts = [(x.copy(), y.copy()) for x, y in cut(*digits())]
    for (x, y), name in zip(parts, ("train", "val"), strict=True):
        if f"x {name}" in alike:
            x[:] = x[0]
        if f"y {name}" in alike:
            y[:] = y[0]
    verdict = verdict_of((parts[0], parts[1]))
    if fault:
        assert (verdict.outcome, verdict.diagnoses[0].fault) == (outcome, fault), verdict.summary
    else:
        assert not {"constant_input", "labels_collapsed"} & {each.fault for each in verdict.diagnoses}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("each_has_a_target", [True, False])
def test_outputs_that_a_loss_spreads_over_targets_have_no_score(each_has_a_target: bool) -> None:
    """Ten outputs beside one number a row: the loss takes them, a score cannot pair them."""
    train, val = cut(*digits())

    def loss(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        numbers = y[:, None].float()
        return nn.functional.mse_loss(outputs, numbers.expand_as(outputs) if each_has_a_target else numbers)

    case = Case(name="spread", model=mlp, loss=loss, optimizer=torch.optim.Adam, train=train, val=val)
    (verdict,) = run_probes(case, ["early_accuracy"])
    if each_has_a_target:
        assert verdict.outcome != "failed"
    else:
        assert (verdict.outcome, "cannot be paired" in verdict.summary) == ("not_applicable", True)


def test_test_data_stand_in_for_validation() -> None:
    train, test = cut(*digits())
    case = Case(name="tested", model=mlp, loss=nn.functional.cross_entropy,
                optimizer=lambda parameters: torch.optim.Adam(parameters), train=train, test=test)  # fmt: skip
    assert "test accuracy" in run_probes(case, ["early_accuracy"])[0].summary


@pytest.mark.parametrize(
    "limits",
    [{"epochs": 0}, {"repeats": 0}, {"min_rows": 0}, {"alpha": 0.0}, {"alpha": 1.0}, {"min_memorised": 1.0},
     {"max_copies": 1.0}],
)  # fmt: skip
def test_limits_that_cannot_be_used_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(CaseError, match=next(iter(limits))):
        EarlyAccuracyLimits(**limits)  # type: ignore[arg-type]


def test_the_user_gets_everything_back() -> None:
    x, y = digits()
    (train, val), before = cut(x, y), torch.get_rng_state()
    states = [each.copy() for each in (*train, *val)]
    verdict_of((train, val))
    assert all((one == other).all() for one, other in zip((*train, *val), states, strict=True))
    assert (torch.get_rng_state() == before).all()


def test_the_fixture_has_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import numpy as np, torch
        from pytest_overfit import Case

        def test_it(overfit):
            x = np.random.default_rng(0).normal(size=(200, 5)).astype("float32")
            y = (x[:, 0] + x[:, 1] > 0).astype(int)
            case = Case(name="line", model=lambda: torch.nn.Linear(5, 2), loss=torch.nn.functional.cross_entropy,
                        optimizer=lambda p: torch.optim.Adam(p, lr=1e-2), train=(x[:150], y[:150]),
                        val=(x[:50], y[:50]))
            overfit.early_accuracy(case, epochs=1)
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*leak: 50 of 50 rows of val have a copy in train*"])


# ------------------------------------------------------------------------------------------------------------ judgement

Plain = dict[str, Any]


def said(score: float, rows: int = 400, by_luck: bool | None = None, varies: bool = True) -> Plain:
    """An estimate of an accuracy of ten classes."""
    low, high = wilson(score, rows)
    p = 0.5 if (score < 0.2 if by_luck is None else by_luck) else 0.001
    centre, error = shrunk(score, rows)
    return {"score": score, "centre": centre, "error": error, "low": low, "high": high, "rows": rows,
            "varies": varies, "related": p, "signal": p}  # fmt: skip


def end(train: float, val: float, loss: float = 1.0, **fields: Any) -> Plain:
    plain = {"train": said(train, 1000), "val": said(val), "losses": [2.0, loss], "start_loss": 2.3, "end_loss": loss}
    return {**plain, **fields}


def measured(**changes: Any) -> Plain:
    """A healthy run on ten classes."""
    nothing = {"rows": 0, "with": None, "without": None}
    plain: Plain = {
        "framework": "fake", "losses": [2.0, 1.0], "steps": 60, "split": "val", "metric": "accuracy",
        "rows": {"train": 1000, "val": 400}, "chance": {"train": 0.1, "val": 0.1},
        "curves": {"train": [0.1, 0.8], "val": [0.1, 0.8], "train_loss": [2.3, 1.0], "val_loss": [2.3, 1.1]},
        "before": {"train": said(0.1, 1000), "val": said(0.1)}, "after": end(0.82, 0.8),
        "has_schedule": False, "remarks": [], "in_part": False, "own": None, "evaluation_lags": False,
        "baselines": {"constant": said(0.1), "linear": said(0.9), "nearest": said(0.95)},
        "label_columns": [], "best_column": None, "unseen": [], "columns": 64,
        "permuted": [{**end(0.15, 0.1), "before": {"val": said(0.1)}}], "rates": [], "scale": None,
        "standardised": None, "inside": {}, "inside_both": {}, "kept_apart": None, "redrawn": None, "longer": None,
        "evaluation": None, "moved": True, "relabelled": {"train": None, "val": None}, "not_run": [],
        "copies": {"rows": 400, "within": 0.0, "near_searched": True, "near_testable": True, "near_expected": 0.0,
                   "by_columns": 0.0, "identified": False,
                   "exact": nothing, "near": nothing},
    }  # fmt: skip
    return {**plain, **changes}


def judge(plain: Plain, **limits: Any) -> Judgement:
    return PROBE.judge(plain, Resolved(EarlyAccuracyLimits(**limits), {}))


def chance(**changes: Any) -> Plain:
    """A run that is at chance, its loss standing, on data from which simple models learn."""
    fields = {"losses": [2.31, 2.31], "start_loss": 2.3, "end_loss": 2.31, **changes.pop("after", {})}
    return measured(after=end(0.1, 0.1, **fields), permuted=[], **changes)


@pytest.mark.parametrize(("steps", "outcome"), [(60, "passed"), (299, "passed"), (300, "inconclusive")])
def test_statistics_that_lag_are_no_ignored_input(steps: int, outcome: str) -> None:
    plain = chance(steps=steps)
    plain["after"]["train"] = said(0.1, 1000, varies=False)
    assert names(judge(plain), "failed") == ["input_ignored"]
    found = judge({**plain, "evaluation_lags": True})
    assert found.outcome == outcome
    assert "evaluation_lags" in names(found, "warning" if outcome == "passed" else outcome)


def test_a_healthy_model_whose_statistics_lag_does_not_fail() -> None:
    x, y = digits()
    found = verdict_of(cut(x[:200], y[:200]), slow_statistics)
    assert found.data["evaluation_lags"]
    assert found.outcome == "passed"
    assert "evaluation_lags" in names(found, "warning")
    assert not verdict_of(cut(*digits()), dead).data["evaluation_lags"]


@settings(deadline=None, max_examples=300)
@given(st.floats(0.3, 1.0), st.floats(-0.1, 0.1), st.floats(0.1, 1.0), st.floats(0.1, 1.0))
def test_a_high_score_alone_never_fails(val: float, gap: float, linear: float, nearest: float) -> None:
    baselines = {"constant": said(0.1), "linear": said(linear), "nearest": said(nearest)}
    train = min(1.0, max(0.0, val + gap))
    plain = measured(after=end(train, val), baselines=baselines, kept_apart=said(val))
    assert judge(plain).outcome == "passed"


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 400), st.floats(0.0, 0.9))
def test_copies_fail_only_beyond_what_the_data_repeat(rows: int, within: float) -> None:
    each = {"rows": rows, "with": said(0.8, rows) if rows else None, "without": said(0.8)}
    copies = {**measured()["copies"], "within": within, "exact": each, "near": each}
    judgement = judge(measured(copies=copies))
    if rows / 400 <= within and rows <= 380:
        assert judgement.outcome == "passed"
    if rows / 400 > within + 0.2:
        assert judgement.outcome == "failed"


@pytest.mark.parametrize(
    ("identified", "by_columns", "outcome"),
    [(True, 0.0, "failed"), (False, 0.0, "inconclusive"), (False, 0.99, "passed")],
)
def test_rows_that_are_all_known_need_a_reason(identified: bool, by_columns: float, outcome: str) -> None:
    each = {"rows": 390, "with": said(0.8, 390), "without": said(0.8, 10)}
    copies = {**measured()["copies"], "within": 0.98, "exact": each, "near": each, "identified": identified,
              "by_columns": by_columns}  # fmt: skip
    assert judge(measured(copies=copies)).outcome == outcome


def test_copies_that_raise_the_score_fail_where_the_data_repeat_as_well() -> None:
    each = {"rows": 200, "with": said(0.99, 200), "without": said(0.6, 200)}
    copies = {**measured()["copies"], "within": 0.5, "exact": each, "near": each}
    assert names(judge(measured(copies=copies)), "failed") == ["exact_copies"]
    for unknown, outcome in ((said(0.6, 200), "failed"), (said(0.97, 200), "passed")):  # easier rows without copies too
        known = {**copies, "exact": {**each, "unknown": unknown}, "near": {**each, "rows": 200}}
        assert judge(measured(copies=known)).outcome == outcome


@pytest.mark.parametrize(("repeats", "outcome"), [(1, "passed"), (9, "passed"), (10, "failed")])
def test_a_pipeline_fault_needs_every_repeat(repeats: int, outcome: str) -> None:
    permuted = [{**end(0.15, 0.7), "before": {"val": said(0.1)}}] * repeats
    assert judge(measured(permuted=permuted)).outcome == outcome


def test_what_pretrained_weights_know_is_no_pipeline_fault() -> None:
    known = {"train": said(0.9, 1000), "val": said(0.9)}
    permuted = [{**end(0.9, 0.9), "before": {"val": said(0.9)}}] * 10
    judgement = judge(measured(permuted=permuted, before=known, after=end(0.95, 0.95), redrawn=AT_CHANCE))
    assert judgement.outcome == "passed"
    assert "known_before" in names(judgement, "warning")


def test_weights_that_know_validation_but_not_train_were_trained_on_it() -> None:
    leaked = measured(before={"train": said(0.3, 1000), "val": said(1.0)}, after=end(0.8, 1.0), redrawn=AT_CHANCE)
    assert names(judge(leaked), "failed") == ["known_before"]
    assert names(judge({**leaked, "redrawn": None}), "failed") == ["known_before"]  # weights that nobody can reach


#: scores of weights that were drawn again: on ten classes, and where classes lie apart along one direction
AT_CHANCE, EITHER_WAY = [0.08 + 0.005 * number for number in range(10)], [0.1, 0.9] * 5


def test_random_weights_that_go_with_validation_are_no_leak() -> None:
    before = {"train": said(0.5, 1000), "val": said(0.8)}
    shuffled = measured(before=before, after=end(0.5, 0.8), redrawn=EITHER_WAY)
    assert judge(shuffled).outcome == "passed"
    assert "known_before" not in [each.name for each in judge(shuffled).findings]
    # with labels that nothing could know, more is no leak either
    nothing = {name: said(0.1, by_luck=True) for name in ("constant", "linear", "nearest")}
    unknowable = measured(before=before, after=end(0.5, 0.8), redrawn=AT_CHANCE, baselines=nothing, inside=nothing)
    assert "known_before" not in names(judge(unknowable), "failed")


@settings(deadline=None, max_examples=200)
@given(st.floats(0.7, 1.0), st.floats(0.0, 1.0))
def test_memorising_needs_random_labels_that_are_fitted_as_fast(train: float, random: float) -> None:
    plain = measured(after=end(train, 0.1), permuted=[{**end(random, 0.1), "before": {"val": said(0.1)}}],
                     baselines={"constant": said(0.1), "linear": said(0.1), "nearest": said(0.1)})  # fmt: skip
    judgement = judge(plain)
    assert judgement.outcome == ("failed" if not clearly_above(said(train, 1000), said(random, 1000), 0.001)
                                 else "inconclusive")  # fmt: skip


@pytest.mark.parametrize("factor", [0.1, 0.01, 100.0, 1e4])
def test_a_rate_is_blamed_only_when_another_one_trains(factor: float) -> None:
    cured, not_cured = ({"factor": factor, **end(score, score)} for score in (0.8, 0.1))
    assert names(judge(chance(rates=[cured])), "failed") == ["learning_rate"]
    assert names(judge(chance(rates=[not_cured])), "inconclusive") == ["nothing_learnt"]
    assert judge(chance(rates=[])).outcome == "inconclusive"


def test_a_schedule_that_begins_low_is_waited_for() -> None:
    standing = {"losses": [2.3, 2.3 - 1e-8], "end_loss": 2.3 - 1e-8}
    rates = [{"factor": 100.0, **end(0.8, 0.8)}]
    assert judge(chance(rates=rates, after=standing)).outcome == "failed"
    assert judge(chance(rates=rates, after=standing, has_schedule=True)).outcome == "passed"


def test_unnormalised_input_is_blamed_only_when_standardising_trains() -> None:
    scale = {"mean": 80.0, "std": 100.0, "largest": 255.0, "largest_spread": 100.0, "least_spread": 1.0}
    judgement = judge(chance(scale=scale, standardised=end(0.8, 0.8)))
    assert names(judgement, "failed") == ["unnormalised_input"]
    assert "unnormalised_input" not in names(judge(chance(scale=scale, standardised=end(0.1, 0.1))), "failed")


@settings(deadline=None, max_examples=200)
@given(st.floats(0.3, 0.999))
def test_a_loss_that_falls_is_waited_for(share: float) -> None:
    falling = {"losses": [2.3, 2.3 * share], "end_loss": 2.3 * share}
    assert judge(chance(after=falling)).outcome == "passed"


def test_what_was_not_measured_is_not_said() -> None:
    falling = {"losses": [2.3, 1.3], "end_loss": 1.3}
    assert "while the loss falls" in judge(chance(after=falling)).summary
    unknown = {"losses": [2.3], "start_loss": None, "end_loss": None}
    assert "still at chance: not learnt yet" in judge(chance(after=unknown)).summary
    nothing = {"constant": said(0.1), "linear": said(0.1), "nearest": said(0.1)}
    judgement = judge(measured(after=end(0.95, 0.1), permuted=[], baselines=nothing))
    assert judgement.outcome == "inconclusive"
    assert "whether random labels are fitted as fast could not be tested" in judgement.summary


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_never_passes(loss: float) -> None:
    after = {"losses": [loss], "end_loss": loss}
    assert judge(chance(after=after)).outcome != "passed"
    assert judge(chance(after=after, rates=[{"factor": 0.1, **end(0.8, 0.8)}])).outcome == "failed"


def test_a_missing_class_is_judged_by_what_a_random_cut_would_do() -> None:
    many, one = ([{"class": "8", "rows": rows, "p": p}] for rows, p in ((170, 1e-100), (1, 0.25)))
    assert names(judge(measured(unseen=many)), "failed") == ["unseen_class"]
    assert judge(measured(unseen=one)).outcome == "passed"


def test_a_score_of_the_users_that_looks_at_nothing_fails() -> None:
    for own, outcome in (
        ({"before": 1.0, "after": 1.0, "other_targets": [1.0] * 5}, "failed"),
        ({"before": 0.5, "after": 1.0, "other_targets": [1.0] * 5}, "passed"),
        ({"before": 0.5, "after": 1.0, "other_targets": [0.0, 0.0, 1.0, 0.0, 0.0]}, "passed"),
        ({"before": 0.5, "after": 1.0, "other_targets": []}, "passed"),
    ):
        assert judge(measured(own=own)).outcome == outcome


def test_without_answers_row_by_row_it_does_not_apply() -> None:
    plain = measured()
    del plain["baselines"]
    assert judge(plain).outcome == "not_applicable"


# ------------------------------------------------------------------------------------------------------------- measures


def answers(target: np.ndarray, predicted: np.ndarray | None = None, kind: Any = "classes") -> Predictions:
    target = target.reshape(len(target), -1)
    predicted = target if predicted is None else predicted.reshape(target.shape)
    return Predictions(kind=kind, predicted=predicted, target=target, counted=np.ones(target.shape, bool), raw=None)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(20, 200), st.floats(0.05, 0.5))
def test_a_constant_answer_is_never_related(seed: int, rows: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    target = (generator.random(rows) < share).astype(int)
    assert estimate(answers(target, np.zeros(rows, int)))["related"] == 1.0


def test_p_is_uniform_under_chance() -> None:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(100):
        target, predicted = generator.integers(0, 3, 60), generator.integers(0, 3, 60)
        found.append(estimate(answers(target, predicted))["related"])
    assert sum(each <= 0.1 for each in found) <= 25  # ties make it conservative; 25 of 100 has p < 1e-5


@settings(deadline=None, max_examples=100)
@given(st.floats(0, 1), st.integers(1, 10**5))
def test_wilson_holds_the_share(share: float, rows: int) -> None:
    low, high = wilson(share, rows)
    assert 0.0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1.0


def test_the_baselines_are_what_scikit_learn_reaches() -> None:
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.neighbors import KNeighborsClassifier

    (x, y), (asked, wanted) = cut(*digits())
    found = measure_baselines(FeatureTable(x, answers(y)), FeatureTable(asked, answers(wanted)))
    spread = np.where(x.std(0) > 0, x.std(0), 1)
    x, asked = (x - x.mean(0)) / spread, (asked - x.mean(0)) / spread
    linear = RidgeClassifierCV(alphas=np.logspace(-2, 5, 20)).fit(x, y).score(asked, wanted)
    nearest = KNeighborsClassifier(1).fit(x, y).score(asked, wanted)
    assert abs(found["linear"]["score"] - linear) < 0.02
    assert abs(found["nearest"]["score"] - nearest) < 0.01
    assert found["constant"]["score"] < 0.2


def test_wide_and_narrow_tables_have_the_same_linear_model() -> None:
    x, y = diabetes()
    tables = [FeatureTable(part, answers(target, kind="values")) for part, target in cut(x, y)]
    wide = [FeatureTable(np.repeat(each.features, 40, axis=1), each.answers) for each in tables]
    narrow, repeated = (measure_baselines(*each)["linear"]["score"] for each in (tables, wide))
    assert narrow > 0.3
    assert abs(narrow - repeated) < 0.05  # another scale, so another penalty of the same list


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 8))
def test_no_label_is_seen_in_random_columns(seed: int, classes: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    features, target = generator.integers(0, 5, (100, width)).astype(float), generator.integers(0, classes, 100)
    tables = [FeatureTable(features[part], answers(target[part])) for part in (slice(0, 70), slice(70, 100))]
    assert label_columns(*tables) == []


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 8))
def test_any_spelling_of_the_label_is_seen(seed: int, classes: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    features, target = generator.normal(size=(100, width)), generator.integers(0, classes, 100)
    code = generator.permutation(classes).astype(float)[target]
    features = np.concatenate([features, 0.1 * code[:, None] + 2], axis=1)
    tables = [FeatureTable(features[part], answers(target[part])) for part in (slice(0, 70), slice(70, 100))]
    if len(set(target.tolist())) > 1:
        assert [width] in [each["columns"] for each in label_columns(*tables)]


@pytest.mark.parametrize(("start", "end_loss", "epochs"), [(2.0, 1.0, 2), (2.0, 2.0, math.inf), (1.0, 2.0, math.inf)])
def test_the_pace_of_a_loss(start: float, end_loss: float, epochs: float) -> None:
    assert halving_epochs({"start_loss": start, "end_loss": end_loss, "losses": [1.0, 1.0]}) == epochs


def test_the_chance_of_a_missing_class() -> None:
    (found,) = unseen_by_luck({"a": 60, "b": 15}, {"a": 23, "c": 2})
    assert found["class"] == "c"
    assert found["p"] == pytest.approx(25 / 100 * 24 / 99)


def test_limits_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EarlyAccuracyLimits().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        partial(torch.optim.lr_scheduler.StepLR, step_size=3),
        partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=50),
        partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (step + 1)),
        partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=200),
        chained,
    ],
)
def test_a_scaled_rate_stays_scaled_under_a_schedule(schedule: Any) -> None:
    from pytest_overfit.adapters.dispatch import trainer_for
    from pytest_overfit.data.splits import open_split

    case = Case(name="scaled", model=mlp, loss=nn.functional.cross_entropy, scheduler=schedule, train=cut(*digits())[0],
                optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))  # fmt: skip
    ends = []
    for factor in (1.0, 0.01):
        trainer: Any = trainer_for(case, open_split(case, "train"), 0, False)
        assert trainer.scale_rate(factor)
        trainer.train(1)
        ends.append(trainer.learner.optimizer.param_groups[0]["lr"])
    assert ends[1] == pytest.approx(0.01 * ends[0])
