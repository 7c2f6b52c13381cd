"""Healthy torch programs of many kinds: losses, heads, inputs and optimizers that people use."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, Mlp, adam, case, pictures, rows, series, stepping, tokens, values
from tests.programs.wiring.torch_data import padded
from tests.programs.wiring.torch_outputs import ending, yes_no

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy()

# ------------------------------------------------------------ losses and heads


@healthy
def margin_on_scaled_cosines() -> Fields:
    """ArcFace: an angle added to the true class, and cosines times 16."""

    class Model(Mlp):
        def forward(self, x: Tensor) -> Any:
            return F.linear(F.normalize(self.body(x)), F.normalize(self.head.weight)) + 0 * self.head.bias.sum()

    def loss(o: Tensor, y: Tensor) -> Tensor:
        angle = o.clamp(-1 + 1e-6, 1 - 1e-6).acos() + 0.2 * F.one_hot(y, 5)
        return CE(16 * angle.cos(), y)

    return case(Model, loss=loss)


@healthy
def distances_to_prototypes() -> Fields:
    """Scores that are never above 0."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.centres = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8)), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return -((self.body(x)[:, None] - self.centres.weight) ** 2).sum(-1) + self.centres.bias

    return case(Model)


@healthy
def pixels_of_an_autoencoder() -> Fields:
    """Sigmoid outputs for pixels of 0 and 1, under a squared error."""
    x = (rows()[0] > 0).float()
    return case(ending(torch.sigmoid, 20), batch=lambda: (x, x), loss=F.mse_loss)


@healthy
def pictures_between_minus_one_and_one() -> Fields:
    """A tanh whose ends are the targets'."""
    x = (rows()[0]).clamp(-1, 1)
    return case(ending(torch.tanh, 20), batch=lambda: (x, x), loss=F.l1_loss)


@healthy
def brier_score() -> Fields:
    """Squared error of probabilities."""
    x, y = rows()
    return case(ending(lambda o: o.softmax(-1)), batch=lambda: (x, F.one_hot(y, 5).float()), loss=F.mse_loss)


@healthy
def sigmoid_under_binary_entropy() -> Fields:
    return case(ending(torch.sigmoid, 1), batch=yes_no, loss=F.binary_cross_entropy)


@healthy
def weighted_positives() -> Fields:
    """pos_weight=50."""
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(50.0))
    batch = lambda: (rows()[0], (torch.arange(ROWS) % 8 == 3).float()[:, None])  # noqa: E731
    return case(ending(None, 1), batch=batch, loss=loss)


@healthy
def weighted_classes() -> Fields:
    return case(loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 10.0, 0.1, 1.0, 5.0])))


@healthy
def focal_loss() -> Fields:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        found = CE(o, y, reduction="none")
        return ((1 - (-found).exp()) ** 2 * found).mean()

    return case(loss=loss)


@healthy
def hinge_loss() -> Fields:
    return case(loss=nn.MultiMarginLoss())


@healthy
def soft_targets() -> Fields:
    x, y = rows()
    return case(batch=lambda: (x, 0.8 * F.one_hot(y, 5).float() + 0.04))


@healthy
def divergence_from_soft_targets() -> Fields:
    x, y = rows()
    target = 0.8 * F.one_hot(y, 5).float() + 0.04
    return case(
        ending(lambda o: o.log_softmax(-1)), batch=lambda: (x, target), loss=nn.KLDivLoss(reduction="batchmean")
    )


@healthy
def overlap_of_masks() -> Fields:
    """Dice loss of sigmoids."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        p = o.sigmoid()
        return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)

    net = lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))  # noqa: E731
    x = torch.randn(6, 3, 8, 8, generator=generator(0))
    return case(net, batch=lambda: (x, (x[:, :1] > 0).float()), loss=loss)


@healthy
def quantiles() -> Fields:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        gap, levels = y - o, torch.tensor([0.1, 0.5, 0.9])
        return torch.maximum(levels * gap, (levels - 1) * gap).mean()

    return case(ending(None, 3), batch=values, loss=loss)


@healthy
def mean_and_spread() -> Fields:
    """A likelihood that learns its variance."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return F.gaussian_nll_loss(o[:, :1], y, F.softplus(o[:, 1:]) + 1e-3)

    return case(ending(None, 2), batch=values, loss=loss)


