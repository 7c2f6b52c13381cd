"""More torch programs that the diagnosis had not seen when it was written: loops, losses and layers of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_linnerud, make_friedman2, make_regression
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, column, images, sgd, stepping, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


def own_loop(
    model: Callable[[], nn.Module],
    batch: Any,
    optimizer: Callable[..., torch.optim.Optimizer],
    update: Callable[[Any, Any, Tensor, int], None],
    loss: Callable[..., Tensor] = F.cross_entropy,
) -> Fields:
    """A loop whose own part is what follows the loss."""

    def make_step(net: nn.Module) -> Callable[[Any, Any], Any]:
        made = optimizer(net.parameters())
        calls: list[int] = []

        def step(x: Tensor, y: Tensor) -> Tensor:
            calls.append(1)
            value = loss(net(x), y)
            update(net, made, value, len(calls))
            return value

        return step

    return stepping(make_step, model=model, batch=batch)


def plain(net: Any, optimizer: Any, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@pair("missing_softmax", "wrong_loss")
def sum_of_scores_and_one_hot(broken: bool) -> Fields:
    """Cross-entropy by hand, of scores whose softmax was forgotten."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        logs = outputs if broken else outputs.log_softmax(1)
        return -(logs * F.one_hot(y, 3)).sum(1).mean()

    return {
        "model": lambda: nn.Sequential(nn.Linear(13, 32), nn.SELU(), nn.Linear(32, 3)),
        "loss": loss,
        "optimizer": adam(5e-3),
        "batch": tensors(data.scaled("wine", 36)),
    }


@pair("target_broadcast", "shape_mismatch")
def huber_of_a_column_and_a_row(broken: bool) -> Fields:
    """Outputs [N, 1] and targets [N] under a Huber loss."""
    x, y = column(data.diabetes(28))
    return {
        "model": lambda: nn.Sequential(nn.Linear(10, 64), nn.Mish(), nn.Linear(64, 1)),
        "loss": nn.HuberLoss(),
        "optimizer": adam(0.01),
        "batch": (x, y[:, 0] if broken else y),
    }


@pair("lr_too_low")
def normalised_net_that_stands_still(broken: bool) -> Fields:
    """SGD with 1e-5 in a net with batch normalisation."""
    return {
        "model": lambda: nn.Sequential(
            *(nn.Linear(30, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU()),
            nn.Linear(32, 1),
        ),
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": sgd(1e-5 if broken else 0.1, momentum=0.9),
        "batch": column(data.scaled("breast_cancer", 48)),
    }


@pair("unnormalised_target", missed="it memorises the batch all the same, ten times later")
def impedances_in_ohms(broken: bool) -> Fields:
    """Targets of up to some thousands, under Adam with its usual rate."""
    x, y = make_friedman2(40, random_state=0)
    x = (x - x.mean(0)) / x.std(0)
    y = 10 * y if broken else (y - y.mean()) / y.std()
    return {
        "model": lambda: nn.Sequential(nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)),
        "loss": nn.MSELoss(),
        "optimizer": adam(3e-3),
        "batch": (torch.as_tensor(x).float(), torch.as_tensor(y).float()[:, None]),
    }


@pair("too_small_init", "vanishing_gradient")
def convolutions_drawn_with_a_ten_thousandth(broken: bool) -> Fields:
    """Five convolutions whose weights start at 1e-4, under SGD."""

    def model() -> nn.Module:
        parts = [part for _ in range(4) for part in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), *parts, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 10)
        )
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=1e-4) if broken else nn.init.kaiming_normal_(module.weight)
        return net

    batch = images(data.digits(12))
    return {"model": model, "loss": F.cross_entropy, "optimizer": sgd(0.05, momentum=0.9), "batch": batch}


@pair("sqrt_zero_gradient", "nan_parameter")
def distances_to_oneself(broken: bool) -> Fields:
    """A contrastive loss over all pairs, each row's distance to itself among them."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        squares = ((outputs[:, None] - outputs[None]) ** 2).sum(-1)
        distance = torch.sqrt(squares + (0 if broken else 1e-6))
        same = y[:, None] == y[None]
        return torch.where(same, distance, torch.relu(2 - distance)).mean()

    def score(model: Any, x: Tensor, y: Tensor) -> float:
        with torch.no_grad():
            codes = model(x)
        nearest = torch.cdist(codes, codes).fill_diagonal_(1e9).argmin(1)
        return float((y[nearest] == y).float().mean())

    return {
        "model": lambda: nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2)),
        "loss": loss,
        "optimizer": adam(0.01),
        "batch": tensors(data.scaled("iris", 24)),
        "score": score,
    }


@pair("division_by_zero", "nan_parameter")
def pictures_standardised_inside(broken: bool) -> Fields:
    """Each pixel is divided by its deviation over the batch, and the corners never change."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 10))
            x = torch.as_tensor(data.digits(200)[0])
            self.register_buffer("mean", x.mean(0))
            self.register_buffer("spread", x.std(0) + (0.0 if broken else 0.1))

        def forward(self, x: Tensor) -> Any:
            return self.net((x - self.mean) / self.spread)

    return {"model": Net, "loss": nn.CrossEntropyLoss(), "optimizer": adam(), "batch": tensors(data.digits(24))}


