"""`overfit_batch` on the ways in which torch programs train and load: schedules, custom steps, containers."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils import data

from pytest_overfit import Verdict
from tests.programs import helpers
from tests.programs.helpers import ROWS, Fields, adam, digits, mlp

Step = Callable[[nn.Module, Tensor, Tensor], Any]
ADAM = adam()


def verdict(**fields: Any) -> Verdict:
    """Of the smallest model on the digits, but for what `fields` say."""
    given = {"model": mlp, "loss": F.cross_entropy, **fields}
    if "train" not in fields:
        given.setdefault("batch", digits)
    return helpers.verdict(**given)


# ------------------------------------------------------------------------ optimizers and schedules


def sgd(rate: float) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9)


def warm_up_and_cosine(optimizer: Any) -> Any:
    parts = lr_scheduler.LinearLR(optimizer, 0.001, 1.0, 40), lr_scheduler.CosineAnnealingLR(optimizer, 400)
    return lr_scheduler.SequentialLR(optimizer, list(parts), [40])


TRAINING: dict[str, tuple[Fields, Fields]] = {
    "one_cycle": (
        {"optimizer": sgd(0.1), "scheduler": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=500)},
        {"optimizer": sgd(0.1), "scheduler": lambda o: lr_scheduler.OneCycleLR(o, max_lr=1e-5, total_steps=500)},
    ),
    "exponential": (
        {"optimizer": sgd(0.1), "scheduler": lambda o: lr_scheduler.ExponentialLR(o, 0.99)},
        {"optimizer": sgd(0.1), "scheduler": lambda o: lr_scheduler.ExponentialLR(o, 0.5)},
    ),
    "first_updates_are_zero": (
        {"scheduler": lambda o: lr_scheduler.LambdaLR(o, lambda step: min(1.0, max(0, step - 20) / 30))},
        {"scheduler": lambda o: lr_scheduler.LambdaLR(o, lambda step: step // 10_000)},
    ),
    "warm_up_and_cosine": (
        {"scheduler": warm_up_and_cosine},
        {"scheduler": warm_up_and_cosine, "optimizer": sgd(1e-6)},
    ),
    "on_plateau": (
        {"scheduler": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=20)},
        {"scheduler": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=1.0, factor=0.1)},
    ),
    "lbfgs": (
        {"optimizer": lambda parameters: torch.optim.LBFGS(parameters, lr=0.5, max_iter=4)},
        {"optimizer": lambda parameters: torch.optim.LBFGS(parameters, lr=0.0, max_iter=4)},
    ),
    "parameter_groups": (
        {"optimizer": lambda model: torch.optim.AdamW([{"params": model[0].parameters(), "lr": 1e-2}, *_head(model)])},
        {"optimizer": lambda model: torch.optim.AdamW([{"params": model.parameters(), "weight_decay": 50.0}], lr=1e-2)},
    ),
}


def _head(model: Any) -> list[dict[str, Any]]:
    return [{"params": model[2].parameters(), "lr": 1e-3, "weight_decay": 0.0}]


@pytest.mark.parametrize("name", TRAINING)
class TestTraining:
    def test_healthy(self, name: str) -> None:
        found = verdict(**TRAINING[name][0])
        assert found.outcome == "passed", found.summary

    def test_faulty_twin(self, name: str) -> None:
        found = verdict(**TRAINING[name][1])
        assert found.outcome == "failed", found.summary


# -------------------------------------------------------------------------------------- custom steps


def optimizer_of(model: nn.Module, make: Callable[[Any], Any] = ADAM) -> Any:
    """The model's own optimizer, made at its first step."""
    return model.__dict__.setdefault("own_optimizer", make(model.parameters()))