@healthy
def rates_of_counts() -> Fields:
    """Poisson likelihood of log-rates."""
    x, y = values()
    return case(ending(None, 1), batch=lambda: (x, (3 * y.abs()).round()), loss=nn.PoissonNLLLoss())


@healthy
def prices_in_raw_units() -> Fields:
    """Targets of some 200 under Huber's loss."""
    x, y = values()
    return case(ending(None, 1), batch=lambda: (x, 200 + 50 * y), loss=F.huber_loss)


@healthy
def ordered_classes() -> Fields:
    """Cumulative links: one score and four thresholds."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 1))
            self.steps = nn.Parameter(torch.linspace(-1.5, 1.5, 4))

        def forward(self, x: Tensor) -> Any:
            return self.score(x) - self.steps

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(o, (y[:, None] > torch.arange(4)).float())

    return case(Model, loss=loss)


@healthy
def speech_without_alignment() -> Fields:
    """CTC over ten frames."""
    x = torch.randn(4, 10, 8, generator=generator(0))
    y = torch.randint(1, 5, (4, 3), generator=generator(1))
    lengths = torch.full((4,), 10), torch.full((4,), 3)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0]).log_softmax(-1)

    loss = lambda o, y: F.ctc_loss(o.transpose(0, 1), y, *lengths)  # noqa: E731
    return case(Model, batch=lambda: (x, y), loss=loss)


@healthy
def triplets() -> Fields:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8))

        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Any:
            return self.net(a), self.net(b), self.net(c)

    parts = tuple(torch.randn(ROWS, 20, generator=generator(each)) for each in range(3))
    return case(Model, batch=lambda: (parts, rows()[1]), loss=lambda o, y: F.triplet_margin_loss(*o))


@healthy
def code_that_is_drawn_in_evaluation_too() -> Fields:
    """A VAE that samples whenever it is called."""

    class Vae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Linear(20, 16), nn.Linear(8, 20)

        def forward(self, x: Tensor) -> Any:
            mean, spread = self.encode(x).chunk(2, 1)
            return self.decode(mean + torch.randn_like(mean) * (spread / 2).exp()), mean, spread

    def loss(o: Any, y: Tensor) -> Tensor:
        out, mean, spread = o
        return F.mse_loss(out, y) - 1e-3 * (1 + spread - mean**2 - spread.exp()).mean()

    x = rows()[0]
    return case(Vae, batch=lambda: (x, x), loss=loss)


@healthy
def noise_that_is_predicted() -> Fields:
    """A diffusion model: time and noise are drawn in the forward pass."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(21, 64), nn.SiLU(), nn.Linear(64, 20))

        def forward(self, x: Tensor) -> Any:
            time, noise = torch.rand(len(x), 1), torch.randn_like(x)
            mixed = (1 - time).sqrt() * x + time.sqrt() * noise
            return self.net(torch.cat([mixed, time], 1)), noise

    x = rows()[0]
    return case(Model, batch=lambda: (x, None), loss=lambda o, y: F.mse_loss(*o))


