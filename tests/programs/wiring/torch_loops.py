"""Healthy torch programs whose optimizers or loops are out of the ordinary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, Mlp, adam, case, rows, series, sgd, stepping
from tests.programs.wiring.torch_steps import Noisy, averaged, loop, micro, scaled

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy()


@healthy
def lbfgs() -> Fields:
    """Many evaluations a step, by a closure."""
    return case(optimizer=lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4))


@healthy
def lbfgs_in_a_loop() -> Fields:
    def make(model: Any) -> Any:
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")

        def step(x: Any, y: Any) -> Any:
            def closure() -> Any:
                optimizer.zero_grad()
                loss = CE(model(x), y)
                loss.backward()
                return loss

            return optimizer.step(closure)

        return step

    return stepping(make)


class Sam(torch.optim.Optimizer):
    """Up to the worst point nearby, and down by its gradient from where it was."""

    def __init__(self, params: Any, base: Callable[[Any], torch.optim.Optimizer], radius: float = 0.05) -> None:
        super().__init__(params, {"radius": radius})
        self.base = base(self.param_groups)
        self.param_groups = self.base.param_groups

    def each(self) -> Any:
        return [each for group in self.param_groups for each in group["params"] if each.grad is not None]

    @torch.no_grad()
    def first_step(self) -> None:
        length = torch.stack([each.grad.norm() for each in self.each()]).norm() + 1e-12
        for each in self.each():
            self.state[each]["up"] = each.grad * (0.05 / length)
            each.add_(self.state[each]["up"])

    @torch.no_grad()
    def second_step(self) -> None:
        for each in self.each():
            each.sub_(self.state[each]["up"])
        self.base.step()

    def step(self, closure: Any = None) -> Any:
        raise NotImplementedError


@healthy
def sam() -> Fields:
    """Two backward passes and two moves a call."""

    def make(model: Any) -> Any:
        optimizer = Sam(model.parameters(), sgd)

        def step(x: Any, y: Any) -> Any:
            loss = CE(model(x), y)
            loss.backward()
            optimizer.first_step()
            optimizer.zero_grad()
            CE(model(x), y).backward()
            optimizer.second_step()
            optimizer.zero_grad()
            return loss

        return step

    return stepping(make)


class Closed(torch.optim.SGD):
    """SAM as an optimizer whose step takes a closure."""

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        with torch.enable_grad():
            loss = closure()
        held = [each for group in self.param_groups for each in group["params"] if each.grad is not None]
        ups = [each.grad * 0.05 for each in held]
        with torch.no_grad():
            for each, up in zip(held, ups, strict=True):
                each.add_(up)
        self.zero_grad()
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for each, up in zip(held, ups, strict=True):
                each.sub_(up)
        super().step()
        return loss


@healthy
def sam_by_a_closure() -> Fields:
    def make(model: Any) -> Any:
        optimizer = Closed(model.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            def closure() -> Any:
                optimizer.zero_grad()
                loss = CE(model(x), y)
                loss.backward()
                return loss

            return optimizer.step(closure)

        return step

    return stepping(make)


class Lookahead(torch.optim.Optimizer):
    """Fast weights, and every fifth step half of the way from the slow ones."""

    def __init__(self, params: Any, rate: float = 1e-2) -> None:
        super().__init__(params, {"lr": rate})
        self.inner, self.count = torch.optim.Adam(self.param_groups, lr=rate), 0
        self.slow = [each.detach().clone() for group in self.param_groups for each in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        self.inner.step()
        self.count += 1
        if self.count % 5 == 0:
            fast = [each for group in self.param_groups for each in group["params"]]
            for slow, each in zip(self.slow, fast, strict=True):
                slow.lerp_(each, 0.5)
                each.copy_(slow)


@healthy
def lookahead() -> Fields:
    return case(optimizer=Lookahead)


class Lion(torch.optim.Optimizer):
    """The sign of an average of gradients."""

    def __init__(self, params: Any, lr: float = 3e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for each in group["params"]:
                if each.grad is None:
                    continue
                average = self.state[each].setdefault("average", torch.zeros_like(each))
                each.add_((0.9 * average + 0.1 * each.grad).sign(), alpha=-group["lr"])
                average.lerp_(each.grad, 0.01)


@healthy
def lion() -> Fields:
    return case(optimizer=Lion)


@healthy
def momentum_without_patience() -> Fields:
    return case(optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.95, nesterov=True, weight_decay=5e-4))


@healthy
def warm_up_of_a_thousand_steps() -> Fields:
    """The rate begins at a thousandth."""
    schedule = lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: min(1.0, (n + 1) / 1000))  # noqa: E731
    return case(scheduler=schedule)


@healthy
def accumulation_over_eight_calls() -> Fields:
    def make(model: Any) -> Any:
        optimizer, count = sgd(model.parameters()), [0]

        def step(x: Any, y: Any) -> Any:
            loss = CE(model(x), y)
            (loss / 8).backward()
            count[0] += 1
            if count[0] % 8 == 0:
                optimizer.step()
                optimizer.zero_grad()
            return loss

        return step

    return stepping(make)


@healthy
def accumulation_within_a_call() -> Fields:
    return stepping(micro(divide=True))


@healthy
def scaler_that_skips_at_first() -> Fields:
    """An initial scale so large that the first gradients are infinite."""

    def make(model: Any) -> Any:
        optimizer = sgd(model.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        return step

    return stepping(make)


@healthy
def scaled_and_clipped() -> Fields:
    return stepping(scaled())


@healthy
def average_beside_the_weights() -> Fields:
    return stepping(averaged(overwrite=False))


@healthy
def loop_with_norm_and_dropout() -> Fields:
    return stepping(loop(mode=True), model=Noisy)


@healthy
def noisy_gradients() -> Fields:
    """Clipped by row and disturbed, as for privacy."""

    def make(model: Any) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            held = list(model.parameters())
            sums = [torch.zeros_like(each) for each in held]
            total = 0.0
            for row in range(len(x)):
                loss = CE(model(x[row : row + 1]), y[row : row + 1])
                found = torch.autograd.grad(loss, held)
                length = torch.stack([each.norm() for each in found]).norm()
                for sum_, each in zip(sums, found, strict=True):
                    sum_ += each / length.clamp(min=1.0)
                total += float(loss.detach())
            for each, sum_ in zip(held, sums, strict=True):
                each.grad = (sum_ + 0.5 * torch.randn_like(sum_)) / len(x)
            optimizer.step()
            return total / len(x)

        return step

    return stepping(make)


@healthy
def critic_more_often_than_generator() -> Fields:
    """Five steps of the critic for one of the generator, each with its optimizer."""

    class Gan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 20))
            self.critic = nn.Sequential(nn.Linear(20, 32), nn.LeakyReLU(), nn.Linear(32, 1))

        def forward(self, x: Tensor) -> Any:
            return self.critic(x)

    def make(model: Any) -> Any:
        ours, theirs = adam(model.generator.parameters()), adam(model.critic.parameters())

        def step(x: Any, y: Any) -> Any:
            for _ in range(5):
                made = model.generator(torch.randn(len(x), 4)).detach()
                theirs.zero_grad()
                loss = model.critic(made).mean() - model.critic(x).mean()
                loss.backward()
                theirs.step()
            ours.zero_grad()
            (-model.critic(model.generator(torch.randn(len(x), 4))).mean()).backward()
            ours.step()
            return loss

        return step

    return stepping(make, model=Gan)


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.policy, self.value = nn.Linear(20, 32), nn.Linear(32, 5), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Any:
        h = torch.tanh(self.body(x))
        return self.policy(h), self.value(h)


@healthy
def ppo() -> Fields:
    """Four epochs over one batch of actions a call."""

    def make(model: Any) -> Any:
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

        def step(x: Any, y: Any) -> Any:
            with torch.no_grad():
                old = model(x)[0].log_softmax(-1).gather(1, y[:, None])
            gain = torch.randn(len(x), 1, generator=generator(3))
            for _ in range(4):
                logits, value = model(x)
                ratio = (logits.log_softmax(-1).gather(1, y[:, None]) - old).exp()
                clipped = torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
                loss = -clipped.mean() + 0.5 * F.mse_loss(value, gain)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
            return loss

        return step

    return stepping(make, model=Agent)


@healthy
def q_learning_by_half_a_gradient() -> Fields:
    """Targets from the network itself, detached; only the action that was taken is learnt."""

    class Q(Mlp):
        def forward(self, x: Tensor) -> Any:
            both = super().forward(torch.cat([x[:, :20], x[:, 20:]], 0))
            return both[: len(x)], both[len(x) :].detach()

    def loss(o: Any, y: Tensor) -> Tensor:
        now = o[0].gather(1, y[:, None])[:, 0]
        return F.smooth_l1_loss(now, 0.9 * o[1].amax(1) + (y == 2).float())

    x = torch.cat([rows()[0], torch.randn(ROWS, 20, generator=generator(4))], 1)
    return case(Q, batch=lambda: (x, rows()[1]), loss=loss)


@healthy
def chunks_of_a_long_series() -> Fields:
    """Truncated backpropagation: the state is detached between two chunks, each with its update."""

    class Rnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor, state: Tensor | None = None) -> Any:
            out, state = self.rnn(x, state)
            return self.head(out[:, -1]), state

    def make(model: Any) -> Any:
        optimizer = adam(model.parameters())

        def step(x: Any, y: Any) -> Any:
            state = None
            for part in x.split(5, dim=1):
                out, state = model(part, state)
                loss = CE(out, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                state = state.detach()
            return loss

        return step

    return stepping(make, model=Rnn, batch=series)


@healthy
def penalty_by_a_second_gradient() -> Fields:
    """The squared length of the gradient at the inputs."""

    def make(model: Any) -> Any:
        optimizer = adam(model.parameters())

        def step(x: Any, y: Any) -> Any:
            x = x.clone().requires_grad_()
            loss = CE(model(x), y)
            (at_inputs,) = torch.autograd.grad(loss, x, create_graph=True)
            optimizer.zero_grad()
            (loss + at_inputs.pow(2).sum()).backward()
            optimizer.step()
            return loss

        return step

    return stepping(make)


@healthy
def hand_written_descent() -> Fields:
    """No optimizer at all."""

    def make(model: Any) -> Any:
        def step(x: Any, y: Any) -> Any:
            loss = CE(model(x), y)
            loss.backward()
            with torch.no_grad():
                for each in model.parameters():
                    each -= 0.1 * each.grad
                    each.grad = None
            return loss

        return step

    return stepping(make)


@healthy
def two_passes_and_one_step() -> Fields:
    """Backward passes of two losses, added on purpose."""

    def make(model: Any) -> Any:
        optimizer = adam(model.parameters())

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad(set_to_none=False)
            loss = CE(model(x), y)
            loss.backward()
            (1e-2 * CE(model(x + 0.01), y)).backward()
            optimizer.step()
            return loss

        return step

    return stepping(make)
