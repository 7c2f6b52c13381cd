"""Models that carry state from call to call are not random; those that are random stay so, whatever they carry."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes

ROWS = 16
RNG = torch.Generator().manual_seed(0)
SERIES = torch.randn(ROWS, 6, 4, generator=RNG)
X = SERIES.reshape(ROWS, 24)
Y = torch.arange(ROWS)[torch.randperm(ROWS, generator=RNG)] % 4
MEMORY: dict[str, Tensor] = {}
SERIES_OF_NUMBERS = np.random.default_rng(0)


def verdict(model: Callable[[], nn.Module], x: Tensor = X, **fields: Any) -> Verdict:
    given = {"loss": F.cross_entropy, "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2), **fields}
    if "step" in fields:
        given = fields
    return run_probes(Case(name="state", model=model, batch=(x, Y), **given), ["overfit_batch"])[0]


def remarks(found: Verdict) -> str:
    return " ".join(each.message for each in found.findings if each.name == "remark")


class Recurrent(nn.Module):
    """Goes on from where the call before ended; `keep` and `kept` say where that is."""

    cuts = False
    drops = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(24, 32), nn.Linear(32, 4)

    def kept(self) -> Tensor | None:
        raise NotImplementedError

    def keep(self, state: Tensor) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        before = self.kept()
        usable = before is not None and len(before) == len(x)
        state: Tensor = self.cell(x * (not self.cuts), before.clone() if usable and before is not None else None)
        self.keep(state.detach())
        answer: Tensor = self.out(F.dropout(state, self.drops))
        return answer


class InAttribute(Recurrent):
    def __init__(self) -> None:
        super().__init__()
        self.state: Any = None

    def kept(self) -> Tensor | None:
        return None if self.state is None else self.state[0]

    def keep(self, state: Tensor) -> None:
        self.state = (state,)


class InPlace(Recurrent):
    def __init__(self) -> None:
        super().__init__()
        self.state = torch.zeros(ROWS, 32)

    def kept(self) -> Tensor | None:
        return self.state

    def keep(self, state: Tensor) -> None:
        self.state.copy_(state)


class InBuffer(Recurrent):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(ROWS, 32))

    def kept(self) -> Tensor | None:
        return self.state  # type: ignore[return-value]

    def keep(self, state: Tensor) -> None:
        self.state = state


class InGlobal(Recurrent):
    def kept(self) -> Tensor | None:
        return MEMORY.get("state")

    def keep(self, state: Tensor) -> None:
        MEMORY["state"] = state


class InClass(Recurrent):
    state: ClassVar[Tensor | None] = None

    def kept(self) -> Tensor | None:
        return InClass.state

    def keep(self, state: Tensor) -> None:
        InClass.state = state


def in_closure() -> nn.Module:
    held: list[Tensor] = []

    class InClosure(Recurrent):
        def kept(self) -> Tensor | None:
            return held[-1] if held else None

        def keep(self, state: Tensor) -> None:
            held[:] = [state]

    return InClosure()


class Holder:
    state: Tensor | None = None


SHARED = Holder()


class InSharedObject(Recurrent):
    def __init__(self) -> None:
        super().__init__()
        self.holder = SHARED

    def kept(self) -> Tensor | None:
        return self.holder.state

    def keep(self, state: Tensor) -> None:
        self.holder.state = state


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.net(x)
        return answer


class Counting(Perceptron):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x) * (1 + 1 / (1 + self.count))


class Past(Perceptron):
    def __init__(self) -> None:
        super().__init__()
        self.past: deque[Tensor] = deque(maxlen=3)

    def forward(self, x: Tensor) -> Tensor:
        answer = super().forward(x)
        blend = answer + 0.3 * torch.stack(list(self.past)).sum(0) if self.past else answer
        self.past.append(answer.detach())
        return blend


class MomentumEncoder(Perceptron):
    """A frozen copy follows the trained net at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = copy.deepcopy(self.net).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for fast, slow in zip(self.net.parameters(), self.slow.parameters(), strict=True):
                slow.mul_(0.9).add_(fast, alpha=0.1)
        answer: Tensor = super().forward(x) + self.slow(x)
        return answer


def hooked() -> nn.Module:
    net, calls = Perceptron(), [0]

    def hook(module: nn.Module, given: Any, answer: Tensor) -> Tensor:
        calls[0] += 1
        return answer * (1 + calls[0] % 3)

    net.net[0].register_forward_hook(hook)
    return net


INSIDE: list[Callable[[], nn.Module]] = [
    InAttribute,
    InPlace,
    InBuffer,
    InSharedObject,
    Counting,
    Past,
    MomentumEncoder,
]
OUTSIDE: dict[Callable[[], nn.Module], str] = {
    InGlobal: "the global MEMORY",
    InClass: "InClass.state, which all InClass share",
    in_closure: "the variable held around",
    hooked: "the variable calls around hook",
}


