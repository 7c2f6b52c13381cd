"""Torch programs written without a look at the rules: parts that are cut off, or that no optimizer holds."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, Mlp, case, pictures, rows, series, stepping, tokens, values

PROGRAMS = Corpus()
twins = PROGRAMS.twins

# ----------------------------------------------------------------- gradients


@twins("cut_gradient")
def encoder_under_no_grad(broken: bool) -> Fields:
    """A sequence-to-sequence network whose encoder runs under no_grad, left over from a feature-extraction test."""

    class Seq2Seq(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.GRU(8, 24, batch_first=True)
            self.decoder = nn.GRU(8, 24, batch_first=True)
            self.out = nn.Linear(24, 8)

        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(not broken and torch.is_grad_enabled()):
                context = self.encoder(x)[1]
            start = torch.zeros_like(x[:, :1])
            return self.out(self.decoder(torch.cat([start, x[:, :-1]], 1), context)[0])

    return case(Seq2Seq, batch=lambda: (series()[0], series()[0].flip(1)), loss=F.mse_loss)


@twins("cut_gradient")
def channel_gate_through_numpy(broken: bool) -> Fields:
    """Squeeze and excitation whose gate makes a detour over numpy."""

    class Gate(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.down = nn.Linear(channels, channels // 4)
            self.up = nn.Linear(channels // 4, channels)

        def forward(self, x: Tensor) -> Tensor:
            gate = self.up(F.relu(self.down(x.mean((2, 3)))))
            if broken:
                gate = torch.from_numpy(gate.detach().cpu().numpy())
            return x * torch.sigmoid(gate)[:, :, None, None]

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), Gate(16), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 4),
        )  # fmt: skip

    return case(model, batch=pictures)


@twins("cut_gradient", "non_differentiable")
def codebook_without_straight_through(broken: bool) -> Fields:
    """A VQ autoencoder that looks its code up by the nearest neighbour, and forgets to pass the gradient on."""

    class Vq(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8))
            self.codes = nn.Embedding(16, 8)
            self.decoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 20))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.encoder(x)
            q = self.codes(torch.cdist(z, self.codes.weight).argmin(1))
            commitment = F.mse_loss(q, z.detach()) + (0.0 if broken else 0.25 * F.mse_loss(z, q.detach()))
            return self.decoder(q if broken else z + (q - z).detach()), commitment

    def loss(outputs: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return F.mse_loss(outputs[0], y) + outputs[1]

    return case(Vq, batch=lambda: (rows()[0], rows()[0]), loss=loss)


@twins("head_without_loss")
def auxiliary_classifier_left_out(broken: bool) -> Fields:
    """An inception-like net with an auxiliary classifier; the loop takes the first output only."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU())
            self.high = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
            self.auxiliary = nn.Linear(12, 4)
            self.classifier = nn.Linear(12, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            low = self.low(x)
            return self.classifier(self.high(low).mean((2, 3))), self.auxiliary(low.mean((2, 3)))

    def loss(outputs: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return CE(outputs[0], y) + (0.0 if broken else 0.3 * CE(outputs[1], y))

    return case(Net, batch=pictures, loss=loss)


@twins("unused_parameters", "cut_gradient")
def residual_scale_as_a_buffer(broken: bool) -> Fields:
    """ReZero whose scale is a buffer, so that the branch stays off for ever."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 24))
            if broken:
                self.register_buffer("scale", torch.zeros(1))
            else:
                self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.scale * self.branch(x)

    return case(lambda: nn.Sequential(nn.Linear(20, 24), nn.ReLU(), Block(), Block(), nn.Linear(24, 5)))


@twins("cut_gradient", "non_differentiable")
def sampled_without_reparametrisation(broken: bool) -> Fields:
    """A noisy autoencoder that draws its code with sample() in place of rsample()."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(20, 6)
            self.decoder = nn.Linear(6, 20)

        def forward(self, x: Tensor) -> Tensor:
            code = torch.distributions.Normal(self.encoder(x), 0.1)
            if not self.training:
                return self.decoder(code.mean.detach() if broken else code.mean)
            return self.decoder(code.sample() if broken else code.rsample())

    return case(Noisy, batch=lambda: (rows()[0], rows()[0]), loss=F.mse_loss)


@twins("cut_gradient", "non_differentiable")
def learned_thresholds(broken: bool) -> Fields:
    """A soft tree whose splits are hard comparisons."""

    class Tree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.splits = nn.Linear(20, 16)
            self.leaves = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.splits(x)
            return self.leaves((scores > 0).float() if broken else torch.sigmoid(scores))

    return case(Tree)


@twins("unregistered_parameters", "optimizer_wrong_params")
def experts_in_a_dict(broken: bool) -> Fields:
    """One head for each of two groups of features, kept in a plain dict."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            towers = {"left": nn.Linear(10, 16), "right": nn.Linear(10, 16)}
            self.towers: Any = towers if broken else nn.ModuleDict(towers)
            self.head = nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            parts = [self.towers["left"](x[:, :10]), self.towers["right"](x[:, 10:])]
            return self.head(F.relu(torch.cat(parts, 1)))

    return case(Net)


@twins("unregistered_parameters", "optimizer_wrong_params")
def class_token_as_a_tensor(broken: bool) -> Fields:
    """A small ViT whose positions are a tensor with requires_grad, no parameter."""

    class Vit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 4, stride=4)
            self.token = nn.Parameter(torch.zeros(1, 1, 16))
            places = torch.randn(1, 10, 16) * 0.02
            self.places = places.requires_grad_() if broken else nn.Parameter(places)
            self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            seen = self.patches(x).flatten(2).transpose(1, 2)
            seen = torch.cat([self.token.expand(len(x), -1, -1), seen], 1) + self.places
            return self.head(self.block(seen)[:, 0])

    return case(Vit, batch=pictures)


@twins("cut_gradient")
def output_of_a_layer_wrapped_anew(broken: bool) -> Fields:
    """torch.tensor(...) around hidden values makes a new leaf."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(20, 32)
            self.second = nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.first(x))
            if broken:
                hidden = torch.tensor(hidden.tolist())
            return self.second(hidden)

    return case(Net)


# ---------------------------------------------------------------- optimizers


class Generator(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 20))


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = Generator()
        self.critic = nn.Sequential(nn.Linear(20, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x)


def gan_step(model: Any, critics: Any, generators: Any) -> Any:
    noise = torch.randn(16, 4, generator=generator(5))
    bce = F.binary_cross_entropy_with_logits

    def step(x: Tensor, y: Any) -> Tensor:
        fake = model.generator(noise)
        real_score, fake_score = model.critic(x), model.critic(fake.detach())
        loss = bce(real_score, torch.ones_like(real_score)) + bce(fake_score, torch.zeros_like(fake_score))
        critics.zero_grad()
        loss.backward()
        critics.step()
        generators.zero_grad()
        score = model.critic(model.generator(noise))
        bce(score, torch.ones_like(score)).backward()
        generators.step()
        return loss.detach()

    return step


@twins("optimizer_wrong_params", "parameter_twice")
def both_optimizers_hold_the_generator(broken: bool) -> Fields:
    """A GAN whose critic's optimizer was copied from the generator's line."""

    def make(model: Any) -> Any:
        critics = torch.optim.Adam((model.generator if broken else model.critic).parameters(), lr=2e-3)
        return gan_step(model, critics, torch.optim.Adam(model.generator.parameters(), lr=2e-3))

    return stepping(make, model=Gan)


@twins("optimizer_wrong_params")
def group_without_decay_forgotten(broken: bool) -> Fields:
    """Weights with decay and biases and norms without: the second group is built and not handed over."""

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(20, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 5))

    def make(net: nn.Module) -> Any:
        heavy = [p for p in net.parameters() if p.ndim > 1]
        light = [p for p in net.parameters() if p.ndim <= 1]
        groups = [{"params": heavy, "weight_decay": 0.01}, {"params": light, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups[: 1 if broken else 2], lr=1e-2)
        return plain_step(net, optimizer)

    return stepping(make, model=model)


def plain_step(net: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Any = CE) -> Any:
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


@twins("optimizer_wrong_params")
def head_replaced_after_the_optimizer(broken: bool) -> Fields:
    """Fine-tuning: the head is replaced when the optimizer is already made."""

    def make(net: Any) -> Any:
        if broken:
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
            net.head = nn.Linear(32, 5)
        else:
            net.head = nn.Linear(32, 5)
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        return plain_step(net, optimizer)

    return stepping(make)


@twins("lr_zero", "schedule_kills_rate", "update_skipped")
def warm_up_by_whole_numbers(broken: bool) -> Fields:
    """LambdaLR with // in place of /: the factor is 0 during the warm-up."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        factor = (lambda i: min(1, (i + 1) // 100)) if broken else (lambda i: min(1.0, (i + 1) / 100))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        once = plain_step(net, optimizer)

        def step(x: Tensor, y: Tensor) -> Tensor:
            loss: Tensor = once(x, y)
            schedule.step()
            return loss

        return step

    return stepping(make)


@twins("not_frozen")
def biases_of_a_frozen_encoder(broken: bool) -> Fields:
    """The loop that freezes asks for "weight" in the name."""

    def model() -> nn.Module:
        net = Mlp()
        for name, parameter in net.body.named_parameters():
            if not broken or "weight" in name:
                parameter.requires_grad_(False)
        return net

    return case(model, frozen=("body.*",))


@twins("not_frozen")
def frozen_encoder_follows_the_batch(broken: bool) -> Fields:
    """Parameters are frozen, the BatchNorm between them is not in evaluation mode."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
            self.encoder.requires_grad_(False)
            self.head = nn.Linear(32, 4)

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            if not broken:
                self.encoder.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(x).flatten(1))

    return case(Net, batch=pictures, frozen=("encoder.*",))


