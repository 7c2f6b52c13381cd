"""Torch programs that were written after the diagnosis was, on architectures that it had not seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import make_friedman1, make_moons
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, adamw, column, images, maybe, sgd, stepping, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def rows_of_digits(rows: int = 24) -> tuple[Tensor, Tensor]:
    """A picture as a sequence of its eight rows."""
    x, y = tensors(data.digits(rows))
    return x.reshape(-1, 8, 8), y


class Attentive(nn.Module):
    """A transformer over the rows of a picture."""

    def __init__(self, *last: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.embed, self.positions = nn.Linear(8, width), nn.Parameter(0.1 * torch.randn(8, width))
        self.block = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10), *last)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.block(self.embed(x) + self.positions).mean(1))


class Recurrent(nn.Module):
    """An LSTM over the rows of a picture."""

    def __init__(self, dropped: float = 0.0, units: int = 48) -> None:
        super().__init__()
        self.lstm, self.drop, self.out = nn.LSTM(8, units, batch_first=True), nn.Dropout(dropped), nn.Linear(units, 10)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.drop(self.lstm(x)[0][:, -1]))


@pair("double_softmax", "bounded_logits")
def attention_softmax_and_weighted_loss(broken: bool) -> Fields:
    """The head ends in a softmax, and the loss is a weighted cross-entropy."""
    return {
        "model": lambda: Attentive(*maybe(broken, nn.Softmax(-1))),
        "loss": nn.CrossEntropyLoss(weight=torch.linspace(0.5, 1.5, 10)),
        "optimizer": adamw(3e-3),
        "batch": rows_of_digits(),
    }


@pair("zero_init", "constant_init")
def gru_of_zeros(broken: bool) -> Fields:
    """Every weight of a GRU and of its head is set to 0 by a loop over the parameters."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.out = nn.GRU(8, 32, batch_first=True), nn.Linear(32, 10)
            for each in self.parameters() if broken else []:
                nn.init.zeros_(each)

        def forward(self, x: Tensor) -> Any:
            return self.out(self.gru(x)[1][-1])

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.01), "batch": rows_of_digits()}


@pair("dead_relu")
def shift_behind_the_norm(broken: bool) -> Fields:
    """The shift of a LayerNorm starts at -8, and ReLU follows."""

    def model() -> nn.Module:
        net = nn.Sequential(nn.Linear(30, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 1))
        nn.init.constant_(net[1].bias, -8.0 if broken else 0.0)
        return net

    batch = column(data.scaled("breast_cancer", 40))
    return {"model": model, "loss": nn.BCEWithLogitsLoss(), "optimizer": sgd(0.1, momentum=0.9), "batch": batch}


@pair("missing_zero_grad")
def gradients_kept_for_accumulation(broken: bool) -> Fields:
    """Two halves of the batch are accumulated, and zero_grad stands behind a return."""

    def make_step(net: nn.Module) -> Callable[[Any, Any], Any]:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        def step(x: Tensor, y: Tensor) -> Tensor:
            total = torch.zeros(())
            for half, labels in zip(x.chunk(2), y.chunk(2), strict=True):
                loss = F.cross_entropy(net(half), labels) / 2
                loss.backward()
                total = total + loss.detach()
            optimizer.step()
            if not broken:
                optimizer.zero_grad()
            return total

        return step

    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(288, 10))

    return stepping(make_step, model=model, batch=images(data.digits(32)))


@pair("detached_graph", "cut_gradient")
def features_cached_without_their_graph(broken: bool) -> Fields:
    """The embedding is cached with .data, so that only the last layer learns."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Sequential(nn.Linear(13, 48), nn.SiLU(), nn.Linear(48, 4), nn.Tanh())
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            code = self.embed(x)
            return self.head(code.data if broken else code)

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.01), "batch": tensors(data.scaled("wine", 30))}


@pair("unnormalised_input")
def friedman_with_one_column_in_grams(broken: bool) -> Fields:
    """One of ten features is in grams where the others are in tons; RMSprop and GELU."""
    x, y = make_friedman1(40, random_state=0)
    x = (x - 0.5) * 3.4
    if broken:
        x[:, 6] *= 1e6
    batch = torch.as_tensor(x).float(), torch.as_tensor((y - y.mean()) / y.std()).float()[:, None]
    return {
        "model": lambda: nn.Sequential(nn.Linear(10, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)),
        "loss": nn.MSELoss(),
        "optimizer": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3),
        "batch": batch,
    }


@pair("lr_too_high")
def lstm_nadam_of_two(broken: bool) -> Fields:
    """NAdam with 2 for 2e-3."""
    return {
        "model": Recurrent,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda parameters: torch.optim.NAdam(parameters, lr=2.0 if broken else 5e-3),
        "batch": rows_of_digits(),
    }


@pair("frozen_parameters", "optimizer_wrong_params")
def attention_frozen_but_for_its_head(broken: bool) -> Fields:
    """Everything but the bias of the head is frozen by a test of the names."""

    def model() -> nn.Module:
        net = Attentive(width=16)
        for name, each in net.named_parameters():
            each.requires_grad = not broken or name == "head.1.bias"
        return net

    return {"model": model, "loss": F.cross_entropy, "optimizer": adam(5e-3), "batch": rows_of_digits()}


@pair("batch_mixing", "wrong_reshape")
def time_first_by_a_view(broken: bool) -> Fields:
    """view turns [rows, steps] into [steps, rows], where a transpose was meant."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.out = nn.GRU(8, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Any:
            x = x.reshape(8, -1, 8) if broken else x.transpose(0, 1)
            return self.out(self.gru(x)[1][-1])

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.01), "batch": rows_of_digits()}