@healthy
def target_network_that_follows() -> Fields:
    """BYOL: a copy that follows slowly, without gradients, in its own step."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16))
            self.target = copy.deepcopy(self.online).requires_grad_(False)
            self.predict = nn.Linear(16, 16)

        def forward(self, a: Tensor, b: Tensor) -> Any:
            with torch.no_grad():
                wanted = self.target(b)
            return self.predict(self.online(a)), wanted

    def make(model: Any) -> Any:
        optimizer = torch.optim.Adam([*model.online.parameters(), *model.predict.parameters()], lr=1e-3)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = -F.cosine_similarity(*model(*x)).mean()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for old, new in zip(model.target.parameters(), model.online.parameters(), strict=True):
                    old.lerp_(new, 0.05)
            return loss

        return step

    x = rows()[0]
    return stepping(make, model=Model, batch=lambda: ((x + 0.1, x), rows()[1]))


# ------------------------------------------------------------ parts out of use


@healthy
def one_head_a_task() -> Fields:
    """Four tasks, of which this batch has two."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.heads = nn.Linear(20, 32), nn.ModuleList(nn.Linear(32, 5) for _ in range(4))

        def forward(self, x: Tensor, task: Tensor) -> Tensor:
            h = F.relu(self.body(x))
            return torch.stack([each(h) for each in self.heads], 1)[torch.arange(len(x)), task]

    return case(Model, batch=lambda: ((rows()[0], torch.arange(ROWS) % 2), rows()[1]))


@healthy
def places_beyond_the_sequence() -> Fields:
    """512 positions, ten steps."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Embedding(512, 8)
            self.layer, self.head = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), nn.Linear(8, 3)
            self.first = nn.Parameter(torch.zeros(1, 1, 8))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
            x = x + self.places(torch.arange(x.shape[1]))
            return self.head(self.layer(x)[:, 0])

    return case(Model, batch=series)


@healthy
def soft_prompt_on_a_frozen_body() -> Fields:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).requires_grad_(False)
            self.prompt, self.head = nn.Parameter(0.1 * torch.randn(4, 8)), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(torch.cat([self.prompt.expand(len(x), -1, -1), x], 1))[:, 0])

    return case(Model, batch=series)


@healthy
def normalised_weights() -> Fields:
    """Weight norm on one layer, spectral norm on another."""

    def model() -> nn.Module:
        first = nn.utils.parametrizations.weight_norm(nn.Linear(20, 32))
        second = nn.utils.parametrizations.spectral_norm(nn.Linear(32, 32))
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(32, 5))

    return case(model)


@healthy
def weights_made_by_a_network() -> Fields:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code, self.maker = nn.Parameter(torch.randn(4)), nn.Linear(4, 100)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.maker(self.code).view(5, 20) / 4)

    return case(Model)


@healthy
def memory_of_past_rows() -> Fields:
    """A queue of keys that grows in training alone, as in MoCo."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(20, 8), nn.Linear(20, 8).requires_grad_(False)
            self.register_buffer("queue", F.normalize(torch.randn(32, 8, generator=generator(1))))

        def forward(self, x: Tensor) -> Tensor:
            q, k = F.normalize(self.query(x)), F.normalize(self.key(x))
            scores = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.T], 1) / 0.2
            if self.training:
                self.queue: Tensor = torch.cat([k.detach(), self.queue])[:32]
            return scores

    return case(Model, batch=lambda: (rows()[0], torch.zeros(ROWS, dtype=torch.long)))


@healthy
def rows_mixed_in_training() -> Fields:
    """Hidden rows averaged with others, in training alone."""

    class Model(Mlp):
        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            if self.training:
                h = 0.9 * h + 0.1 * h[torch.randperm(len(h))]
            return self.head(h)

    return case(Model)


@healthy
def masked_autoencoder() -> Fields:
    """A share of the steps is replaced by a learnt token, in training alone, and all are rebuilt."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.head = nn.Parameter(torch.zeros(8)), nn.Linear(16, 8)
            self.rnn = nn.GRU(8, 8, batch_first=True, bidirectional=True)

        def forward(self, x: Tensor) -> Any:
            if self.training:
                hidden = torch.rand(x.shape[:2]) < 0.3
                x = torch.where(hidden[..., None], self.token, x)
            return self.head(self.rnn(x)[0])

    x = series()[0]
    return case(Model, batch=lambda: (x, x), loss=F.mse_loss)


@healthy
def taught_in_training_and_free_in_evaluation() -> Fields:
    """A decoder that reads the true words in training, and its own in evaluation."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.words = nn.GRU(8, 16, batch_first=True), nn.Embedding(10, 16)
            self.cell, self.head = nn.GRUCell(16, 16), nn.Linear(16, 10)

        def forward(self, source: Tensor, target: Tensor) -> Tensor:
            state, word = self.encode(source)[1][0], torch.zeros(len(source), dtype=torch.long)
            out = []
            for place in range(target.shape[1]):
                state = self.cell(self.words(word), state)
                out.append(self.head(state))
                word = target[:, place] if self.training else out[-1].argmax(-1)
            return torch.stack(out, 1)

    y = torch.randint(1, 10, (ROWS, 4), generator=generator(2))
    loss = lambda o, y: CE(o.flatten(0, 1), y.flatten())  # noqa: E731
    return case(Model, batch=lambda: ((series()[0], y), y), loss=loss)