@pair("bad_adam_epsilon", "lr_too_low")
def rmsprop_with_an_epsilon_of_its_rate(broken: bool) -> Fields:
    """RMSprop whose eps and weight_decay were swapped for other numbers: eps=1e3."""
    return {
        "model": lambda: nn.Sequential(nn.Linear(13, 48), nn.LayerNorm(48), nn.SiLU(), nn.Linear(48, 3)),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": lambda parameters: torch.optim.RMSprop(parameters, lr=2e-3, eps=1e3 if broken else 1e-8),
        "batch": tensors(data.scaled("wine", 30)),
    }


@pair("excessive_weight_decay")
def lasso_in_own_loop(broken: bool) -> Fields:
    """The sum of the weights' absolute values is added with a factor of 0.5."""

    def update(net: Any, optimizer: Any, loss: Tensor, _: int) -> None:
        penalty = torch.stack([each.abs().sum() for each in net.parameters()]).sum()
        plain(net, optimizer, loss + (0.5 if broken else 1e-5) * penalty)

    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))

    return own_loop(model, images(data.digits(24)), adam(3e-3), update)


@pair("input_ignored", "input_unused")
def only_the_positions_are_read(broken: bool) -> Fields:
    """What embeds the words is multiplied by a mask of zeros."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(50, 24), nn.Parameter(torch.randn(12, 24))
            self.out = nn.Linear(24, 3)

        def forward(self, ids: Tensor) -> Any:
            mask = ((ids < 0) if broken else (ids > 0)).float()[..., None]
            return self.out(torch.tanh(mask * self.words(ids) + self.places).mean(1))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": tensors(data.texts())}


@pair("update_skipped")
def accumulation_longer_than_the_run(broken: bool) -> Fields:
    """The optimizer steps every 10,000th call, which was meant for rows."""

    def update(net: Any, optimizer: Any, loss: Tensor, calls: int) -> None:
        every = 10_000 if broken else 1
        (loss / every).backward()
        if calls % every == 0:
            optimizer.step()
            optimizer.zero_grad()

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(13, 48), nn.GELU(), nn.Linear(48, 3))

    return own_loop(model, tensors(data.scaled("wine", 30)), adam(0.01), update)


@pair("schedule_kills_rate", "lr_too_low")
def rate_tenthed_in_own_loop(broken: bool) -> Fields:
    """StepLR by 0.1 after every epoch is stepped after every batch, in the loop itself."""
    made: dict[int, Any] = {}

    def update(net: Any, optimizer: Any, loss: Tensor, _: int) -> None:
        plain(net, optimizer, loss)
        schedule = made.setdefault(id(optimizer), torch.optim.lr_scheduler.StepLR(optimizer, 1 if broken else 5000))
        schedule.step()

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 1))

    return own_loop(model, column(data.diabetes(24)), sgd(0.1, momentum=0.9), update, F.mse_loss)


@pair("insufficient_capacity")
def one_channel_and_a_mean(broken: bool) -> Fields:
    """Two convolutions of one channel each, and the mean over the picture."""
    channels = 1 if broken else 48

    def model() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, channels, 3), nn.ReLU(), nn.Conv2d(channels, channels, 3), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)),
        )

    return {"model": model, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": images(data.digits(16))}


@pair("lr_too_high", "wrong_reduction")
def sum_of_errors_under_sgd(broken: bool) -> Fields:
    """reduction='sum' with the rate of a mean."""
    x, y = make_regression(48, 8, noise=2.0, random_state=0)
    return {
        "model": lambda: nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 1)),
        "loss": nn.MSELoss(reduction="sum" if broken else "mean"),
        "optimizer": sgd(0.05),
        "batch": (torch.as_tensor(x).float(), torch.as_tensor(y / y.std()).float()[:, None]),
    }


@pair("unnormalised_input")
def exercises_as_they_were_counted(broken: bool) -> Fields:
    """Sit-ups and jumps by the hundred, under SGD, with three targets."""
    x, y = load_linnerud(return_X_y=True)
    if not broken:
        x = (x - x.mean(0)) / x.std(0)
    return {
        "model": lambda: nn.Sequential(nn.Linear(3, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 3)),
        "loss": nn.MSELoss(),
        "optimizer": adam(0.01),
        "batch": (torch.as_tensor(x).float(), torch.as_tensor((y - y.mean(0)) / y.std(0)).float()),
    }
