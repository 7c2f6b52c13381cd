"""Programs that change their batch in place train well in the user's loop, where each batch is a fresh one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.fresh import CHANGED, FreshBatch
from tests.programs.helpers import adam, generator

X = 100 + 50 * torch.randn(16, 6, generator=generator(0))
Y = torch.arange(16) % 3
CROSS = {"loss": F.cross_entropy, "optimizer": adam(1e-2)}


class Net(nn.Module):
    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))
        self.blind = blind

    def answer(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x * 0 if self.blind else x)
        return logits

    def forward(self, x: Any) -> Any:
        return self.answer((x - 100) / 50)


class InPlace(Net):
    def forward(self, x: Any) -> Any:
        return self.answer(x.sub_(100).div_(50))


class Columns(Net):
    def forward(self, x: Any) -> Any:
        x[:, :3] = (x[:, :3] - 100) / 50
        x[:, 3:] -= 100
        x[:, 3:] /= 50
        return self.answer(x)


class Unseen(Net):
    def forward(self, x: Any) -> Any:
        x.data.sub_(100).div_(50)
        return self.answer(x)


class ThroughNumpy(Net):
    def forward(self, x: Any) -> Any:
        x.numpy()[:] = (x.numpy() - 100) / 50
        return self.answer(x)


class InTraining(InPlace):
    def forward(self, x: Any) -> Any:
        return super().forward(x if self.training else x.clone())


class InEvaluation(InPlace):
    def forward(self, x: Any) -> Any:
        return super().forward(x.clone() if self.training else x)


class OfWhole(InPlace):
    def forward(self, batch: dict[str, Tensor]) -> Any:
        labels = batch.pop("labels")
        logits = super().forward(batch["x"])
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class OfPictures(InPlace):
    def forward(self, pictures: list[Tensor]) -> Any:
        return torch.stack([super(OfPictures, self).forward(each[None])[0] for each in pictures])


@dataclasses.dataclass
class Pack:
    x: Any
    labels: Any


def stepping(loss_of: Callable[[Any, Any, Any], Tensor]) -> Callable[..., float]:
    def step(model: Any, x: Any, y: Any) -> float:
        optimizer = model.__dict__.setdefault("optimizer", torch.optim.Adam(model.parameters(), lr=1e-2))
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def pops(model: Any, batch: Any, _: Any) -> Tensor:
    labels = batch.pop("labels")
    return F.cross_entropy(model(batch["x"]), labels)


def replaces(model: Any, batch: Any, _: Any) -> Tensor:
    batch.x = (batch.x - 100) / 50
    return F.cross_entropy(model.answer(batch.x), batch.labels)


def by_hand(model: Any, x: Tensor, y: Tensor) -> Tensor:
    logits: Tensor = model(x).log_softmax(1)
    return -logits[torch.arange(16), y].mean()


class Softmax:
    """Another loop: numpy, with weights of its own."""

    def __init__(self, blind: bool = False) -> None:
        self.weights, self.blind = np.zeros((6, 3)), blind

    def predict(self, x: Any) -> Any:
        scores = x * (not self.blind) @ self.weights
        shares = np.exp(scores - scores.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)


def in_numpy(model: Softmax, x: Any, y: Any) -> float:
    x -= 100
    x /= 50
    shares = model.predict(x)
    model.weights -= x.T @ (shares - np.eye(3)[y]) / len(y)
    return float(-np.log(shares[np.arange(len(y)), y] + 1e-9).mean())


APART = np.asarray(X) * 0.02 + 100 + 100 * np.eye(6)[np.asarray(Y)]
PROGRAMS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "forward": (InPlace, {"batch": (X, Y), **CROSS}),
    "forward on numpy": (InPlace, {"batch": (np.asarray(X), np.asarray(Y)), **CROSS}),
    "columns": (Columns, {"batch": (X, Y), **CROSS}),
    "a change that no version counts": (Unseen, {"batch": (X, Y), **CROSS}),
    "through numpy": (ThroughNumpy, {"batch": (X, Y), **CROSS}),
    "in training only": (InTraining, {"batch": (X, Y), **CROSS}),
    "in evaluation only": (InEvaluation, {"batch": (X, Y), **CROSS}),
    "a dict, of which a part is popped": (OfWhole, {"batch": {"x": X, "labels": Y}, "optimizer": adam(1e-2)}),
    "a list": (OfPictures, {"batch": (list(X), Y), **CROSS}),
    "targets in the loss": (Net, {"batch": (X, Y + 1), **CROSS, "loss": lambda o, y: F.cross_entropy(o, y.sub_(1))}),
    "step pops": (Net, {"batch": {"x": X, "labels": Y}, "step": stepping(pops)}),
    "step sets an attribute": (Net, {"batch": Pack(X, Y), "step": stepping(replaces)}),
    "forward inside a step": (InPlace, {"batch": (X, Y), "step": stepping(by_hand)}),
    "a loop in numpy": (Softmax, {"batch": (APART, np.asarray(Y)), "step": in_numpy}),
}


def verdict(what: str, blind: bool) -> Verdict:
    make, fields = PROGRAMS[what]
    return run_probes(Case(name="case", model=lambda: make(blind), **fields), ["overfit_batch"], steps=100)[0]


@pytest.mark.parametrize("what", PROGRAMS)
def test_each_pass_gets_the_batch_as_it_was(what: str) -> None:
    before = X.clone(), Y.clone(), APART.copy()
    good = verdict(what, False)
    assert good.passed, good.summary
    assert [each.message for each in good.findings].count(CHANGED) == 1
    assert torch.equal(X, before[0])
    assert torch.equal(Y, before[1])
    assert np.array_equal(APART, before[2])
    assert not verdict(what, True).passed


def test_nothing_is_said_of_a_program_that_changes_nothing() -> None:
    case = Case(name="case", model=Net, batch=(X, Y), **CROSS)
    (good,) = run_probes(case, ["overfit_batch"], steps=100)
    assert good.passed
    assert CHANGED not in [each.message for each in good.findings]


def test_a_batch_is_only_copied_where_it_was_changed() -> None:
    said: list[str] = []
    fresh = FreshBatch(Batch(X, Y, 16), said.append)
    first = fresh.now()
    fresh.compare()
    assert fresh.now().x is first.x
    assert first.x is not X
    first.x.add_(1)
    assert torch.equal(fresh.now().x, X)
    assert said == [CHANGED]
