"""Healthy torch programs that look as if something were cut off, unused or mixed."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, Mlp, adam, case, pictures, rows, series, tokens
from tests.programs.wiring.torch_data import Masked, causal, language, padded

PROGRAMS = Corpus()
healthy = PROGRAMS.healthy()

# ---------------------------------------------------------------- gradients


@healthy
def layers_dropped_at_random() -> Fields:
    """LayerDrop on four blocks, half of the time."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(20, 32), nn.Linear(32, 5)
            self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)
            for each in self.blocks:
                if not self.training or torch.rand(()) > 0.5:
                    h = h + 0.5 * F.relu(each(h))
            return self.head(h)

    return case(Model)


class Experts(nn.Module):
    """The best expert of eight by row, weighed by its share."""

    def __init__(self, dense: bool, capacity: int = ROWS) -> None:
        super().__init__()
        self.router, self.dense, self.capacity = nn.Linear(20, 8), dense, capacity
        self.experts, self.head = nn.ModuleList(nn.Linear(20, 16) for _ in range(8)), nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        best, which = self.router(x).softmax(-1).max(-1)
        h = x.new_zeros(len(x), 16)
        for number, each in enumerate(self.experts):
            mine = which == number
            if self.dense:
                h = h + each(x) * (best * mine)[:, None]
            elif mine.any():
                places = mine.nonzero()[: self.capacity, 0]
                h = h.index_add(0, places, each(x[places]) * best[places, None])
        return self.head(torch.cat([F.relu(h), x], 1))


@healthy
def idle_experts_dense() -> Fields:
    """Experts that no row chose get exact zeros."""
    return case(lambda: Experts(dense=True))


@healthy
def idle_experts_sparse() -> Fields:
    """Experts that no row chose are not called."""
    return case(lambda: Experts(dense=False))


@healthy
def experts_of_limited_capacity() -> Fields:
    """Rows beyond an expert's capacity go by it, so rows compete for places."""
    return case(lambda: Experts(dense=False, capacity=2))


@healthy
def gates_of_zero() -> Fields:
    """Three residual blocks, one inside the other, whose gates start at 0."""

    class Gated(nn.Module):
        def __init__(self, inner: nn.Module | None) -> None:
            super().__init__()
            self.a, self.b, self.gate = nn.Linear(32, 32), nn.Linear(32, 32), nn.Parameter(torch.zeros(1))
            self.inner = inner

        def forward(self, h: Tensor) -> Any:
            more = self.b(F.relu(self.a(h)))
            return h + self.gate * (more if self.inner is None else self.inner(more))

    return case(lambda: nn.Sequential(nn.Linear(20, 32), Gated(Gated(Gated(None))), nn.Linear(32, 5)))


@healthy
def branch_that_ends_in_zeros() -> Fields:
    """Five layers in a branch, the last of which starts at 0, under a head of zeros."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(*(nn.Linear(32, 32) for _ in range(5)))
            for each in (self.branch[-1], self.head):
                nn.init.zeros_(each.weight)
                nn.init.zeros_(each.bias)

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            return self.head(h + self.branch(h))

    return case(Model)


@healthy
def layer_scale_of_next_to_nothing() -> Fields:
    """Branches scaled by 1e-30 at the start."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.scale = nn.Linear(32, 32), nn.Parameter(torch.full((32,), 1e-30))

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            return self.head(h + self.scale * F.relu(self.branch(h)))

    return case(Model)


