"""Quick programs of every kind with the verdict that each must get: in any order, any company, from any seed.

`.ci/matrix` runs this file in many ways and compares the verdicts one by one, with `verdict_runs.py`, as does
`benchmarks/verdicts/stability.py` from many seeds.
Two environment variables are for them: `OVERFIT_SEEDS=3,4` runs every case with these seeds, and with
`OVERFIT_FAIL_FIRST=1` each test fails once after its verdict, so that plugins which rerun tests have work.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pytest_overfit import Case, Overfit, ProbeFailed

torch = pytest.importorskip("torch")
nn = torch.nn

ROWS = 16


def images() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, 1, 8, 8)).astype("float32"), np.arange(ROWS) % 4


def channels_last() -> tuple[Any, Any]:
    x, y = images()
    return x.transpose(0, 2, 3, 1), y


def rows() -> tuple[Any, Any]:
    x, y = images()
    return x.reshape(ROWS, 64)[:, :20], y


def tokens() -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 30, size=(ROWS, 12)), np.arange(ROWS) % 4


def values() -> tuple[Any, Any]:
    x, _ = rows()
    return x, (100 + 30 * x[:, :2] - 20 * x[:, 2:4] ** 2).astype("float32")


def several_labels() -> tuple[Any, Any]:
    x, _ = rows()
    return x, (np.random.default_rng(2).random((ROWS, 5)) < 0.4).astype("float32")


def adam(parameters: Any, lr: float = 3e-3) -> Any:
    return torch.optim.Adam(parameters, lr=lr)


def torch_case(name: str, model: Callable[[], Any], batch: Callable[[], Any] = rows, **more: Any) -> Case:
    return Case(name=name, model=model, **{"loss": nn.functional.cross_entropy, "optimizer": adam, **more}, batch=batch)


# -------------------------------------------------------------------------------------------------------------- models


def mlp(inputs: int = 20, outputs: int = 4) -> Any:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs))


def cnn() -> Any:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(16 * 4 * 4, 4),
    )


def mlp_with_softmax() -> Any:
    return nn.Sequential(mlp(), nn.Softmax(dim=1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(30, 16), nn.Linear(32, 4)
        self.lstm = nn.LSTM(16, 32, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.head(self.lstm(self.embedding(x))[0][:, -1])


class IgnoresItsInput(nn.Module):
    """The classic slip: the input is overwritten before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Any) -> Any:
        return self.net(torch.zeros_like(x))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.stem, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = x + torch.relu(norm(convolution(x)))
        return self.head(x.mean((2, 3)))


def linear_in_numpy() -> dict[str, Any]:
    return {"w": np.random.normal(0, 0.1, (20, 4)), "b": np.zeros(4)}


def step_in_numpy(model: dict[str, Any], x: Any, y: Any, sign: float = -1.0) -> float:
    """One step of softmax regression by hand; `sign=1` is the slip of climbing the gradient."""
    logits = x @ model["w"] + model["b"]
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (p - np.eye(4)[y]) / len(x)
    model["w"] += sign * 0.5 * x.T @ error
    model["b"] += sign * 0.5 * error.sum(0)
    return float(-np.log(p[np.arange(len(x)), y] + 1e-12).mean())


def keras_model(kind: str) -> Any:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    if kind == "cnn":
        inner = [layers.Conv2D(16, 3, padding="same"), layers.BatchNormalization(momentum=0.9), layers.ReLU()]
        model = keras.Sequential([layers.Input((8, 8, 1)), *inner, layers.Flatten(), layers.Dense(4)])
    else:
        scale = 1 // 255 if kind == "scaled_away" else 1.0  # the classic slip: a whole number, so 0
        model = keras.Sequential([layers.Input((20,)), layers.Rescaling(scale), layers.Dense(64, "relu")])
        model.add(layers.Dense(4))
    slow = kind == "slow"
    model.compile(
        optimizer=keras.optimizers.SGD(0.01) if slow else keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def keras_case(kind: str, batch: Callable[[], Any] = rows, **more: Any) -> Case:
    return Case(name=f"keras_{kind}", model=functools.partial(keras_model, kind), batch=batch, **more)


# --------------------------------------------------------------------------------------------------------------- cases

SHORT = {"steps": 100}
CASES: list[tuple[Case, str]] = [
    (torch_case("torch_mlp", mlp), "passed"),
    (torch_case("torch_cnn", cnn, images), "passed"),
    (torch_case("torch_residual", Residual, images), "passed"),
    (torch_case("torch_lstm", Recurrent, tokens, optimizer=functools.partial(adam, lr=1e-2)), "passed"),
    (torch_case("torch_regression", lambda: mlp(20, 2), values, loss=nn.MSELoss()), "passed"),
    (
        torch_case("torch_multilabel", lambda: mlp(20, 5), several_labels, loss=nn.BCEWithLogitsLoss()),
        "passed",
    ),
    (torch_case("torch_softmax_twice", mlp_with_softmax), "failed"),
    (torch_case("torch_ignores_its_input", IgnoresItsInput), "failed"),
    (
        torch_case("torch_slow", mlp, optimizer=lambda each: torch.optim.SGD(each, lr=0.01), limits=SHORT),
        "inconclusive",
    ),
    (Case(name="step_numpy", model=linear_in_numpy, step=step_in_numpy, batch=rows), "passed"),
    (
        Case(name="step_climbs", model=linear_in_numpy, step=functools.partial(step_in_numpy, sign=1.0), batch=rows),
        "failed",
    ),
    (keras_case("mlp"), "passed"),
    (keras_case("cnn", channels_last), "passed"),
    (keras_case("scaled_away"), "failed"),
    (keras_case("slow", limits=SHORT), "inconclusive"),
]


SEEDS = [int(each) for each in os.environ.get("OVERFIT_SEEDS", "0").split(",")]


@pytest.fixture
def failing_once(request: pytest.FixtureRequest) -> Callable[[], None]:
    """What a test calls after its verdict: raises in the first attempt if that is asked for."""

    def fail() -> None:
        if os.environ.get("OVERFIT_FAIL_FIRST") and getattr(request.node, "execution_count", 1) == 1:
            raise RuntimeError("the first attempt fails, as OVERFIT_FAIL_FIRST asks")

    return fail


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("case", "outcome"), [pytest.param(*each, id=each[0].name) for each in CASES])
def test_same_verdict(overfit: Overfit, case: Case, outcome: str, seed: int, failing_once: Callable[[], None]) -> None:
    case = dataclasses.replace(case, seed=seed)
    if outcome == "passed":
        verdict = overfit.batch(case)
    else:
        with pytest.raises(ProbeFailed) as caught:
            overfit.batch(case)
        verdict = caught.value.verdict
    assert (verdict.outcome, verdict.case) == (outcome, case.name), verdict.summary
    failing_once()
