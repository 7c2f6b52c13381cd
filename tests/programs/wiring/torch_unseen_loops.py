"""Healthy torch programs written without a look at the rules: loops of their own."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, Mlp, case, rows, stepping, tokens, values
from tests.programs.wiring.torch_unseen_parts import Gan, gan_step, plain_step
from tests.programs.wiring.torch_unseen_steps import Then, coins, same

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy()


@healthy
def adversaries() -> Fields:
    def make(model: Any) -> Any:
        critics = torch.optim.Adam(model.critic.parameters(), lr=2e-3, betas=(0.5, 0.999))
        return gan_step(model, critics, torch.optim.Adam(model.generator.parameters(), lr=2e-3, betas=(0.5, 0.999)))

    return stepping(make, model=Gan)


@healthy
def wasserstein_with_three_critic_steps() -> Fields:
    """Three updates of the critic with a gradient penalty, one of the generator."""

    def make(model: Any) -> Any:
        critics = torch.optim.Adam(model.critic.parameters(), lr=1e-3)
        generators = torch.optim.Adam(model.generator.parameters(), lr=1e-3)

        def step(x: Tensor, y: Any) -> Tensor:
            loss = torch.zeros(())
            for _ in range(3):
                fake = model.generator(torch.randn(len(x), 4)).detach()
                between = (x + torch.rand(len(x), 1) * (fake - x)).requires_grad_()
                (slope,) = torch.autograd.grad(model.critic(between).sum(), between, create_graph=True)
                penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
                loss = model.critic(fake).mean() - model.critic(x).mean() + 10 * penalty
                critics.zero_grad()
                loss.backward()
                critics.step()
            generators.zero_grad()
            (-model.critic(model.generator(torch.randn(len(x), 4))).mean()).backward()
            generators.step()
            return loss.detach()

        return step

    return stepping(make, model=Gan)


class Taught(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.student = Mlp()
        self.teacher = Mlp(units=48).requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.student(x)


@healthy
def distilled_from_a_teacher() -> Fields:
    def make(model: Any) -> Any:
        optimizer = torch.optim.Adam(model.student.parameters(), lr=1e-2)

        def step(x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                soft = (model.teacher(x) / 2).softmax(1)
            scores = model.student(x)
            loss = 0.5 * CE(scores, y) + 2 * F.kl_div((scores / 2).log_softmax(1), soft, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make, model=Taught, frozen=("teacher.*",))


@healthy
def teacher_that_follows() -> Fields:
    """Mean teacher: an average of the student, consistent predictions under noise."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = Mlp()
            self.teacher = copy.deepcopy(self.student).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.student(x)

    def make(model: Any) -> Any:
        optimizer = torch.optim.Adam(model.student.parameters(), lr=5e-3)

        def step(x: Tensor, y: Tensor) -> Tensor:
            with torch.no_grad():
                wanted = model.teacher(x + 0.1 * torch.randn_like(x)).softmax(1)
            scores = model.student(x + 0.1 * torch.randn_like(x))
            loss = CE(scores, y) + F.mse_loss(scores.softmax(1), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for t, s in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
                    t.lerp_(s, 0.01)
            return loss.detach()

        return step

    return stepping(make, model=Pair)


@healthy
def averaged_model_beside() -> Fields:
    def make(net: nn.Module) -> Any:
        once = plain_step(net, torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9))
        average = torch.optim.swa_utils.AveragedModel(net)

        def step(x: Tensor, y: Tensor) -> Tensor:
            loss: Tensor = once(x, y)
            average.update_parameters(net)
            return loss

        return step

    return stepping(make)


