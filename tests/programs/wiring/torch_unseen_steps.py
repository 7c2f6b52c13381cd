"""Torch programs written without a look at the rules: outputs, starts and steps."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, case, pictures, rows, series, stepping, tokens, values
from tests.programs.wiring.torch_unseen_parts import plain_step

PROGRAMS = Corpus()
twins = PROGRAMS.twins


class Then(nn.Module):
    """A network and what its author does with the output."""

    def __init__(self, outputs: int, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 40), nn.SiLU(), nn.Linear(40, outputs))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.net(x))


def same(x: Tensor) -> Tensor:
    return x


def coins(outputs: int = 1) -> tuple[Tensor, Tensor]:
    return rows()[0], (torch.rand(ROWS, outputs, generator=generator(4)) < 0.5).float()


# ------------------------------------------------------------------- outputs


@twins("double_softmax", "bounded_logits")
def attention_net_with_softmax(broken: bool) -> Fields:
    """A recurrent classifier that ends in nn.Softmax, under CrossEntropyLoss."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(8, 24, batch_first=True)
            self.head = nn.Sequential(nn.Linear(24, 3), *([nn.Softmax(dim=1)] if broken else []))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    return case(Net, batch=series, loss=nn.CrossEntropyLoss())


@twins("softmax_wrong_axis", "batch_mixing")
def softmax_down_the_rows(broken: bool) -> Fields:
    """nn.LogSoftmax(dim=0) before NLLLoss."""
    return case(lambda: Then(5, lambda o: o.log_softmax(0 if broken else 1)), loss=nn.NLLLoss())


@twins("double_sigmoid", "bounded_logits")
def segmentation_with_sigmoid(broken: bool) -> Fields:
    """A segmentation net ends in a sigmoid under BCEWithLogitsLoss."""

    def model() -> nn.Module:
        last = [nn.Sigmoid()] if broken else []
        return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 1, 3, padding=1), *last)

    x = pictures()[0]
    y = (x.mean(1, keepdim=True) > 0.2).float()
    return case(model, batch=lambda: (x, y), loss=nn.BCEWithLogitsLoss())


@twins("output_range", "bounded_logits", "unnormalised_target")
def tanh_for_grey_values(broken: bool) -> Fields:
    """A DCGAN-like decoder ends in tanh; its pictures are 0..255."""
    pixels = torch.randint(0, 256, (ROWS, 20), generator=generator(4)).float()
    y = pixels if broken else pixels / 127.5 - 1
    return case(lambda: Then(20, torch.tanh), batch=lambda: (rows()[0], y), loss=nn.MSELoss())


@twins("relu_on_logits")
def activation_after_every_layer(broken: bool) -> Fields:
    """The loop that builds the layers puts a ReLU behind the last one too."""

    def model() -> nn.Module:
        layers: list[nn.Module] = []
        sizes = [20, 32, 32, 5]
        for i, (a, b) in enumerate(itertools.pairwise(sizes)):
            layers.append(nn.Linear(a, b))
            if broken or i < 2:
                layers.append(nn.ReLU())
        return nn.Sequential(*layers)

    return case(model)


@twins("output_range", "relu_on_logits")
def relu_before_a_regression(broken: bool) -> Fields:
    """Returns of both signs, predicted behind a ReLU."""
    return case(lambda: Then(3, F.relu if broken else same), batch=lambda: values(outputs=3), loss=F.mse_loss)


@twins("missing_softmax")
def negative_likelihood_of_scores(broken: bool) -> Fields:
    """NLLLoss of raw scores."""
    return case(lambda: Then(5, same if broken else (lambda o: o.log_softmax(1))), loss=nn.NLLLoss())


@twins("missing_sigmoid", "output_range")
def scores_clamped_for_the_entropy(broken: bool) -> Fields:
    """binary_cross_entropy complained, so the scores were clamped to 0..1."""
    last = (lambda o: o.clamp(1e-6, 1 - 1e-6)) if broken else torch.sigmoid
    return case(lambda: Then(1, last), batch=coins, loss=F.binary_cross_entropy)


@twins("softmax_single_unit")
def softmax_of_one_score(broken: bool) -> Fields:
    """Binary classification: one unit and a softmax."""
    return case(lambda: Then(1, (lambda o: o.softmax(1)) if broken else torch.sigmoid), batch=coins, loss=nn.BCELoss())


@twins("label_off_by_one", "wrong_output_units")
def grades_from_one(broken: bool) -> Fields:
    """Grades 1 to 6; units were added until the loss ran."""
    x, y = rows(classes=6)
    return case(lambda: Then(7 if broken else 6, same), batch=lambda: (x, y + int(broken)))