@pytest.mark.parametrize("model", INSIDE)
def test_state_of_the_model_is_no_randomness(model: Callable[[], nn.Module]) -> None:
    found = verdict(model)
    assert found.outcome == "passed", found.summary
    assert not remarks(found)


@pytest.mark.parametrize("model", OUTSIDE)
def test_state_around_the_model_is_named_and_left_as_it_was(model: Callable[[], nn.Module]) -> None:
    before = dict(MEMORY), InClass.state
    for _ in range(2):  # a second run does not begin with what the first one left
        found = verdict(model)
        assert found.outcome == "passed", found.summary
        assert OUTSIDE[model] in remarks(found)
    assert (MEMORY, InClass.state) == before


def own_step(model: Any, x: Tensor, y: Tensor) -> float:
    if not hasattr(model, "optimizer"):
        model.optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.train()
    model.optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    model.optimizer.step()
    return loss.item()


@pytest.mark.parametrize("model", [InAttribute, InGlobal])
def test_the_blinded_twin_of_a_step_has_state_of_its_own(model: Callable[[], nn.Module]) -> None:
    found = verdict(model, step=own_step)
    assert found.outcome == "passed", found.summary


class Cut(InAttribute):
    cuts = True


class Random(InAttribute):
    drops = 0.3


class RandomGlobally(InGlobal):
    drops = 0.3


class OwnGenerator(Perceptron):
    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * (torch.rand(x.shape, generator=self.generator) > 0.3))


class GlobalGenerator(Perceptron):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.as_tensor(SERIES_OF_NUMBERS.random(x.shape) > 0.3))


class Mixed(InAttribute):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + x.roll(1, 0))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Cut, "loss ratio 1.00"),
        (Random, "evaluation is random"),
        (RandomGlobally, "evaluation is random"),
        (OwnGenerator, "evaluation is random"),
        (GlobalGenerator, "evaluation is random"),
        (Mixed, "rows are mixed up"),
    ],
)
def test_faults_are_seen_through_state(model: Callable[[], nn.Module], reason: str) -> None:
    found = verdict(model)
    assert found.outcome == "failed"
    assert reason in found.summary


def test_state_that_is_not_found_leaves_it_open() -> None:
    """Kept by a generator function: nothing names it."""

    def factors() -> Any:
        yield from (1 + 0.618 * number % 1 for number in itertools.count())  # never the same twice

    class Hidden(Perceptron):
        def __init__(self) -> None:
            super().__init__()
            self.factors = factors()

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * next(self.factors)

    found = verdict(Hidden)
    assert found.outcome == "inconclusive"
    assert "keeps state between calls" in found.summary


class Relative:
    """A loss in units of its own running mean."""

    def __init__(self) -> None:
        self.mean: Tensor | None = None

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        loss = F.cross_entropy(outputs, y)
        self.mean = loss.detach() if self.mean is None else 0.9 * self.mean + 0.1 * loss.detach()
        return loss / self.mean.clamp_min(1e-3) ** 0.5


def test_readings_do_not_move_what_a_loss_keeps() -> None:
    from pytest_overfit.adapters.torch import make_learner
    from pytest_overfit.data.telling import batch_of

    loss = Relative()
    case = Case(name="loss", model=Perceptron, loss=loss, optimizer=torch.optim.Adam, batch=(X, Y))
    net = Perceptron()
    learner = make_learner(case, net, batch_of(case), Perceptron)
    assert loss.mean is None
    learner.train(3)
    mean = loss.mean
    reading = learner.read("fit")
    learner.loss_and_gradient(reading.outputs)
    assert loss.mean is mean


def test_an_observer_makes_room_for_its_channels() -> None:
    observers = pytest.importorskip("torch.ao.quantization")

    class Observed(Perceptron):
        def __init__(self) -> None:
            super().__init__()
            self.observer = observers.MovingAveragePerChannelMinMaxObserver(ch_axis=1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.observer(x))

    found = verdict(Observed)
    assert found.outcome == "passed", found.summary


class Collecting(nn.Module):
    """Hooks that collect hidden values are registered in the first pass, and a flag says that they are."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(24, 32), nn.Linear(32, 4)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not getattr(self, "is_hooked", False):
            self.hidden.register_forward_hook(lambda module, inputs, output: self.seen.append(output))
            self.is_hooked = True
        self.seen.clear()
        self.hidden(x)
        (only,) = self.seen
        self.seen.clear()
        return self.head(torch.relu(only))


@pytest.mark.parametrize("probe", ["overfit_batch", "wiring"])
def test_hooks_of_the_first_pass_are_registered_once(probe: str) -> None:
    case = Case(
        name="hooks",
        model=Collecting,
        batch=(X, Y),
        loss=F.cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    )
    (found,) = run_probes(case, [probe])
    assert found.passed, found.summary