@healthy
def four_calls_an_update() -> Fields:
    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        calls = 0

        def step(x: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            loss = CE(net(x), y)
            (loss / 4).backward()
            if calls % 4 == 0:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        return step

    return stepping(make)


@healthy
def parts_of_unequal_size() -> Fields:
    """Five micro-batches of sixteen rows, each weighted by its share."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            total = torch.zeros(())
            for a, b in zip(x.split(3), y.split(3), strict=True):
                loss = CE(net(a), b) * len(a) / len(x)
                loss.backward()
                total = total + loss.detach()
            optimizer.step()
            return total

        return step

    return stepping(make)


@healthy
def half_precision_with_a_scaler() -> Fields:
    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
        scaler = torch.amp.GradScaler("cpu")

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = CE(net(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            return loss.detach()

        return step

    return stepping(make)


@healthy
def one_cycle_with_clipping() -> Fields:
    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=5000)

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = CE(net(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            return loss.detach()

        return step

    return stepping(make)


@healthy
def sparse_words_and_dense_rest() -> Fields:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.EmbeddingBag(30, 16, sparse=True)
            self.head = nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.words(ids))

    def make(net: Any) -> Any:
        sparse = torch.optim.SparseAdam(list(net.words.parameters()), lr=1e-2)
        dense = torch.optim.Adam(net.head.parameters(), lr=1e-2)

        def step(x: Tensor, y: Tensor) -> Tensor:
            sparse.zero_grad()
            dense.zero_grad()
            loss = CE(net(x), y)
            loss.backward()
            sparse.step()
            dense.step()
            return loss.detach()

        return step

    return stepping(make, model=Net, batch=lambda: (tokens(count=16), rows(classes=3)[1]))


@healthy
def second_order_by_closure() -> Fields:
    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")

        def step(x: Tensor, y: Tensor) -> Any:
            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = F.mse_loss(net(x), y)
                loss.backward()
                return loss

            return torch.as_tensor(optimizer.step(closure))

        return step

    return stepping(make, model=lambda: Then(1, same), batch=values)


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8))
        self.decoder = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 20))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        return self.decoder(z), mean, log_variance


@healthy
def variational_with_sums() -> Fields:
    def loss(outputs: tuple[Tensor, Tensor, Tensor], y: Tensor) -> Tensor:
        seen, mean, log_variance = outputs
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        return ((seen - y).square().sum(1) + divergence).mean()

    return case(Vae, batch=lambda: (rows()[0], rows()[0]), loss=loss)


@healthy
def noise_predicted() -> Fields:
    """Diffusion: noise at a random time is guessed."""

    class Denoiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Embedding(50, 16)
            self.first, self.second, self.head = nn.Linear(20, 48), nn.Linear(16, 48), nn.Linear(48, 20)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.head(F.silu(self.first(x) + self.second(self.time(t))))

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        kept = torch.linspace(0.99, 0.05, 50)

        def step(x: Tensor, y: Any) -> Tensor:
            t = torch.randint(0, 50, (len(x),))
            noise = torch.randn_like(x)
            share = kept[t][:, None]
            loss = F.mse_loss(net(share.sqrt() * x + (1 - share).sqrt() * noise, t), noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make, model=Denoiser)


@healthy
def straight_through_choices() -> Fields:
    class Gumbel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.choose, self.codes, self.head = nn.Linear(20, 8), nn.Linear(8, 16, bias=False), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.choose(x)
            if self.training:
                chosen = F.gumbel_softmax(scores, 1.0, hard=True)
            else:
                chosen = F.one_hot(scores.argmax(1), 8).float()
            return self.head(self.codes(chosen))

    return case(Gumbel)


@healthy
def domains_made_alike() -> Fields:
    """Gradient reversal in front of the classifier of domains."""

    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
            return -0.1 * slope

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
            self.classes, self.domains = nn.Linear(32, 5), nn.Linear(32, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            seen = self.features(x)
            return self.classes(seen), self.domains(Reverse.apply(seen))

    domain = torch.arange(ROWS) % 2
    x, y = rows()
    return case(Net, batch=lambda: (x, (y, domain)), loss=lambda o, y: CE(o[0], y[0]) + CE(o[1], y[1]))


@healthy
def rewards_of_a_policy() -> Fields:
    """REINFORCE with a baseline."""

    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(20, 32), nn.Tanh())
            self.policy, self.value = nn.Linear(32, 5), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            seen = self.body(x)
            return self.policy(seen), self.value(seen)[:, 0]

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)

        def step(x: Tensor, y: Tensor) -> Tensor:
            scores, value = net(x)
            policy = torch.distributions.Categorical(logits=scores)
            action = policy.sample()
            reward = (action == y).float()
            gain = reward - value.detach()
            loss = -(policy.log_prob(action) * gain).mean() + F.mse_loss(value, reward) - 0.01 * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make, model=Agent)


@healthy
def values_with_a_target_net() -> Fields:
    """Double Q learning on random transitions."""

    class Dqn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online = Mlp(outputs=3)
            self.target = copy.deepcopy(self.online).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.online(x)

    after = torch.randn(ROWS, 20, generator=generator(12))
    action = torch.randint(0, 3, (ROWS, 1), generator=generator(13))

    def make(net: Any) -> Any:
        optimizer = torch.optim.Adam(net.online.parameters(), lr=1e-3)
        calls = 0

        def step(x: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            with torch.no_grad():
                best = net.online(after).argmax(1, keepdim=True)
                wanted = y.float()[:, None] + 0.9 * net.target(after).gather(1, best)
            loss = F.smooth_l1_loss(net.online(x).gather(1, action), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if calls % 10 == 0:
                net.target.load_state_dict(net.online.state_dict())
            return loss.detach()

        return step

    return stepping(make, model=Dqn)


@healthy
def equation_in_the_loss() -> Fields:
    """A physics-informed net: second derivatives in the loss."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)

        def step(x: Tensor, y: Tensor) -> Tensor:
            x = x.clone().requires_grad_()
            u = net(x)
            (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
            loss = (ddu + u).square().mean() + (net(torch.zeros(1, 1)) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    x = torch.linspace(0, 3, 24)[:, None]
    return stepping(
        make,
        model=lambda: nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1)),
        batch=lambda: (x, torch.cos(x)),
    )


@healthy
def coupled_flow() -> Fields:
    """RealNVP: likelihood of data under an invertible net."""

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nets = nn.ModuleList(nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 20)) for _ in range(2))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            a, b = x.chunk(2, 1)
            total = torch.zeros(len(x))
            for net in self.nets:
                scale, shift = net(a).chunk(2, 1)
                scale = torch.tanh(scale)
                a, b = b * scale.exp() + shift, a
                total = total + scale.sum(1)
            return torch.cat([a, b], 1), total

    def loss(outputs: tuple[Tensor, Tensor], y: Any) -> Tensor:
        return (0.5 * outputs[0].square().sum(1) - outputs[1]).mean() / 20

    return case(Flow, batch=lambda: (rows()[0], rows()[0]), loss=loss)