# ------------------------------------------------------------------- inputs


@healthy
def digits_with_empty_borders() -> Fields:
    """Pixels at the borders are 0 in every row."""
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x[:24] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    net = lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10))  # noqa: E731
    return case(net, batch=lambda: (x, torch.tensor(y[:24])))


@healthy
def words_that_are_rare() -> Fields:
    """A bag of 300 words, most of which are in one row or none."""
    x = (torch.rand(ROWS, 300, generator=generator(3)) < 0.03).float()
    return case(lambda: Mlp(inputs=300), batch=lambda: (x, rows()[1]))


@healthy
def numbers_and_categories() -> Fields:
    """A dict of a table's columns, with one category that is the same for all."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kinds, self.net = nn.ModuleList(nn.Embedding(6, 4) for _ in range(3)), nn.Linear(24, 32)
            self.head = nn.Linear(32, 5)

        def forward(self, x: dict[str, Tensor]) -> Tensor:
            kinds = [each(x["kinds"][:, place]) for place, each in enumerate(self.kinds)]
            return self.head(F.relu(self.net(torch.cat([x["numbers"], *kinds], 1))))

    kinds = torch.randint(0, 6, (ROWS, 3), generator=generator(4))
    kinds[:, 2] = 1
    return case(Model, batch=lambda: ({"numbers": rows(12)[0], "kinds": kinds}, rows()[1]))


@healthy
def lengths_beside_the_steps() -> Fields:
    """Packed by lengths."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.rnn = nn.Embedding(30, 16), nn.LSTM(16, 16, batch_first=True)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            pack = nn.utils.rnn.pack_padded_sequence
            packed = pack(self.words(x), lengths, batch_first=True, enforce_sorted=False)
            return self.head(self.rnn(packed)[1][0][0])

    x, y = padded()
    return case(Model, batch=lambda: ((x["input_ids"], x["attention_mask"].sum(1)), y))


@healthy
def graph_of_nodes() -> Fields:
    """Nodes see their neighbours, and belong together."""
    edges = torch.randint(0, ROWS, (2, 40), generator=generator(5))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.others, self.head = nn.Linear(20, 32), nn.Linear(20, 32), nn.Linear(32, 5)

        def forward(self, nodes: Tensor) -> Tensor:
            start, end = edges
            gathered = torch.zeros(len(nodes), 32).index_add(0, end, self.others(nodes)[start])
            return self.head(F.relu(self.own(nodes) + gathered))

    return case(Model, options={"overfit_batch": {"rows_interact": True}})


