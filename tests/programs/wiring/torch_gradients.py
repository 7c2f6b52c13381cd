"""Torch programs in which something that the forward pass uses gets no gradient."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, Mlp, case, pictures, rows, series, tokens

PROGRAMS = Corpus()
twins = PROGRAMS.twins

CUT = ("cut_gradient", "detached_graph", "unused_parameters", "frozen_parameters")
DISCRETE = ("cut_gradient", "non_differentiable", "detached_graph")


@twins(*CUT)
def detached_between_blocks(broken: bool) -> Fields:
    """What is left of reading features out for a plot."""

    class Model(Mlp):
        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            return self.head(h.detach() if broken else h)

    return case(Model)


@twins(*CUT)
def residual_reads_data(broken: bool) -> Fields:
    """The block is added to the stream through .data."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU())

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            more = self.block(h)
            return self.head(h + (more.data if broken else more))

    return case(Model)


@twins(*CUT)
def embedding_under_no_grad(broken: bool) -> Fields:
    """A bag of words whose embedding is computed in no_grad, as it was while it was frozen."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(30, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not broken):
                h = self.words(x).mean(1)
            return self.head(h)

    return case(Model, batch=lambda: (tokens(count=ROWS), rows(classes=4)[1]))


@twins(*CUT)
def through_numpy(broken: bool) -> Fields:
    """Standardised by numpy on the way."""

    class Model(Mlp):
        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            if broken:
                h = torch.from_numpy(h.detach().numpy() * 0.5)
            return self.head(h)

    return case(Model)


@twins(*CUT)
def temperature_by_item(broken: bool) -> Fields:
    """A learnt scale that is multiplied in as a Python number."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.5))

        def forward(self, x: Tensor) -> Any:
            return super().forward(x) * (self.scale.item() if broken else self.scale)

    return case(Model)


@twins(*DISCRETE)
def routed_by_argmax(broken: bool) -> Fields:
    """Experts are chosen by a one-hot argmax, so that the router learns nothing."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = nn.Linear(20, 3)
            self.experts = nn.ModuleList(Mlp(units=16) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            scores = self.router(x)
            gates = F.one_hot(scores.argmax(-1), 3).float() if broken else scores.softmax(-1)
            return torch.stack([each(x) for each in self.experts], 1).mul(gates[..., None]).sum(1)

    return case(Model)


@twins(*DISCRETE)
def rounded_codes(broken: bool) -> Fields:
    """Rounding in the bottleneck; the healthy one lets the gradient straight through."""

    class Model(Mlp):
        def forward(self, x: Tensor) -> Any:
            h = 4 * torch.tanh(self.body(x))
            codes = h.round()
            return self.head(codes if broken else h + (codes - h).detach())

    return case(Model)


@twins(*DISCRETE)
def hard_threshold(broken: bool) -> Fields:
    """Binary features by comparison."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(20, 32))

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            return self.head((h > 0).float() if broken else torch.sigmoid(4 * h))

    return case(Model)


@twins(*DISCRETE)
def chosen_steps_by_topk(broken: bool) -> Fields:
    """The scorer's values only pick indices; the healthy one also weighs what it picks."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.head = nn.Linear(8, 1), nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))

        def forward(self, x: Tensor) -> Tensor:
            scores = self.score(x)[..., 0]
            best, where = scores.topk(10 if not broken else 4, dim=1)
            kept = x.gather(1, where[..., None].expand(-1, -1, x.shape[-1]))
            weights = torch.ones_like(best) / best.shape[1] if broken else best.softmax(1)
            return self.head((kept * weights[..., None]).sum(1))

    return case(Model, batch=series)


@twins("cut_gradient", "unused_parameters", "zero_init", "input_ignored")
def branch_times_zero(broken: bool) -> Fields:
    """A branch weighed by a constant of 0, left from an ablation."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.side = nn.Sequential(nn.Linear(20, 32), nn.Tanh())

        def forward(self, x: Tensor) -> Any:
            return self.head(self.body(x) + (0.0 if broken else 0.5) * self.side(x))

    return case(Model)