@healthy
def mixed_rows() -> Fields:
    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)

        def step(x: Tensor, y: Tensor) -> Tensor:
            share = float(torch.distributions.Beta(0.4, 0.4).sample())
            order = torch.randperm(len(x))
            scores = net(share * x + (1 - share) * x[order])
            loss = share * CE(scores, y) + (1 - share) * CE(scores, y[order])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make)


@healthy
def pairs_told_apart() -> Fields:
    """A siamese net with the contrastive loss."""

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (self.net(a) - self.net(b)).norm(dim=1)

    def loss(distance: Tensor, y: Tensor) -> Tensor:
        return (y * distance.square() + (1 - y) * F.relu(1 - distance).square()).mean()

    x = (rows()[0], torch.randn(ROWS, 20, generator=generator(6)))
    return case(Twin, batch=lambda: (x, coins()[1][:, 0]), loss=loss)


@healthy
def views_contrasted() -> Fields:
    """SimCLR: two noisy views a row, the loss over the batch."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)

        def step(x: Tensor, y: Any) -> Tensor:
            a, b = (F.normalize(net(x + 0.1 * torch.randn_like(x))) for _ in range(2))
            scores = a @ b.T / 0.2
            place = torch.arange(len(x))
            loss = (CE(scores, place) + CE(scores.T, place)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make, model=lambda: Then(16, same))


@healthy
def neighbours_of_words() -> Fields:
    """Skip-gram with negative samples."""

    class SkipGram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.contexts = nn.Embedding(30, 12), nn.Embedding(30, 12)
            nn.init.zeros_(self.contexts.weight)

        def forward(self, word: Tensor, context: Tensor) -> Tensor:
            return (self.words(word)[:, None] * self.contexts(context)).sum(-1)

    word = torch.randint(0, 30, (32,), generator=generator(1))
    context = torch.randint(0, 30, (32, 5), generator=generator(2))
    y = torch.zeros(32, 5)
    y[:, 0] = 1
    return case(SkipGram, batch=lambda: ((word, context), y), loss=F.binary_cross_entropy_with_logits)


@healthy
def tasks_weighed_by_doubt() -> Fields:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
            self.classes, self.value = nn.Linear(32, 5), nn.Linear(32, 1)
            self.doubt = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            seen = self.body(x)
            return self.classes(seen), self.value(seen), self.doubt

    def loss(o: tuple[Tensor, Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
        parts = torch.stack([CE(o[0], y[0]), F.mse_loss(o[1], y[1])])
        return (parts * torch.exp(-o[2]) + o[2]).sum()

    x, y = rows()
    return case(Both, batch=lambda: (x, (y, values()[1])), loss=loss)


@healthy
def patches_hidden() -> Fields:
    """A masked autoencoder: a random half of the features is rebuilt from the rest."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)

        def step(x: Tensor, y: Any) -> Tensor:
            seen = (torch.rand_like(x) < 0.5).float()
            guess = net(x * seen)
            loss = (((guess - x).square()) * (1 - seen)).sum() / (1 - seen).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make, model=lambda: Then(20, same))