@healthy
def coordinates_of_a_wave() -> Fields:
    """Sines of scaled coordinates."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(torch.sin(10 * self.b(torch.sin(10 * self.a(x)))))

    x = torch.rand(64, 2, generator=generator(6))
    return case(Model, batch=lambda: (x, (6 * x).sin().sum(1, keepdim=True)), loss=F.mse_loss, optimizer=slow)


def slow(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


@healthy
def equation_by_second_gradients() -> Fields:
    """A physics-informed net: the loss differentiates the outputs by the inputs."""

    def make(model: Any) -> Any:
        optimizer = slow(model.parameters())

        def step(x: Any, y: Any) -> Any:
            x = x.clone().requires_grad_()
            u = model(x)
            (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
            loss = ((second + x.sin()) ** 2).mean() + model(torch.zeros(1, 1)).pow(2).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    net = lambda: nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))  # noqa: E731
    x = torch.linspace(0, math.pi, 24)[:, None]
    return stepping(make, model=net, batch=lambda: (x, torch.zeros(24, 1)))


# --------------------------------------------------------------- optimizers


def optimized(make: Any, **more: Any) -> Any:
    return lambda: case(optimizer=make, **more)


for _name, _make in {
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-3),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "rprop": lambda p: torch.optim.Rprop(p),
    "averaged_sgd": lambda p: torch.optim.ASGD(p, lr=1e-2),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "adam_with_decay_in_the_gradient": lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=1e-2),
    "fine_tuning_rate": lambda p: torch.optim.AdamW(p, lr=5e-5),
    "hot_adam": lambda p: torch.optim.Adam(p, lr=0.05),
}.items():
    _program = optimized(_make)
    _program.__name__ = _name
    healthy(_program)


@healthy
def one_cycle() -> Fields:
    schedule = lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=3000)  # noqa: E731
    return case(scheduler=schedule)


@healthy
def cosine_with_restarts() -> Fields:
    """The rate comes to nothing every 50 steps, and back."""
    schedule = lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 50)  # noqa: E731
    return case(scheduler=schedule)


@healthy
def rates_by_layer() -> Fields:
    """A body ten thousand times slower than its head."""

    def optimizer(model: Any) -> torch.optim.Optimizer:
        groups = [{"params": model.body.parameters(), "lr": 1e-6}, {"params": model.head.parameters(), "lr": 1e-2}]
        return torch.optim.AdamW(groups)

    return case(optimizer=optimizer)


@healthy
def no_decay_on_biases() -> Fields:
    def optimizer(model: Any) -> torch.optim.Optimizer:
        matrices = [each for each in model.parameters() if each.ndim > 1]
        others = [each for each in model.parameters() if each.ndim < 2]
        return torch.optim.AdamW([{"params": matrices}, {"params": others, "weight_decay": 0.0}], lr=1e-3)

    return case(optimizer=optimizer)


@healthy
def autocast_to_bfloat16() -> Fields:
    return case(autocast="bfloat16")


@healthy
def residual_convolutions() -> Fields:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
            self.c, self.d = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
            nn.init.zeros_(self.d.weight)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + self.d(self.b(F.relu(self.c(self.a(x))))))

    def model() -> nn.Module:
        stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        return nn.Sequential(stem, Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    return case(model, batch=pictures)


@healthy
def points_seen_by_a_maximum() -> Fields:
    """PointNet with a learnt turn that starts at the identity: its last layer is 0."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turn, self.last = nn.Linear(3, 16), nn.Linear(16, 9)
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)
            self.point, self.head = nn.Sequential(nn.Linear(3, 32), nn.ReLU()), nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            turn = self.last(F.relu(self.turn(x)).amax(1)).view(-1, 3, 3) + torch.eye(3)
            return self.head(self.point(x @ turn).amax(1))

    x = torch.randn(ROWS, 30, 3, generator=generator(7))
    return case(Model, batch=lambda: (x, rows()[1]))


@healthy
def words_and_their_pooled_mean() -> Fields:
    """padding_idx: the row of the padding never moves."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.EmbeddingBag(30, 16, padding_idx=0, mode="mean"), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x))

    x, y = padded()
    return case(Model, batch=lambda: (x["input_ids"], y))


@healthy
def dense_next_to_tokens() -> Fields:
    """Tokens and numbers by position of the arguments."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.numbers, self.head = nn.Embedding(30, 16), nn.Linear(20, 16), nn.Linear(32, 4)

        def forward(self, words: Tensor, numbers: Tensor) -> Tensor:
            return self.head(F.relu(torch.cat([self.words(words).mean(1), self.numbers(numbers)], 1)))

    return case(Model, batch=lambda: ((tokens(count=ROWS), rows()[0]), rows(classes=4)[1]), optimizer=adam)
