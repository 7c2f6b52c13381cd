"""Torch programs whose step does something else than one step down one batch's gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, Mlp, case, sgd, stepping

PROGRAMS = Corpus()
twins = PROGRAMS.twins

UP = ("gradient_ascent", "lr_negative")


@twins(*UP)
def sign_of_the_loss(broken: bool) -> Fields:
    """A reward that is minimised."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        likelihood = o.log_softmax(-1).gather(1, y[:, None]).mean()
        return likelihood if broken else -likelihood

    return case(loss=loss, optimizer=sgd)


@twins(*UP)
def minus_before_the_loss(broken: bool) -> Fields:
    """-cross_entropy."""
    return case(loss=lambda o, y: -CE(o, y) if broken else CE(o, y), optimizer=sgd)


@twins(*UP)
def maximised(broken: bool) -> Fields:
    """maximize=True left from a search."""
    return case(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2, maximize=broken))


@twins(*UP)
def hand_written_step_goes_up(broken: bool) -> Fields:
    """p += rate * gradient."""

    def make(model: Any) -> Any:
        def step(x: Any, y: Any) -> Any:
            loss = CE(model(x), y)
            found = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), found, strict=True):
                    parameter.add_(gradient, alpha=0.1 if broken else -0.1)
            return loss

        return step

    return stepping(make)


def function(backward: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """A hand-written Swish with this backward pass."""

    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x.sigmoid()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            return backward(ctx.saved_tensors[0], gradient)

    return Swish


def slope(x: Tensor) -> Tensor:
    return x.sigmoid() * (1 + x * (1 - x.sigmoid()))


def with_function(backward: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    made = function(backward)

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(20, 32), nn.Linear(32, 32)
            del self.body

        def forward(self, x: Tensor) -> Any:
            return self.head(made.apply(self.second(made.apply(self.first(x)))))

    return Model


BACKWARD = ("wrong_backward", "gradient_ascent")


@twins(*BACKWARD)
def backward_of_another_sign(broken: bool) -> Fields:
    """The hand-written backward pass has the sign wrong."""
    return case(with_function(lambda x, g: g * slope(x) * (-1 if broken else 1)), optimizer=sgd)


@twins(*BACKWARD)
def backward_without_a_term(broken: bool) -> Fields:
    """The product rule's second half is missing."""
    return case(with_function(lambda x, g: g * (x.sigmoid() if broken else slope(x))), optimizer=sgd)


@twins(*BACKWARD)
def backward_four_times_too_large(broken: bool) -> Fields:
    """A factor that was to be divided by."""
    return case(with_function(lambda x, g: g * slope(x) * (4 if broken else 1)), optimizer=sgd)


@twins("excessive_weight_decay", "lr_too_high", "gradient_ascent")
def decay_outweighs_the_loss(broken: bool) -> Fields:
    """weight_decay=5."""
    return case(optimizer=lambda p: torch.optim.SGD(p, lr=0.02, weight_decay=5.0 if broken else 1e-3))


@twins("grad_clip_too_small", "lr_too_low")
def clipped_to_nothing(broken: bool) -> Fields:
    """clip_grad_norm_ to 1e-7."""

    def make(model: Any) -> Any:
        optimizer = sgd(model.parameters())

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-7 if broken else 1.0)
            optimizer.step()
            return loss

        return step

    return stepping(make)


@twins("lr_zero", "update_skipped", "lr_too_low")
def rate_is_zero(broken: bool) -> Fields:
    """lr=0."""
    return case(optimizer=lambda p: torch.optim.SGD(p, lr=0.0 if broken else 0.1))


@twins("lr_too_low", "lr_zero")
def rate_a_million_times_too_low(broken: bool) -> Fields:
    """lr=1e-8 of Adam."""
    return case(optimizer=lambda p: torch.optim.Adam(p, lr=1e-8 if broken else 1e-2))


@twins("lr_too_low", "slow_to_fit")
def rate_a_thousand_times_too_low(broken: bool) -> Fields:
    """lr=1e-5 of plain SGD."""
    return case(optimizer=lambda p: torch.optim.SGD(p, lr=1e-5 if broken else 1e-1))


@twins("lr_too_high")
def rate_a_thousand_times_too_high(broken: bool) -> Fields:
    """lr=100 of plain SGD."""
    return case(optimizer=lambda p: torch.optim.SGD(p, lr=100.0 if broken else 0.1))


@twins("lr_too_high")
def adams_rate_too_high(broken: bool) -> Fields:
    """lr=5 of Adam."""
    return case(optimizer=lambda p: torch.optim.Adam(p, lr=5.0 if broken else 5e-3))


@twins("bad_adam_epsilon", "lr_too_low")
def epsilon_above_the_gradients(broken: bool) -> Fields:
    """eps=1e3, which belongs to another optimizer."""
    return case(optimizer=lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e3 if broken else 1e-8))


# --------------------------------------------------------- one update of one batch