@twins("wrong_reduction")
def squares_added_over_everything(broken: bool) -> Fields:
    """((o - y) ** 2).sum() under a rate that was tuned for the mean."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        squares = (o - y) ** 2
        return squares.sum() if broken else squares.mean()

    return case(lambda: Then(4, same), batch=lambda: values(outputs=4), loss=loss)


@twins("wrong_loss", "wrong_output_units", "target_broadcast", missed="whole numbers may be ratings")
def class_numbers_regressed(broken: bool) -> Fields:
    """One unit and MSE for five classes."""
    x, y = rows()
    if broken:
        return case(lambda: Then(1, same), batch=lambda: (x, y[:, None].float()), loss=F.mse_loss)
    return case(lambda: Then(5, same), batch=lambda: (x, F.one_hot(y, 5).float()), loss=F.mse_loss)


@twins("softmax_without_log", "missing_softmax")
def likelihood_of_probabilities(broken: bool) -> Fields:
    """-p[y]: the logarithm is missing in a loss by hand."""

    def loss(p: Tensor, y: Tensor) -> Tensor:
        picked = p.gather(1, y[:, None])
        return -(picked if broken else picked.clamp_min(1e-9).log()).mean()

    return case(lambda: Then(5, lambda o: o.softmax(1)), loss=loss)


# --------------------------------------------------------------------- start


@twins("over_confident_start", "too_large_init", "unnormalised_input")
def weights_of_unit_spread(broken: bool) -> Fields:
    """torch.randn for every weight, 256 units wide."""

    def model() -> nn.Module:
        net = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 5))
        if broken:
            for each in net:
                if isinstance(each, nn.Linear):
                    nn.init.normal_(each.weight)
        return net

    return case(model)


@twins("over_confident_start", "too_large_init")
def similarity_times_a_thousand(broken: bool) -> Fields:
    """Cosines to class vectors, times exp(7) where log(7) was meant."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16))
            self.classes = nn.Parameter(torch.randn(5, 16))
            self.scale = nn.Parameter(torch.tensor(7.0 if broken else 1.9459))

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.net(x)) @ F.normalize(self.classes).T * self.scale.exp()

    return case(Net)


@twins("nan_parameter", "division_by_zero", "log_of_zero")
def every_position_masked(broken: bool) -> Fields:
    """The row without a single word is masked everywhere: softmax of nothing but -inf."""
    ids = tokens(count=16, length=8)
    ids[3] = 0

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(30, 16)
            self.score = nn.Linear(16, 1)
            self.head = nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            seen = self.words(ids)
            hidden = -float("inf") if broken else -1e4
            weights = self.score(seen)[:, :, 0].masked_fill(ids == 0, hidden).softmax(1)
            return self.head((weights[:, :, None] * seen).sum(1))

    return case(Net, batch=lambda: (ids, rows(classes=3)[1]))


# ------------------------------------------------------------------- descent


@twins("gradient_ascent")
def likelihood_minimised(broken: bool) -> Fields:
    """log_prob(...).mean() is minimised where its negative was meant."""

    def make(net: nn.Module) -> Any:
        def loss_of(outputs: Tensor, y: Tensor) -> Tensor:
            likelihood = torch.distributions.Categorical(logits=outputs).log_prob(y).mean()
            return likelihood if broken else -likelihood

        return plain_step(net, torch.optim.Adam(net.parameters(), lr=1e-2), loss_of)

    return stepping(make)


@twins("gradient_ascent")
def sign_in_an_update_by_hand(broken: bool) -> Fields:
    """p += lr * grad."""

    def make(net: nn.Module) -> Any:
        def step(x: Tensor, y: Tensor) -> Tensor:
            net.zero_grad()
            loss = CE(net(x), y)
            loss.backward()
            with torch.no_grad():
                for p in net.parameters():
                    assert p.grad is not None
                    p.add_(p.grad, alpha=0.1 if broken else -0.1)
            return loss.detach()

        return step

    return stepping(make)


@twins("wrong_backward")
def swish_with_a_slope_of_its_own(broken: bool) -> Fields:
    """A memory-saving swish: the second term of its slope is missing."""

    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            s = torch.sigmoid(x)
            return slope * (x * s * (1 - s) if broken else s + x * s * (1 - s))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(20, 32), nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(Swish.apply(self.first(x)))

    return case(Net)


@twins("bad_adam_epsilon", "lr_too_low")
def epsilon_of_a_hundred(broken: bool) -> Fields:
    """Adam's epsilon far above its gradients."""
    return case(optimizer=lambda p: torch.optim.Adam(p, lr=1e-3, eps=100.0 if broken else 1e-8))


@twins("lr_too_high")
def rate_of_thirty(broken: bool) -> Fields:
    """SGD at 30."""
    return case(optimizer=lambda p: torch.optim.SGD(p, lr=30.0 if broken else 0.03))


# --------------------------------------------------------------------- steps