@twins("not_frozen")
def masked_gradient_with_decay(broken: bool) -> Fields:
    """Gradients of the embedding are set to 0 by a hook; AdamW's decay shrinks it all the same."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(30, 16)
            self.gru = nn.GRU(16, 16, batch_first=True)
            self.head = nn.Linear(16, 3)
            if broken:
                self.words.weight.register_hook(torch.zeros_like)
            else:
                self.words.weight.requires_grad_(False)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.gru(self.words(ids))[0][:, -1])

    return case(
        Net,
        batch=lambda: (tokens(count=16), rows(classes=3)[1]),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1),
        frozen=("words.weight",),
    )


@twins("update_skipped")
def counter_reset_in_every_call(broken: bool) -> Fields:
    """Accumulation over four calls whose counter starts at 0 in each call."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        calls = 0

        def step(x: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls = 1 if broken else calls + 1
            loss = CE(net(x), y)
            (loss / 4).backward()
            if calls % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
            return loss.detach()

        return step

    return stepping(make)


@twins("optimizer_wrong_params")
def learned_loss_weights_not_trained(broken: bool) -> Fields:
    """Two tasks weighted by learned log-variances, which stand in a loss module that no optimizer knows."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
            self.log_variance = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    def make(model: Any) -> Any:
        optimizer = torch.optim.Adam((model.net if broken else model).parameters(), lr=1e-2)

        def loss_of(outputs: Tensor, y: Tensor) -> Tensor:
            errors = (outputs - y).square().mean(0)
            return (errors * torch.exp(-model.log_variance) + model.log_variance).sum()

        return plain_step(model, optimizer, loss_of)

    return stepping(make, model=Weighted, batch=lambda: values(outputs=2))