def loop(
    every: int = 1, zero: bool = True, times: int = 1, mode: bool | None = None, **more: Any
) -> Callable[[Any], Any]:
    """A plain loop that steps every so many calls, so many times."""

    def make(model: Any) -> Any:
        optimizer = sgd(model.parameters())
        count = [0]

        def step(x: Any, y: Any) -> Any:
            if mode is not None:
                model.train(mode)
            if zero:
                optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            count[0] += 1
            if count[0] % every == 0:
                for _ in range(times):
                    optimizer.step()
            return loss

        return step

    return make


@twins("missing_zero_grad")
def gradients_pile_up(broken: bool) -> Fields:
    """No zero_grad()."""
    return stepping(loop(zero=not broken))


@twins("missing_zero_grad")
def one_parts_gradients_pile_up(broken: bool) -> Fields:
    """The encoder's optimizer is zeroed, the head's is not."""

    def make(model: Any) -> Any:
        first, second = sgd(model.body.parameters()), sgd(model.head.parameters())

        def step(x: Any, y: Any) -> Any:
            first.zero_grad()
            if not broken:
                second.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            first.step()
            second.step()
            return loss

        return step

    return stepping(make)


@twins("update_skipped")
def three_updates_in_four_skipped(broken: bool) -> Fields:
    """zero_grad() in each call, step() in each fourth."""
    return stepping(loop(every=4 if broken else 1))


@twins("update_skipped", "lr_zero")
def accumulation_longer_than_any_run(broken: bool) -> Fields:
    """step() every 5000 calls."""
    return stepping(loop(every=5000 if broken else 1, zero=not broken))


@twins("updated_twice", "parameter_twice")
def stepped_twice(broken: bool) -> Fields:
    """Two calls of step() for one gradient."""
    return stepping(loop(times=2 if broken else 1))


class Noisy(Mlp):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1))


@twins("step_in_eval_mode", "batchnorm_eval_mismatch", "inert_regularizer")
def left_in_evaluation(broken: bool) -> Fields:
    """model.eval() after the last validation."""
    return stepping(loop(mode=not broken), model=Noisy)


def micro(divide: bool) -> Callable[[Any], Any]:
    def make(model: Any) -> Any:
        optimizer = sgd(model.parameters())

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            total = 0.0
            for inputs, targets in zip(x.chunk(4), y.chunk(4), strict=True):
                loss = CE(model(inputs), targets)
                (loss / 4 if divide else loss).backward()
                total += float(loss.detach()) / 4
            optimizer.step()
            return total

        return step

    return make


@twins("accumulation_not_divided", "lr_too_high")
def micro_batches_added(broken: bool) -> Fields:
    """Losses of four micro-batches are added, not averaged."""
    return stepping(micro(divide=not broken))


def scaled(clip_first: bool = False, scale: bool = True) -> Callable[[Any], Any]:
    """A GradScaler's loop, with clipping."""

    def make(model: Any) -> Any:
        optimizer, scaler = sgd(model.parameters()), torch.amp.GradScaler("cpu", init_scale=1024.0)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            scaler.scale(loss)
            (scaler.scale(loss) if scale else loss).backward()
            if not clip_first:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            return loss

        return step

    return make


@twins("clipped_before_unscaling", "grad_clip_too_small", "lr_too_low")
def clipped_while_scaled(broken: bool) -> Fields:
    """clip_grad_norm_ before unscale_."""
    return stepping(scaled(clip_first=broken))


@twins("loss_not_scaled", "lr_too_low")
def unscaled_without_scaling(broken: bool) -> Fields:
    """loss.backward() beside scaler.step()."""
    return stepping(scaled(scale=not broken))


def averaged(overwrite: bool) -> Callable[[Any], Any]:
    def make(model: Any) -> Any:
        optimizer, average = sgd(model.parameters()), copy.deepcopy(model)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for old, new in zip(average.parameters(), model.parameters(), strict=True):
                    old.lerp_(new, 0.01)
                    if overwrite:
                        new.copy_(old)
            return loss

        return step

    return make


@twins("ema_overwrite", "lr_too_low", "update_skipped")
def average_written_over_the_weights(broken: bool) -> Fields:
    """The moving average is copied into the model in each step."""
    return stepping(averaged(overwrite=broken))


@twins("schedule_kills_rate", "lr_too_low", "lr_zero")
def schedule_of_epochs_by_batch(broken: bool) -> Fields:
    """A tenth every step, meant for every thirtieth epoch."""

    def scheduler(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.StepLR(optimizer, 1 if broken else 3000, gamma=0.1)

    return case(scheduler=scheduler)


@twins("schedule_kills_rate", "lr_too_low", "lr_zero")
def exponential_decay_by_batch(broken: bool) -> Fields:
    """0.9 a step, meant for an epoch."""

    def scheduler(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9 if broken else 0.999)

    return case(scheduler=scheduler)