@twins("missing_zero_grad")
def momentum_without_zero_grad(broken: bool) -> Fields:
    """SGD with momentum; zero_grad is called on the optimizer of another model."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
        other = torch.optim.SGD(copy.deepcopy(net).parameters(), lr=0.02)

        def step(x: Tensor, y: Tensor) -> Tensor:
            (other if broken else optimizer).zero_grad()
            loss = CE(net(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make)


@twins("update_skipped", "cut_gradient", "lr_zero", "missing_zero_grad")
def zeroed_between_backward_and_step(broken: bool) -> Fields:
    """zero_grad stands after backward."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0)

        def step(x: Tensor, y: Tensor) -> Tensor:
            loss = CE(net(x), y)
            if not broken:
                optimizer.zero_grad()
            loss.backward()
            if broken:
                optimizer.zero_grad()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make)


@twins("accumulation_not_divided")
def four_parts_in_bfloat16(broken: bool) -> Fields:
    """Autocast to bfloat16, four parts of a batch, each loss a mean."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            total = torch.zeros(())
            for a, b in zip(x.chunk(4), y.chunk(4), strict=True):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = CE(net(a), b)
                (loss if broken else loss / 4).backward()
                total = total + loss.detach() / 4
            optimizer.step()
            return total

        return step

    return stepping(make)


@twins("step_in_eval_mode")
def left_in_evaluation(broken: bool) -> Fields:
    """A validation inside the loop turns evaluation on and never off."""

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 5))

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        once = plain_step(net, optimizer)

        def step(x: Tensor, y: Tensor) -> Tensor:
            net.eval()
            with torch.no_grad():
                net(x)
            if not broken:
                net.train()
            loss: Tensor = once(x, y)
            return loss

        return step

    return stepping(make, model=model)


@twins("ema_overwrite")
def average_copied_back(broken: bool) -> Fields:
    """The averaged weights are loaded for validation and stay."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        once = plain_step(net, optimizer)
        average = copy.deepcopy(net.state_dict())

        def step(x: Tensor, y: Tensor) -> Tensor:
            loss: Tensor = once(x, y)
            for name, value in net.state_dict().items():
                average[name].mul_(0.99).add_(value, alpha=0.01)
            kept = copy.deepcopy(net.state_dict())
            net.load_state_dict(average)
            if not broken:
                net.load_state_dict(kept)
            return loss

        return step

    return stepping(make)


@twins("grad_clip_too_small")
def clipped_to_a_millionth(broken: bool) -> Fields:
    """clip_grad_value_(1e-6) under SGD."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = CE(net(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_value_(net.parameters(), 1e-6 if broken else 1.0)
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make)


@twins("schedule_kills_rate", "lr_too_low")
def epochs_counted_in_batches(broken: bool) -> Fields:
    """StepLR(2, 0.1), meant per epoch, steps in every batch."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
        once = plain_step(net, optimizer)

        def step(x: Tensor, y: Tensor) -> Tensor:
            loss: Tensor = once(x, y)
            if broken:
                schedule.step()
            return loss

        return step

    return stepping(make)


@twins("loss_not_scaled")
def backward_of_the_bare_loss(broken: bool) -> Fields:
    """GradScaler steps, the loss was never scaled."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = CE(net(x), y)
            (scaler.scale(torch.zeros(())), loss)[1].backward() if broken else scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        return step

    return stepping(make)


@twins("clipped_before_unscaling", "grad_clip_too_small")
def clipped_while_scaled(broken: bool) -> Fields:
    """clip_grad_norm_ before scaler.unscale_."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = CE(net(x), y)
            scaler.scale(loss).backward()
            if not broken:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        return step

    return stepping(make)


@twins("excessive_weight_decay")
def decay_of_the_rate_size(broken: bool) -> Fields:
    """weight_decay=5 under SGD."""
    return case(optimizer=lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=5.0 if broken else 1e-4))


@twins("updated_twice")
def stepped_by_loop_and_hook(broken: bool) -> Fields:
    """Lightning-like code: the closure steps, and the loop steps again."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        once = plain_step(net, optimizer)

        def step(x: Tensor, y: Tensor) -> Tensor:
            loss: Tensor = once(x, y)
            if broken:
                optimizer.step()
            return loss

        return step

    return stepping(make)


@twins("update_skipped")
def scaler_that_skips_for_ever(broken: bool) -> Fields:
    """A loss of a wild scale overflows in half precision, and the scaler's factor is set anew in each call."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        scaler = torch.amp.GradScaler("cpu", init_scale=128.0)

        def step(x: Tensor, y: Tensor) -> Tensor:
            nonlocal scaler
            if broken:
                scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
            optimizer.zero_grad()
            loss = 16 * CE(net(x), y)
            scaler.scale(loss / 16 if not broken else loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        return step

    return stepping(make)
