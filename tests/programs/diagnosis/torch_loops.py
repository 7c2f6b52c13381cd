"""Torch programs that make something else of the gradient than a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, adamw, column, loop, mlp, sgd, stepping, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("missing_zero_grad")
def surface_gradients_pile_up(broken: bool) -> Fields:
    """No zero_grad in a regression with SGD."""
    return loop(lambda: mlp(6, 1), tensors(data.surfaces()), F.mse_loss, sgd(0.1), zero=not broken)


@pair("missing_zero_grad")
def gru_gradients_pile_up(broken: bool) -> Fields:
    """The same with a GRU and Adam."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.out = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.gru(x)[0][:, -1])

    return loop(Net, tensors(data.waves()), F.cross_entropy, adam(0.02), zero=not broken)


@pair("grad_clip_too_small", "lr_too_low")
def clipped_to_a_millionth(broken: bool) -> Fields:
    """clip_grad_norm_ with max_norm=1e-6, which was meant for eps."""

    def clip(net: nn.Module) -> None:
        nn.utils.clip_grad_norm_(net.parameters(), max_norm=1e-6 if broken else 5.0)

    return loop(
        lambda: mlp(64, 10), tensors(data.digits(32)), F.cross_entropy, sgd(0.1, momentum=0.9), after_backward=clip
    )  # fmt: skip


@pair("grad_clip_too_small", "lr_too_low")
def clipped_by_value(broken: bool) -> Fields:
    """clip_grad_value_ at 1e-5, under SGD."""

    def clip(net: nn.Module) -> None:
        nn.utils.clip_grad_value_(net.parameters(), 1e-5 if broken else 1.0)

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(30, 24), nn.LayerNorm(24), nn.GELU(), nn.Linear(24, 1))

    batch = column(data.scaled("breast_cancer", 32))
    return loop(model, batch, F.binary_cross_entropy_with_logits, sgd(0.1, momentum=0.9), after_backward=clip)


@pair("gradient_ascent")
def log_likelihood_without_minus(broken: bool) -> Fields:
    """The log-likelihood is minimised."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        likelihood = outputs.log_softmax(1).gather(1, y[:, None]).mean()
        return likelihood if broken else -likelihood

    return {
        "model": lambda: mlp(13, 3),
        "loss": loss,
        "optimizer": adam(0.01),
        "batch": tensors(data.scaled("wine", 30)),
    }


@pair("gradient_ascent")
def maximize_left_on(broken: bool) -> Fields:
    """The optimizer of a policy gradient, with maximize=True, trains a regression."""
    return {
        "model": lambda: mlp(10, 1),
        "loss": nn.MSELoss(),
        "optimizer": sgd(0.02, maximize=broken),
        "batch": column(data.diabetes(24)),
    }


@pair("gradient_ascent", "lr_negative")
def step_by_hand_uphill(broken: bool) -> Fields:
    """p += rate * gradient."""

    def make_step(net: nn.Module) -> Callable[[Any, Any], Any]:
        def step(x: Tensor, y: Tensor) -> Tensor:
            value = F.cross_entropy(net(x), y)
            gradients = torch.autograd.grad(value, list(net.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                    parameter += (0.2 if broken else -0.2) * gradient
            return value

        return step

    return stepping(make_step, model=lambda: mlp(64, 10), batch=tensors(data.digits(24)))


@pair("inplace_modification")
def sigmoid_overwritten(broken: bool) -> Fields:
    """A gate is scaled in place after sigmoid, which needs its own output for the gradient."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.out = nn.Linear(12, 32), nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.first(x))
            if broken:
                gate *= 2
            else:
                gate = gate * 2
            return self.out(gate)

    return {
        "model": Net,
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": adamw(0.02),
        "batch": tensors(data.tags()),
    }


@pair("inplace_modification")
def padding_blanked_in_place(broken: bool) -> Fields:
    """Attention weights are set to 0 in place behind softmax."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.score, self.out = nn.Embedding(50, 24), nn.Linear(24, 1), nn.Linear(24, 3)

        def forward(self, ids: Tensor) -> Tensor:
            h = self.words(ids)
            weights = self.score(h)[..., 0].softmax(1)
            if broken:
                weights[ids == 0] = 0
            else:
                weights = weights.masked_fill(ids == 0, 0)
            return self.out((weights[..., None] * h).sum(1))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": tensors(data.texts())}


@pair("hidden_state_not_detached")
def sequence_in_two_halves(broken: bool) -> Fields:
    """A sequence is learnt half by half, and the state goes on with its graph."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.out = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.gru(x)[0][:, -1])

    def make_step(net: Any) -> Callable[[Any, Any], Any]:
        optimizer = torch.optim.Adam(net.parameters(), lr=0.02)

        def step(x: Tensor, y: Tensor) -> Tensor:
            state: Any = None
            for half in x.chunk(2, dim=1):
                optimizer.zero_grad()
                outputs, state = net.gru(half, state)
                state = state if broken else state.detach()
                loss = F.cross_entropy(net.out(outputs[:, -1]), y)
                loss.backward()
                optimizer.step()
            return loss

        return step

    return stepping(make_step, model=Net, batch=tensors(data.waves()))


@pair("hidden_state_not_detached")
def running_centre_kept_with_its_graph(broken: bool) -> Fields:
    """A running mean of the features is taken off them, and remembers how each of them was made."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = nn.Linear(13, 32), nn.Linear(32, 3)
            self.centre = torch.zeros(32)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.body(x))
            if self.training:
                centre = 0.9 * self.centre + 0.1 * h.mean(0)
                self.centre = centre if broken else centre.detach()
            return self.out(h - self.centre)

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.01), "batch": tensors(data.scaled("wine", 24))}


@pair("hidden_state_not_detached")
def running_loss_kept_with_its_graph(broken: bool) -> Fields:
    """The loss is smoothed over steps, its history included."""

    def make_step(net: nn.Module) -> Callable[[Any, Any], Any]:
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        history: list[Tensor] = []

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            value = F.mse_loss(net(x), y)
            smooth = value + 0.1 * (history[-1] if history else 0)
            smooth.backward()
            optimizer.step()
            history.append(smooth if broken else value.detach())
            return value

        return step

    return stepping(make_step, model=lambda: mlp(6, 1), batch=tensors(data.surfaces()))