@twins("zero_init", "cut_gradient", "vanishing_gradient")
def zeros_behind_zeros(broken: bool) -> Fields:
    """A branch whose last two layers start at 0: neither ever gets a gradient. In the healthy one the last does."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(*(nn.Linear(32, 32) for _ in range(3)))
            for each in self.branch[1:] if broken else self.branch[2:]:
                nn.init.zeros_(each.weight)
                nn.init.zeros_(each.bias)

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            return self.head(h + self.branch(h))

    return case(Model)


@twins("head_without_loss", "unused_parameters")
def second_head_without_loss(broken: bool) -> Fields:
    """Two heads, of which the loss takes one."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            return self.head(h), self.value(h)

    def loss(o: Any, y: dict[str, Tensor]) -> Tensor:
        return CE(o[0], y["label"]) + (0.0 if broken else F.mse_loss(o[1], y["value"]))

    x, y = rows()
    value = torch.randn(ROWS, 1, generator=generator(3))
    return case(Model, loss=loss, batch=lambda: (x, {"label": y, "value": value}))


@twins("head_without_loss", "unused_parameters")
def deep_supervision_forgotten(broken: bool) -> Fields:
    """A dict of outputs; the auxiliary classifier never enters the loss."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high = nn.Linear(20, 32), nn.Linear(32, 32)
            self.aux, self.main = nn.Linear(32, 5), nn.Linear(32, 5)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            low = F.relu(self.low(x))
            return {"main": self.main(F.relu(self.high(low))), "aux": self.aux(low)}

    def loss(o: dict[str, Tensor], y: Tensor) -> Tensor:
        return CE(o["main"], y) if broken else CE(o["main"], y) + 0.4 * CE(o["aux"], y)

    return case(Model, loss=loss)


@twins(*CUT)
def adapters_behind_a_checkpoint(broken: bool) -> Fields:
    """Adapters in a block that a reentrant checkpoint runs, behind a frozen embedding: no input needs a gradient."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(20, 32).requires_grad_(False)
            self.base = nn.Linear(32, 32).requires_grad_(False)
            self.down, self.up = nn.Linear(32, 8), nn.Linear(8, 32)
            self.head = nn.Linear(32, 5)

        def block(self, h: Tensor) -> Tensor:
            h = F.relu(self.base(h))
            return h + self.up(F.relu(self.down(h)))

        def forward(self, x: Tensor) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                h = checkpoint(self.block, self.stem(x), use_reentrant=broken)
            return self.head(h)

    return case(Model)


@twins(*CUT)
def first_state_detached(broken: bool) -> Fields:
    """A network for the first state of a GRU, whose result is detached like the states between chunks."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rnn, self.head = nn.Linear(8, 16), nn.GRU(8, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = torch.tanh(self.first(x.mean(1)))[None]
            if broken:
                state = state.detach()
            _, state = self.rnn(x[:, :5], state)
            out, _ = self.rnn(x[:, 5:], state)
            return self.head(out[:, -1])

    return case(Model, batch=series)


@twins(*CUT, "optimizer_wrong_params")
def attention_on_a_copied_query(broken: bool) -> Fields:
    """A learnt query that is cloned outside of the graph."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Parameter(torch.randn(1, 1, 8, generator=generator(0)))
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            query = torch.tensor(self.query.tolist()) if broken else self.query
            return self.head(self.attention(query.expand(len(x), -1, -1), x, x)[0][:, 0])

    return case(Model, batch=series)


@twins(*CUT)
def stem_frozen_by_inference(broken: bool) -> Fields:
    """A convolutional stem whose features are read with no_grad in training alone."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3))
            self.head = nn.Linear(72, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)
            return self.head((h.detach() if broken and self.training else h).flatten(1))

    return case(Model, batch=pictures)


@twins("unregistered_parameters", "optimizer_wrong_params", "cut_gradient")
def layers_in_a_list(broken: bool) -> Fields:
    """Hidden layers in a plain list, which model.parameters() does not know."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(20, 20) for _ in range(2)]
            self.hidden: Any = layers if broken else nn.ModuleList(layers)
            self.head = nn.Linear(20, 5)

        def forward(self, x: Tensor) -> Tensor:
            for each in self.hidden:
                x = F.relu(each(x))
            return self.head(x)

    return case(Model)


@twins(*CUT)
def student_on_teachers_features(broken: bool) -> Fields:
    """The projection that should follow the teacher is detached together with the teacher's features."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.project = Mlp(), nn.Linear(5, 8)
            self.teacher = nn.Linear(20, 8).requires_grad_(False)

        def forward(self, x: Tensor) -> Any:
            logits = self.student(x)
            mine = self.project(logits)
            return logits, mine.detach() if broken else mine, self.teacher(x)

    def loss(o: Any, y: Tensor) -> Tensor:
        return CE(o[0], y) + F.mse_loss(o[1], o[2])

    return case(Model, loss=loss)