@healthy
def lora() -> Fields:
    """B starts at 0, so that A gets its first gradient after an update."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = nn.Linear(20, 32).requires_grad_(False), nn.Linear(32, 5)
            self.a, self.b = nn.Linear(20, 4, bias=False), nn.Linear(4, 32, bias=False)
            nn.init.zeros_(self.b.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.base(x) + self.b(self.a(x))))

    return case(Model)


@healthy
def sparse_embeddings() -> Fields:
    """SparseAdam for the embedding, of which most rows are not in the batch, and Adam for the rest."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.EmbeddingBag(500, 16, sparse=True), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.words(x))

    def make(model: Any) -> Any:
        optimizers = [torch.optim.SparseAdam(list(model.words.parameters()), lr=1e-2), adam(model.head.parameters())]

        def step(x: Any, y: Any) -> Any:
            for each in optimizers:
                each.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            for each in optimizers:
                each.step()
            return loss

        return step

    from tests.programs.wiring.torch_base import stepping

    return stepping(make, model=Model, batch=lambda: (tokens(count=ROWS), rows(classes=4)[1]))


@healthy
def sparse_adam_alone() -> Fields:
    """Factors with sparse gradients."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Embedding(50, 8, sparse=True), nn.Embedding(50, 8, sparse=True)

        def forward(self, x: Tensor) -> Tensor:
            return (self.a(x[:, 0]) * self.b(x[:, 1])).sum(1)

    x = torch.randint(0, 50, (ROWS, 2), generator=generator(3))
    y = torch.randn(ROWS, generator=generator(4))
    optimizer = lambda p: torch.optim.SparseAdam(list(p), lr=1e-2)  # noqa: E731
    return case(Model, batch=lambda: (x, y), loss=F.mse_loss, optimizer=optimizer)


@healthy
def tied_weights() -> Fields:
    """Embedding and output layer are one."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.rnn = nn.Embedding(30, 32), nn.GRU(32, 32, batch_first=True)
            self.head = nn.Linear(32, 30, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x: Tensor) -> Any:
            return self.head(self.rnn(self.words(x))[0])

    return language(None, model=Model)


@healthy
def frozen_teacher() -> Fields:
    """Distillation in the loss's own outputs."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = Mlp(), Mlp(units=64).requires_grad_(False)

        def forward(self, x: Tensor) -> Any:
            with torch.no_grad():
                taught = self.teacher(x)
            return self.student(x), taught

    def loss(o: Any, y: Tensor) -> Tensor:
        soft = F.kl_div(o[0].log_softmax(-1), o[1].softmax(-1), reduction="batchmean")
        return 0.9 * CE(o[0], y) + 0.1 * soft

    return case(Model, loss=loss)


@healthy
def pooler_that_no_head_uses() -> Fields:
    """A body that comes with a pooler, and a head that reads the tokens."""

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(30, 16)
            self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
            self.pooler = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Any:
            h = self.layer(self.words(x))
            return h, self.pooler(h[:, 0]).tanh()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = Body(), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x)[0].mean(1))

    return case(Model, batch=lambda: (tokens(count=ROWS), rows(classes=4)[1]))


@healthy
def biases_of_keys() -> Fields:
    """A softmax over keys cancels what is added to all of them."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            weights = (self.q(x) @ self.k(x).transpose(1, 2) / 3).softmax(-1)
            return self.head((weights @ self.v(x)).mean(1))

    return case(Model, batch=series)


@healthy
def mask_token() -> Fields:
    """A learnt vector for masked places, of which this batch has none."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.net = nn.Parameter(torch.randn(8)), nn.Linear(8, 16)
            self.head = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.where(x.isnan(), self.token, x)
            return self.head(F.gelu(self.net(x)).mean(1))

    return case(Model, batch=series)


@healthy
def prelu_behind_softplus() -> Fields:
    """PReLU's slope is for values below 0, and there are none."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(20, 32), nn.Softplus(), nn.PReLU(), nn.Linear(32, 5))

        def forward(self, x: Tensor) -> Any:
            return self.net(x)

    return case(Model)