@pair("missing_nonlinearity")
def moons_through_norms_alone(broken: bool) -> Fields:
    """Linear and LayerNorm without affine parameters, and no function between them."""
    x, y = make_moons(60, noise=0.05, random_state=1)

    def between() -> nn.Module:
        return nn.Identity() if broken else nn.ELU()

    return {
        "model": lambda: nn.Sequential(
            *(nn.Linear(2, 32), nn.BatchNorm1d(32), between(), nn.Linear(32, 32), nn.BatchNorm1d(32), between()),
            nn.Linear(32, 2),
        ),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(0.02),
        "batch": (torch.as_tensor(x).float(), torch.as_tensor(y)),
    }


@pair("log_of_zero", "nan_parameter")
def focal_loss_of_certain_answers(broken: bool) -> Fields:
    """A focal loss by hand, of a softmax that is exactly 0 where scores are far apart."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        p = (60 * outputs).softmax(1).gather(1, y[:, None])
        logs = torch.log(p) if broken else (60 * outputs).log_softmax(1).gather(1, y[:, None])
        return -((1 - p) ** 2 * logs).mean()

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(13, 64), nn.LeakyReLU(), nn.Linear(64, 3))

    x, y = tensors(data.scaled("wine", 40))
    return {"model": model, "loss": loss, "optimizer": adam(1e-3), "batch": (6 * x, y)}


@pair("output_range", "wrong_loss")
def classes_squeezed_by_a_sigmoid(broken: bool) -> Fields:
    """Three classes as numbers 0 to 2 under a squared error, from a sigmoid."""
    x, y = column(data.scaled("iris", 30))
    return {
        "model": lambda: nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 1), *maybe(broken, nn.Sigmoid())),
        "loss": F.mse_loss,
        "optimizer": adam(0.02),
        "batch": (x, y if broken else y - 1),
    }


@pair("gradient_ascent")
def reward_with_the_wrong_sign(broken: bool) -> Fields:
    """The step differentiates minus the loss, as for a reward."""

    def make_step(net: nn.Module) -> Callable[[Any, Any], Any]:
        optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = F.smooth_l1_loss(net(x), y)
            (-loss if broken else loss).backward()
            optimizer.step()
            return loss

        return step

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(10, 48), nn.SiLU(), nn.Linear(48, 1))

    return stepping(make_step, model=model, batch=column(data.diabetes(30)))


@pair("excessive_dropout")
def lstm_that_keeps_three_in_a_hundred(broken: bool) -> Fields:
    """Dropout 0.97 behind an LSTM."""
    return {
        "model": lambda: Recurrent(0.97 if broken else 0.1),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(5e-3),
        "batch": rows_of_digits(32),
    }


@pair("constant_init")
def lstm_of_equal_weights(broken: bool) -> Fields:
    """All weights of an LSTM and of its head are 0.05."""

    def model() -> nn.Module:
        net = Recurrent()
        for each in net.parameters() if broken else []:
            nn.init.constant_(each, 0.05)
        return net

    return {"model": model, "loss": F.cross_entropy, "optimizer": adam(0.01), "batch": rows_of_digits()}


@pair("vanishing_gradient", "wrong_hidden_activation")
def convolutions_behind_sigmoids(broken: bool) -> Fields:
    """Nine convolutions of one size with sigmoid behind each, under SGD."""
    between = nn.Sigmoid if broken else nn.ELU

    def model() -> nn.Module:
        blocks = [part for _ in range(8) for part in (nn.Conv2d(12, 12, 3, padding=1), between())]
        return nn.Sequential(nn.Conv2d(1, 12, 3, stride=2), between(), *blocks, nn.Flatten(), nn.Linear(12 * 9, 10))

    return {
        "model": model,
        "loss": F.cross_entropy,
        "optimizer": sgd(0.05, momentum=0.9),
        "batch": images(data.digits(16)),
    }


@pair("optimizer_wrong_params")
def only_the_head_is_handed_over(broken: bool) -> Fields:
    """The optimizer got the parameters of the last layer, behind eight units."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Linear(64, 32), nn.Mish(), nn.Linear(32, 8)), nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Any:
            return self.head(torch.tanh(self.body(x)))

    def optimizer(model: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam((model.head if broken else model).parameters(), lr=0.02)

    return {"model": Net, "loss": F.cross_entropy, "optimizer": optimizer, "batch": tensors(data.digits(20))}


@pair("label_off_by_one")
def labels_from_one_with_a_unit_too_many(broken: bool) -> Fields:
    """Digits counted from 1, and eleven units, so that no error comes."""
    x, y = tensors(data.digits(64))
    return {
        "model": lambda: nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 11 if broken else 10)),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(3e-3),
        "batch": (x, y + 1 if broken else y),
    }