def clipped(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    optimizer = optimizer_of(model)
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


def scaled_half_precision(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    optimizer, scaler = optimizer_of(model), model.__dict__.setdefault("scaler", torch.amp.GradScaler("cpu"))
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(x), y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss


def accumulated_in_one_call(model: nn.Module, x: Tensor, y: Tensor) -> float:
    optimizer = optimizer_of(model)
    optimizer.zero_grad()
    total = 0.0
    for part, labels in zip(x.chunk(4), y.chunk(4), strict=True):
        loss = F.cross_entropy(model(part), labels) / 4
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def accumulated_over_four_calls(model: nn.Module, x: Tensor, y: Tensor) -> float:
    optimizer, calls = optimizer_of(model), model.__dict__.get("calls", 0) + 1
    model.__dict__["calls"] = calls
    loss = F.cross_entropy(model(x), y)
    (loss / 4).backward()
    if calls % 4 == 0:
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def sharpness_aware(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Two passes: up the slope, and from there the gradient that is used."""
    optimizer, parameters = optimizer_of(model), list(model.parameters())
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    norm = torch.stack([each.grad.norm() for each in parameters]).norm() + 1e-12
    climbs = [0.05 * each.grad / norm for each in parameters]
    with torch.no_grad():
        torch._foreach_add_(parameters, climbs)
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    with torch.no_grad():
        torch._foreach_sub_(parameters, climbs)
    optimizer.step()
    return loss.item()


def closure_of_lbfgs(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    optimizer = optimizer_of(model, lambda parameters: torch.optim.LBFGS(parameters, lr=0.5, max_iter=4))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return optimizer.step(closure)


def mixed_up(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    optimizer = optimizer_of(model)
    order, share = torch.randperm(len(x)), float(np.random.beta(0.2, 0.2))
    optimizer.zero_grad()
    outputs = model(share * x + (1 - share) * x[order])
    loss = share * F.cross_entropy(outputs, y) + (1 - share) * F.cross_entropy(outputs, y[order])
    loss.backward()
    optimizer.step()
    return loss


def two_optimizers(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    halves = model.__dict__.setdefault("halves", [ADAM(model[0].parameters()), ADAM(model[2].parameters())])  # type: ignore[index]
    loss = F.cross_entropy(model(x), y)
    model.zero_grad()
    loss.backward()
    for optimizer in halves:
        optimizer.step()
    return loss


STEPS: dict[str, Step] = {
    each.__name__: each
    for each in (
        clipped,
        scaled_half_precision,
        accumulated_in_one_call,
        accumulated_over_four_calls,
        sharpness_aware,
        closure_of_lbfgs,
        mixed_up,
        two_optimizers,
    )
}


@pytest.mark.parametrize("name", STEPS)
class TestSteps:
    def test_healthy(self, name: str) -> None:
        found = verdict(step=STEPS[name], loss=None, optimizer=None)
        assert found.outcome == "passed", found.summary

    def test_faulty_twin_trains_on_nothing(self, name: str) -> None:
        """The inputs are lost on their way into the step."""
        blind = lambda model, x, y: STEPS[name](model, x * 0, y)  # noqa: E731
        found = verdict(step=blind, loss=None, optimizer=None)
        assert found.outcome == "failed", found.summary
        assert "nan" not in found.summary


class TestStepFaults:
    def test_gradients_that_are_never_made(self) -> None:
        def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            optimizer = optimizer_of(model)
            loss = F.cross_entropy(model(x), y)
            optimizer.step()
            return loss

        assert verdict(step=step, loss=None, optimizer=None).outcome == "failed"

    def test_gradients_wiped_before_they_are_used(self) -> None:
        def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            optimizer = optimizer_of(model)
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.zero_grad()
            optimizer.step()
            return loss

        assert verdict(step=step, loss=None, optimizer=None).outcome == "failed"

    def test_gradients_that_pile_up(self) -> None:
        def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            optimizer = optimizer_of(model, sgd(0.1))
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        assert verdict(step=step, loss=None, optimizer=None).outcome == "failed"

    def test_a_game_of_two_networks_has_no_loss_to_judge(self) -> None:
        """What one network loses the other gains: neither passed nor refuted without a score."""

        class Game(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.maker, self.critic = nn.Linear(8, 64), nn.Linear(64, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.critic(x)

        def step(model: Any, x: Tensor, y: None) -> float:
            if "both" not in model.__dict__:
                model.__dict__["both"] = [ADAM(model.critic.parameters()), ADAM(model.maker.parameters())]
            made, ends = model.maker(torch.randn(len(x), 8)), (torch.ones(len(x), 1), torch.zeros(len(x), 1))
            judge = F.binary_cross_entropy_with_logits
            total = 0.0
            for optimizer, loss in zip(
                model.both,
                (
                    lambda: judge(model.critic(x), ends[0]) + judge(model.critic(made.detach()), ends[1]),
                    lambda: judge(model.critic(made), ends[0]),
                ),
                strict=True,
            ):
                model.zero_grad()
                found = loss()
                found.backward()
                optimizer.step()
                total += found.item()
            return total

        found = verdict(model=Game, step=step, loss=None, optimizer=None, batch=(digits()[0], None))
        assert found.outcome == "inconclusive", found.summary


# ----------------------------------------------------------------------------------- losses that are odd


class TestLossForms:
    def test_one_number_in_a_list(self) -> None:
        found = verdict(loss=lambda o, y: F.cross_entropy(o, y).reshape(1))
        assert found.outcome == "passed", found.summary

    def test_a_model_that_returns_its_loss_alone(self) -> None:
        class Alone(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = mlp()

            def forward(self, image: Tensor, target: Tensor) -> Tensor:
                return F.cross_entropy(self.net(image), target)

        found = verdict(model=Alone, loss=None, batch=lambda: (digits(), None))
        assert found.outcome == "passed", found.summary

    @pytest.mark.parametrize("blind", [False, True])
    def test_a_model_that_returns_scores_and_loss(self, blind: bool) -> None:
        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = mlp()

            def forward(self, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
                scores = self.net(image * 0 if blind else image)
                return scores, -scores.log_softmax(-1).gather(1, target[:, None]).mean()

        found = verdict(model=Both, loss=None, batch=lambda: (digits(), None))
        assert found.outcome == ("failed" if blind else "passed"), found.summary

    @pytest.mark.parametrize("blind", [False, True])
    def test_targets_under_another_name(self, blind: bool) -> None:
        class Own(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = mlp()

            def forward(self, image: Tensor, truth: Tensor) -> dict[str, Tensor]:
                scores = self.net(image * 0 if blind else image)
                return {"loss": -scores.log_softmax(-1).gather(1, truth[:, None]).mean(), "scores": scores}

        x, y = digits()
        found = verdict(model=Own, loss=None, batch=lambda: ({"image": x, "truth": y}, None))
        assert found.outcome == ("failed" if blind else "passed"), found.summary

    def test_a_masked_loss_inside_the_model(self) -> None:
        class Masked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = mlp()

            def forward(self, x: Tensor, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
                scores = self.net(x)
                each = F.cross_entropy(scores, labels, reduction="none")
                return {"loss": (each * mask).sum() / mask.sum(), "logits": scores}

        x, y = digits()
        mask = (torch.arange(ROWS) % 5 > 0).float()
        found = verdict(model=Masked, loss=None, batch=lambda: ({"x": x, "labels": y, "mask": mask}, None))
        assert found.outcome == "passed", found.summary


# ---------------------------------------------------------------------------------------- containers


class Stream(data.IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(*digits(64), strict=True)


class Rows(data.Dataset):
    """Samples as dicts with something nested that no model needs."""

    def __init__(self) -> None:
        self.x, self.y = digits(64)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> tuple[dict[str, Any], int]:
        return {"image": self.x[row], "source": {"row": row}}, int(self.y[row])


class TakesImage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, image: Tensor, source: Any = None) -> Tensor:
        return self.net(image)


def tensors() -> data.Dataset:
    return data.TensorDataset(*digits(64))


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    x, y = digits(64)
    yield from zip(x.split(16), y.split(16), strict=True)


def stacked(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    x, y = zip(*samples, strict=True)
    return torch.stack(x), torch.stack(y)


CONTAINERS: dict[str, tuple[Fields, int]] = {
    "tensor_dataset": ({"train": tensors}, 32),
    "subset": ({"train": lambda: data.Subset(tensors(), range(0, 64, 2))}, 32),
    "random_split": ({"train": lambda: data.random_split(tensors(), [0.75, 0.25])[0]}, 32),
    "iterable_dataset": ({"train": lambda: Stream()}, 32),
    "loader_of_iterable_dataset": ({"train": lambda: data.DataLoader(Stream(), batch_size=16)}, 16),
    "loader_with_two_workers": ({"train": lambda: data.DataLoader(tensors(), batch_size=16, num_workers=2)}, 16),
    "loader_with_its_own_collate": (
        {"train": lambda: data.DataLoader(tensors(), batch_size=16, shuffle=True, collate_fn=stacked)},
        16,
    ),
    "dataset_of_dicts": ({"train": lambda: Rows(), "model": TakesImage}, 32),
    "loader_of_dicts": ({"train": lambda: data.DataLoader(Rows(), batch_size=16), "model": TakesImage}, 16),
    "list_of_samples": ({"train": lambda: list(zip(*digits(64), strict=True))}, 32),
    "generator_of_batches": ({"train": batches}, 16),
    "batch_from_a_generator": ({"batch": batches}, 16),
    "batch_as_a_named_tuple": ({"batch": lambda: collections.namedtuple("Batch", "x y")(*digits())}, ROWS),
    "inputs_that_need_gradients": ({"batch": lambda: (digits()[0].requires_grad_(), digits()[1])}, ROWS),
    "bytes_as_inputs": (
        {
            "batch": lambda: ((digits()[0] * 255).byte(), digits()[1]),
            "model": lambda: nn.Sequential(Scale(), *mlp()),
        },
        ROWS,
    ),
}


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float() / 255


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # where there is one core
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(name: str) -> None:
    fields, rows = CONTAINERS[name]
    found = verdict(**fields)
    assert found.outcome == "passed", found.summary
    assert found.data["rows"] == rows


def test_training_leaves_the_batch_as_it_was() -> None:
    x, y = digits()
    before = x.clone(), y.clone()

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        loss = clipped(model, x, y)
        x.mul_(0.999)
        return loss

    verdict(step=step, loss=None, optimizer=None, batch=(x, y), limits={"steps": 5})
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
