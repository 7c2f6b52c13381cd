"""Torch programs whose optimizer holds the wrong parameters, moves what is frozen, or makes numbers that are none."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, Mlp, adam, case, pictures, rows, series, sgd, stepping

PROGRAMS = Corpus()
twins = PROGRAMS.twins

WRONG = ("optimizer_wrong_params", "frozen_parameters")
SKIPPED = ("update_skipped", "lr_zero", "optimizer_wrong_params")


def named(wanted: Callable[[str], bool]) -> Any:
    def make(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam([each for name, each in model.named_parameters() if wanted(name)], lr=1e-2)

    return make


@twins(*WRONG)
def head_alone_in_the_optimizer(broken: bool) -> Fields:
    """Fine-tuning left over: the optimizer holds the head. The healthy one has also frozen the body."""

    def model() -> nn.Module:
        made = Mlp()
        made.body.requires_grad_(broken)
        return made

    return case(model, optimizer=named(lambda name: name.startswith("head")))


@twins(*WRONG)
def biases_alone(broken: bool) -> Fields:
    """The group without decay was built, the other forgotten."""
    return case(optimizer=named(lambda name: name.endswith("bias") or not broken))


@twins(*WRONG)
def weights_alone(broken: bool) -> Fields:
    """All but the biases."""
    return case(optimizer=named(lambda name: name.endswith("weight") or not broken))


@twins(*WRONG)
def norms_left_out(broken: bool) -> Fields:
    """Two groups by kind of module, and no group for LayerNorm."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(20, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 32))

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        of_linear = [each.parameters() for each in model.modules() if isinstance(each, nn.Linear)]
        groups = [{"params": list(itertools.chain(*of_linear)), "weight_decay": 0.01}]
        if not broken:
            of_norms = [each.parameters() for each in model.modules() if isinstance(each, nn.LayerNorm)]
            groups.append({"params": list(itertools.chain(*of_norms)), "weight_decay": 0.0})
        return torch.optim.AdamW(groups, lr=1e-2)

    return case(Model, optimizer=optimizer)


@twins(*WRONG)
def stale_head(broken: bool) -> Fields:
    """The head is replaced after the optimizer was made."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            if not broken:
                self.head = nn.Linear(32, 5)
            self.chosen = [list(self.parameters())]
            if broken:
                self.head = nn.Linear(32, 5)

    def optimizer(model: Any) -> torch.optim.Optimizer:
        return adam(model.chosen[0])

    return case(Model, optimizer=optimizer)


@twins(*WRONG)
def stale_head_in_a_loop(broken: bool) -> Fields:
    """The factory makes the optimizer too, and then gives the model the head for the classes of today."""

    def model() -> nn.Module:
        made = Mlp(outputs=7)
        if not broken:
            made.head = nn.Linear(32, 5)
        object.__setattr__(made, "optimizer", sgd(made.parameters()))
        if broken:
            made.head = nn.Linear(32, 5)
        return made

    def step(model: Any, x: Any, y: Any) -> Any:
        model.optimizer.zero_grad()
        loss = CE(model(x), y)
        loss.backward()
        model.optimizer.step()
        return loss

    return {"model": model, "batch": rows, "step": step}


@twins(*WRONG)
def decoder_forgotten(broken: bool) -> Fields:
    """Encoder and decoder by hand in a loop of one's own; only the encoder's parameters are handed over."""

    def make(model: Any) -> Any:
        held = list(model.body.parameters()) if broken else list(model.parameters())
        optimizer = torch.optim.SGD(held, lr=0.1, momentum=0.9)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    return stepping(make)


@twins("optimizer_wrong_params", "frozen_parameters", "update_skipped")
def adapters_out_of_the_optimizer(broken: bool) -> Fields:
    """Low-rank adapters added after the optimizer of the head was made."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(20, 32).requires_grad_(False)
            self.a = nn.Parameter(torch.randn(20, 4) * 0.1)
            self.b = nn.Parameter(torch.zeros(4, 32))
            self.head = nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.base(x) + x @ self.a @ self.b))

    return case(Model, optimizer=named(lambda name: name.startswith("head") or not broken))