@healthy
def bias_before_batch_norm() -> Fields:
    """What the bias adds the norm takes away: gradients of 1e-8."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
            )
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.net(x).mean((2, 3)))

    return case(Model, batch=pictures, optimizer=lambda p: torch.optim.SGD(p, lr=0.05))


@healthy
def weights_in_bfloat16() -> Fields:
    """A rate of 1e-5, which moves few of the weights at all."""

    def model() -> nn.Module:
        class Model(Mlp):
            def forward(self, x: Tensor) -> Any:
                return super().forward(x.bfloat16()).float()

        return Model(units=256).bfloat16()

    return case(model, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-5))


@healthy
def straight_through_codes() -> Fields:
    """Vectors replaced by the nearest of a codebook; codes that no row chose get nothing."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.codes, self.decode = nn.Linear(20, 8), nn.Embedding(16, 8), nn.Linear(8, 20)
            nn.init.normal_(self.codes.weight, std=0.3)

        def forward(self, x: Tensor) -> Any:
            h = self.encode(x)
            code = self.codes(torch.cdist(h, self.codes.weight).argmin(1))
            return self.decode(h + (code - h).detach()), h, code

    def loss(o: Any, y: Tensor) -> Tensor:
        out, h, code = o
        return F.mse_loss(out, y) + F.mse_loss(code, h.detach()) + 0.25 * F.mse_loss(h, code.detach())

    x = rows()[0]
    return case(Model, batch=lambda: (x, x), loss=loss)


@healthy
def siamese_with_stopped_gradient() -> Fields:
    """SimSiam: each view predicts the other one, which is detached."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16))
            self.predict = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))

        def forward(self, a: Tensor, b: Tensor) -> Any:
            a, b = self.encode(a), self.encode(b)
            return self.predict(a), self.predict(b), a.detach(), b.detach()

    def loss(o: Any, y: Any) -> Tensor:
        return -(F.cosine_similarity(o[0], o[3]).mean() + F.cosine_similarity(o[1], o[2]).mean()) / 2

    x = rows()[0]
    views = (x + 0.1 * torch.randn(x.shape, generator=generator(1)), x)
    return case(Model, batch=lambda: (views, rows()[1]), loss=loss)


@healthy
def reversed_gradient() -> Fields:
    """Domain-adversarial features: a hand-written backward pass that turns the sign on purpose."""

    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            return -gradient

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.domain = nn.Linear(32, 2)

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            return self.head(h), self.domain(Reverse.apply(h))

    loss = lambda o, y: CE(o[0], y) + CE(o[1], y % 2)  # noqa: E731
    return case(Model, loss=loss)


@healthy
def dropout_everywhere() -> Fields:
    """Half of everything is dropped in training."""

    def model() -> nn.Module:
        parts = [nn.Dropout(0.2)]
        for inputs, outputs in ((20, 64), (64, 64)):
            parts += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(0.5)]
        return nn.Sequential(*parts, nn.Linear(64, 5))

    return case(model)


# ------------------------------------------------------------ rows and inputs


@healthy
def batch_norm_in_training() -> Fields:
    net = lambda: nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))  # noqa: E731
    return case(net)


@healthy
def rows_that_belong_together() -> Fields:
    """A set: attention over the rows of a batch, declared."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.attention = nn.Linear(20, 16), nn.MultiheadAttention(16, 2)
            self.head = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)[:, None]
            return self.head((h + self.attention(h, h, h)[0])[:, 0])

    return case(Model, options={"overfit_batch": {"rows_interact": True}})


@healthy
def contrast_within_the_batch() -> Fields:
    """InfoNCE over a table of all pairs."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return F.normalize(self.net(a)) @ F.normalize(self.net(b)).T / 0.2

    x = rows()[0]
    views = (x, x + 0.2 * torch.randn(x.shape, generator=generator(2)))
    return case(Model, batch=lambda: (views, torch.arange(ROWS)))


@healthy
def quantised_activations() -> Fields:
    """Eight bits with one scale for the batch: a row's largest value changes how the others are rounded."""

    class Model(Mlp):
        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            scale = h.detach().abs().max().clamp(min=1e-8) / 127
            return self.head(h + ((h / scale).round() * scale - h).detach())

    return case(Model)


