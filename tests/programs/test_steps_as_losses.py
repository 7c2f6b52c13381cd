"""A step of the user's is a loss of its model's outputs: which parts are targets, what it costs, where its rows lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.data.telling import batch_of
from tests.programs.helpers import adam, generator

Step = Callable[[Any, Any, Any], float]
ROWS, CLASSES, TIME = 12, 3, 7
random = generator(0)
X, VALUES = torch.randn(ROWS, 6, generator=random), torch.randn(ROWS, 2, generator=random)
LABELS = torch.arange(ROWS) % CLASSES
SERIES = torch.randn(TIME, ROWS, 5, generator=random)
EACH = torch.randint(0, CLASSES, (TIME, ROWS), generator=random)


class Net(nn.Module):
    def __init__(self, blind: bool = False, outputs: int = CLASSES) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, outputs))
        self.blind = blind

    def forward(self, x: Tensor) -> Any:
        return self.net(x * 0 if self.blind else x)


class OwnLoss(Net):
    """Answers its loss alone, which is written by hand."""

    def forward(self, features: Tensor, kind: Tensor) -> Any:
        return by_hand(super().forward(features), kind)


class Recurrent(nn.Module):
    """Takes time first."""

    def __init__(self, blind: bool = False, whole: bool = False) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(5, 24), nn.Linear(24, CLASSES)
        self.blind, self.whole = blind, whole

    def forward(self, x: Tensor) -> Any:
        hidden, _ = self.cells(x * 0 if self.blind else x)
        return self.head(hidden if self.whole else hidden[-1])


def stepping(loss_of: Callable[[Any, Any, Any], Tensor], factor: float = 1.0) -> Step:
    """A step with an optimizer in its model; `factor`: what it multiplies its loss by before it differentiates."""

    def step(model: Any, x: Any, y: Any) -> float:
        optimizer = model.__dict__.setdefault("optimizer", torch.optim.Adam(model.parameters(), lr=1e-2))
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        (factor * loss).backward()
        optimizer.step()
        return loss.item()

    return step


def by_hand(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    shares = logits.log_softmax(-1)
    right = shares.gather(-1, labels[..., None])[..., 0]
    return -((1 - smoothing) * right + smoothing * shares.mean(-1)).mean()


def verdict(model: Callable[[], Any], step: Step, batch: Any, **more: Any) -> Verdict:
    case = Case(name="case", model=model, step=step, batch=batch, **more)
    return run_probes(case, ["overfit_batch"], steps=120)[0]


def cross(model: Any, batch: Any, _: Any) -> Tensor:
    return F.cross_entropy(model(batch["features"]), batch["kind"])


WHOLE = {"features": X, "kind": LABELS}
PROGRAMS: dict[str, tuple[Callable[..., Any], Step, Any]] = {
    "a target under another name": (Net, stepping(cross), WHOLE),
    "by hand": (Net, stepping(lambda m, b, _: by_hand(m(b["features"]), b["kind"])), WHOLE),
    "smoothed": (Net, stepping(lambda m, b, _: by_hand(m(b["features"]), b["kind"], 0.1)), WHOLE),
    "smoothed by torch": (
        Net,
        stepping(lambda m, b, _: F.cross_entropy(m(b["features"]), b["kind"], label_smoothing=0.1)),
        WHOLE,
    ),
    "smoothed so much that the floor is high": (Net, stepping(lambda m, x, y: by_hand(m(x), y, 0.4)), (X, LABELS)),
    "at places of a tuple": (Net, stepping(lambda m, b, _: F.cross_entropy(m(b[0]), b[1])), ((X, LABELS), None)),
    "quantities": (
        lambda blind=False: Net(blind, 2),
        stepping(lambda m, b, _: ((m(b["features"]) - b["heights"]) ** 2).mean()),
        {"features": X, "heights": VALUES},
    ),
    "an input called y": (
        lambda blind=False: Net(blind, 2),
        stepping(lambda m, b, _: ((m(torch.cat([b["x"], b["y"]], 1)) - b["u"]) ** 2).mean()),
        {"x": X[:, :3], "y": X[:, 3:], "u": VALUES},
    ),
    "inputs are prepared in the step": (
        Net,
        stepping(lambda m, x, y: F.cross_entropy(m((x - 100) / 50), y)),
        (100 + 50 * X, LABELS),
    ),
    "the model makes the loss": (OwnLoss, stepping(lambda m, b, _: m(**b)), WHOLE),
    "half of the loss is differentiated": (Net, stepping(cross, 0.5), WHOLE),
    "time first": (Recurrent, stepping(lambda m, x, y: by_hand(m(x), y)), (SERIES, LABELS)),
    "time first, and a target under another name": (
        Recurrent,
        stepping(lambda m, b, _: by_hand(m(b["signals"]), b["kind"])),
        {"signals": SERIES, "kind": LABELS},
    ),
    "turned round in the step": (
        Recurrent,
        stepping(lambda m, x, y: by_hand(m(x.transpose(0, 1)), y)),
        (SERIES.transpose(0, 1), LABELS),
    ),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_healthy_passes_and_its_blind_twin_fails(what: str) -> None:
    make, step, batch = PROGRAMS[what]
    good = verdict(make, step, batch)
    assert good.passed, good.summary
    measured = "agreement: not measured" not in good.summary
    assert measured or what == "the model makes the loss", good.summary
    blind = verdict(lambda: make(True), step, batch)
    assert blind.outcome == "failed", blind.summary


def test_a_model_that_answers_its_loss_alone() -> None:
    fields = {"optimizer": adam(1e-2), "batch": WHOLE, "name": "case"}
    good, blind = (
        run_probes(Case(model=lambda blind=blind: OwnLoss(blind), **fields), ["overfit_batch"], steps=120)[0]
        for blind in (False, True)
    )
    assert good.passed, good.summary
    assert blind.outcome == "failed", blind.summary


class Softmax:
    """Another loop, in numpy."""

    def __init__(self, blind: bool = False) -> None:
        self.weights, self.blind = np.zeros((6, CLASSES)), blind

    def predict(self, batch: dict[str, Any]) -> Any:
        scores = batch["features"] * (not self.blind) @ self.weights
        shares = np.exp(scores - scores.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)


def in_numpy(model: Softmax, batch: dict[str, Any], _: Any) -> float:
    labels, shares = batch["kind"], model.predict(batch)
    model.weights -= 0.05 * batch["features"].T @ (shares - np.eye(CLASSES)[labels])
    return float(-np.log(shares[np.arange(ROWS), labels] + 1e-9).mean())


def test_a_target_under_another_name_in_a_loop_of_another_kind() -> None:
    labels = LABELS.numpy()
    batch = {"features": X.numpy() + 8 * np.eye(6)[labels], "kind": labels}
    good = verdict(Softmax, in_numpy, batch)
    assert good.passed, good.summary
    assert "accuracy 1" in good.summary
    blind = verdict(lambda: Softmax(True), in_numpy, batch)
    assert not blind.passed
    assert "the loss looks at" not in blind.summary


def test_a_step_that_draws_random_numbers_is_no_loss_of_its_outputs() -> None:
    def noisy(model: Any, batch: Any, _: Any) -> Tensor:
        logits = model(batch["features"])
        return F.cross_entropy(logits + torch.randn_like(logits), batch["kind"])

    case = Case(name="case", model=Net, step=stepping(noisy), batch=WHOLE)
    learner = TorchLearner(case, Net(), batch_of(case), Net)
    assert learner.forward.own is None
    assert learner.read("fit").loss is None


def test_the_slope_of_a_step_is_that_of_the_loss_it_returns() -> None:
    case = Case(name="case", model=Net, step=stepping(cross, 3.0), batch=WHOLE)
    learner = TorchLearner(case, Net(), batch_of(case), Net)
    outputs = learner.read("fit").outputs
    answer = learner.loss_and_gradient(outputs)
    assert answer is not None
    shown = torch.as_tensor(outputs[0]).requires_grad_()
    true = F.cross_entropy(shown, LABELS)
    true.backward()
    assert answer[0] == pytest.approx(true.item(), rel=1e-4)
    assert shown.grad is not None
    assert np.allclose(answer[1][0], shown.grad, atol=1e-2 * float(shown.grad.abs().max()))


def test_the_model_and_its_weights_are_left_alone() -> None:
    case = Case(name="case", model=Net, step=stepping(cross), batch=WHOLE)
    model = Net()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    learner = TorchLearner(case, model, batch_of(case), Net)
    learner.read("fit")
    learner.loss_and_gradient(learner.read("eval").outputs)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert "forward" not in vars(model)


# ------------------------------------------------------------ rows along which axis


@pytest.mark.parametrize("labels", [EACH, torch.randint(0, CLASSES, (ROWS, ROWS), generator=random)])
def test_rows_that_may_lie_along_the_second_axis_prove_nothing(labels: Tensor) -> None:
    """A recurrent net over the rows, or rows along the second axis: both look alike."""
    series = torch.randn(len(labels), ROWS, 5, generator=generator(1))
    step = stepping(lambda m, x, y: by_hand(m(x), y))
    found = verdict(lambda: Recurrent(whole=True), step, (series, labels))
    assert found.outcome == "inconclusive", found.summary
    assert "declare row_axis=1" in found.summary
    assert not verdict(lambda: Recurrent(True, whole=True), step, (series, labels)).passed


def test_rows_of_time_first_are_blinded_along_their_own_axis() -> None:
    found = batch_of(Case(name="case", model=Net, step=stepping(cross), batch=(SERIES, LABELS)))
    assert found.rows == ROWS
    assert torch.equal(found.blinded().x, SERIES[:, :1].expand_as(SERIES))
    assert found.sides()[0][0].shape == (ROWS, TIME, 5)
    assert torch.equal(found.inputs_of([2, 0]), SERIES[:, [2, 0]])
    edges = torch.arange(2 * ROWS).reshape(2, ROWS)
    graph = batch_of(Case(name="case", model=Net, step=stepping(cross), batch=({"x": X, "edges": edges}, LABELS)))
    assert torch.equal(graph.blinded().x["edges"], edges)


def test_a_control_that_fits_on_blinded_inputs_proves_nothing() -> None:
    """The step takes its inputs from elsewhere, and draws, so that it cannot be read apart."""

    def elsewhere(model: Any, x: Tensor, y: Tensor) -> Tensor:
        logits = model(X + 1e-3 * torch.randn(X.shape))
        return by_hand(logits + 1e-4 * torch.randn_like(logits), y, 0.0) * 1.0

    found = verdict(Net, stepping(elsewhere), (X, LABELS))
    assert found.outcome != "failed", found.summary