@twins("parameter_twice", "updated_twice", "optimizer_wrong_params")
def head_in_two_optimizers(broken: bool) -> Fields:
    """One optimizer for everything, and another one for the head."""

    def make(model: Any) -> Any:
        first = adam(model.parameters() if broken else model.body.parameters())
        second = torch.optim.SGD(model.head.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            first.zero_grad()
            second.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            first.step()
            second.step()
            return loss

        return step

    return stepping(make)


def hand_loop(before: Callable[[Any], None] = lambda model: None, after: Any = lambda model: None, call: bool = True):  # type: ignore[no-untyped-def]
    """Zero, backward, `before`, step, `after`."""

    def make(model: Any) -> Any:
        optimizer = sgd(model.parameters())

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            before(model)
            if call:
                optimizer.step()
            after(model)
            return loss

        return step

    return make


@twins(*SKIPPED)
def step_never_called(broken: bool) -> Fields:
    """No optimizer.step()."""
    return stepping(hand_loop(call=not broken))


@twins(*SKIPPED)
def zeroed_before_the_step(broken: bool) -> Fields:
    """zero_grad() between backward() and step()."""
    return stepping(hand_loop(before=lambda model: model.zero_grad() if broken else None))


@twins(*SKIPPED, "not_frozen", "ema_overwrite")
def best_weights_restored(broken: bool) -> Fields:
    """The state of the start is loaded after every step; the healthy one only saves it."""

    def after(model: Any) -> None:
        if not hasattr(model, "best"):
            object.__setattr__(model, "best", copy.deepcopy(first[0]))
        if broken:
            model.load_state_dict(model.best)

    first: list[Any] = []

    def model() -> nn.Module:
        made = Mlp()
        first[:] = [made.state_dict()]
        return made

    return stepping(hand_loop(after=after), model=model)


@twins("update_skipped", "frozen_parameters", "optimizer_wrong_params", "cut_gradient", "nan_parameter")
def one_layers_gradient_zeroed(broken: bool) -> Fields:
    """A list of layers whose gradients are cleared `while warming up`, for ever."""

    def before(model: Any) -> None:
        if broken:
            for each in model.body.parameters():
                each.grad = torch.zeros_like(each)

    return stepping(hand_loop(before=before))


@twins("lr_zero", "update_skipped", "lr_too_low")
def rate_of_zero(broken: bool) -> Fields:
    """A schedule that multiplies by step // 1000, so by 0; the healthy one warms up from 0."""

    def scheduler(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: n // 1000 if broken else min(1.0, n / 5))

    return case(scheduler=scheduler)


class Tuned(nn.Module):
    """An encoder with a norm that is to stay, and a head."""

    def __init__(self, evaluating: bool = True, free: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU()).requires_grad_(free)
        self.head, self.evaluating = nn.Linear(32, 5), evaluating

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        if self.evaluating:
            self.encoder.eval()
        return self

    def forward(self, x: Tensor) -> Any:
        return self.head(self.encoder(x))


@twins("not_frozen")
def frozen_and_trained(broken: bool) -> Fields:
    """`module.requires_grad = False` is an attribute of no meaning."""

    def model() -> nn.Module:
        made = Tuned(free=True)
        if broken:
            made.encoder.requires_grad = False  # type: ignore[assignment]
        else:
            made.encoder.requires_grad_(False)
        return made

    return case(model, frozen=("encoder.*",))


@twins("not_frozen")
def frozen_and_its_statistics_move(broken: bool) -> Fields:
    """The frozen encoder's BatchNorm follows the batches."""
    return case(lambda: Tuned(evaluating=not broken), frozen=("encoder.*",))


@twins("not_frozen")
def frozen_and_decayed(broken: bool) -> Fields:
    """Gradients set to zero instead of None: AdamW's decay moves the encoder."""

    def make(model: Any) -> Any:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            for each in model.encoder.parameters():
                each.grad = torch.zeros_like(each) if broken else None
            optimizer.step()
            return loss

        return step

    return stepping(make, model=lambda: Tuned(free=True), frozen=("encoder.*",))


@twins("not_frozen")
def frozen_and_written_to(broken: bool) -> Fields:
    """A forward pass that keeps its projection at unit length, in place."""

    class Model(Tuned):
        def forward(self, x: Tensor) -> Any:
            if broken and self.training:
                with torch.no_grad():
                    weight = self.encoder[0].weight
                    weight.mul_(0.999)
            return super().forward(x)

    return case(Model, frozen=("encoder.*",))


NUMBERS = ("nan_parameter", "sqrt_zero_gradient", "division_by_zero", "log_of_zero")


@twins(*NUMBERS)
def root_of_zero(broken: bool) -> Fields:
    """Distances of rows to learnt centres, two of which begin in the data."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centres, self.head = nn.Parameter(rows()[0][:6].clone()), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            squares = ((x[:, None] - self.centres) ** 2).sum(-1)
            return self.head((squares if broken else squares + 1e-6).sqrt() / 4)

    return case(Model)


@twins(*NUMBERS)
def mean_of_no_rows(broken: bool) -> Fields:
    """A running mean over a mask that is empty: a buffer becomes NaN, the loss does not."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(32))

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            if self.training:
                chosen = h.detach()[x[:, 0] > 100]
                new = chosen.mean(0) if broken else chosen.sum(0) / max(1, len(chosen))
                self.seen: Tensor = 0.9 * self.seen + 0.1 * new
            return self.head(h)

    return case(Model)


@twins(*NUMBERS)
def noise_scale_below_zero(broken: bool) -> Fields:
    """where() hides the root of a negative number, its gradient shows."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.spread = nn.Parameter(torch.linspace(-0.1, 0.2, 32))

        def forward(self, x: Tensor) -> Any:
            spread = self.spread if broken else self.spread.clamp(min=1e-8)
            root = torch.where(self.spread > 0, spread.sqrt(), torch.zeros(()))
            return self.head(self.body(x) + root)

    return case(Model)


@twins(*NUMBERS, "missing_zero_grad")
def unit_length_of_empty_rows(broken: bool) -> Fields:
    """Rows divided by their length, some of length 0, then hidden by where."""

    class Model(Mlp):
        def forward(self, x: Tensor) -> Any:
            h = self.body[0](x) * (x[:, :1] <= 0)
            length = h.norm(dim=1, keepdim=True)
            unit = h / length if broken else h / length.clamp(min=1e-6)
            return self.head(torch.where(length > 0, unit, torch.zeros_like(h)))

    def model() -> nn.Module:
        made = Model()
        made.body = made.body[:1]
        return made

    return case(model)


@PROGRAMS.healthy()
def momentum_teacher_beside() -> Fields:
    """A frozen copy that follows the weights in the step, and is declared as nothing."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.average = copy.deepcopy(nn.Sequential(self.body, self.head)).requires_grad_(False)

    def after(model: Any) -> None:
        with torch.no_grad():
            for old, new in zip(model.average.parameters(), list(model.parameters())[:6], strict=True):
                old.lerp_(new, 0.01)

    return stepping(hand_loop(after=after), model=Model)


@PROGRAMS.healthy()
def frozen_stem_with_running_statistics() -> Fields:
    """Frozen weights, but statistics that follow, and no `frozen=`: linear probing as most do it."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).requires_grad_(False)
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.stem(x).mean((2, 3)))

    return case(Model, batch=pictures)


@PROGRAMS.healthy()
def two_optimizers_on_two_parts() -> Fields:
    """A loop with an optimizer for the recurrent part and one for the head, at other rates."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    def make(model: Any) -> Any:
        optimizers = [adam(model.rnn.parameters()), sgd(model.head.parameters())]

        def step(x: Any, y: Any) -> Any:
            for each in optimizers:
                each.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            for each in optimizers:
                each.step()
            return loss

        return step

    return stepping(make, model=Model, batch=series)