@healthy
def strides_that_leave_a_border() -> Fields:
    """12 pixels by steps of 5: the last ones are over."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 16, 5, stride=5), nn.Linear(64, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.conv(x)).flatten(1))

    return case(Model, batch=pictures)


@healthy
def cells_of_a_maximum() -> Fields:
    """Max-pooling over points: what is never the largest moves nothing."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.point, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.point(x).amax(1))

    return case(Model, batch=lambda: series(steps=40))


@healthy
def constant_columns() -> Fields:
    x, y = rows()
    x = torch.cat([x, torch.ones(ROWS, 15), torch.zeros(ROWS, 15)], 1)
    return case(lambda: Mlp(inputs=50), batch=lambda: (x, y))


@healthy
def recurrence_over_padding() -> Fields:
    """A GRU whose last real state is read; the padding behind it is never packed away."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.rnn = nn.Embedding(30, 16), nn.GRU(16, 16, batch_first=True)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            last = (x != 0).sum(1) - 1
            return self.head(self.rnn(self.words(x))[0][torch.arange(len(x)), last])

    (x, y) = padded()
    return case(Model, batch=lambda: (x["input_ids"], y))


@healthy
def recurrence_to_the_end_of_padding() -> Fields:
    """The last state, after padding: sloppy, but everybody's first model."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.rnn = nn.Embedding(30, 16, padding_idx=0), nn.LSTM(16, 16, batch_first=True)
            self.head = nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.words(x))[0][:, -1])

    (x, y) = padded()
    return case(Model, batch=lambda: (x["input_ids"], y))


@healthy
def mask_of_minus_infinity() -> Fields:
    """A buffer that holds -inf, and a bias of attention from it."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((10, 10), -math.inf).triu(1))
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x, x, x, attn_mask=self.mask)[0].mean(1))

    return case(Model, batch=series)


@healthy
def one_argument_of_no_use_in_evaluation() -> Fields:
    """A mask of ones: there is no padding in this batch."""
    (x, y) = padded()
    x = {"input_ids": tokens(count=ROWS, length=10), "attention_mask": torch.ones(ROWS, 10, dtype=torch.long)}
    return case(Masked, batch=lambda: (x, y))


# ----------------------------------------------------------------- sequences


@healthy
def tagging_in_both_directions() -> Fields:
    """A tag a token, by all tokens."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(30, 16), nn.Linear(32, 5)
            self.rnn = nn.GRU(16, 16, batch_first=True, bidirectional=True)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.rnn(self.words(x))[0])

    return language(None, model=Model, batch=lambda: (tokens(), tokens() % 5))


@healthy
def masked_language_model() -> Fields:
    """Targets are the tokens themselves where they were masked, and -100 elsewhere."""
    ids = tokens()
    hidden = torch.rand(ids.shape, generator=generator(6)) < 0.3
    batch = (ids.masked_fill(hidden, 0), ids.masked_fill(~hidden, -100))
    return language(None, batch=lambda: batch)


@healthy
def copying_autoencoder() -> Fields:
    """A bidirectional denoiser whose targets are its inputs."""
    return language(None, batch=lambda: (tokens(), tokens()))


@healthy
def prefix_language_model() -> Fields:
    """Four places see each other, the rest reads from left to right; the prefix is no target."""
    mask = causal()
    mask[:4, :4] = False
    ids = tokens()
    target = ids[:, 1:].clone()
    target[:, :4] = -100
    return language(mask, batch=lambda: (ids[:, :-1], target))


@healthy
def model_that_shifts_by_itself() -> Fields:
    """Inputs are the targets, and the loss shifts them, as in transformers."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return CE(o[:, :-1].flatten(0, 1), y[:, 1:].flatten())

    return language(causal(), batch=lambda: (tokens(), tokens()), loss=loss)
