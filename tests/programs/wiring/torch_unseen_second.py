"""Torch programs of a second look, written when the first ones were cured: faults of all families with their twins."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, Mlp, case, pictures, rows, series, stepping, tokens, values
from tests.programs.wiring.torch_unseen_data import sentences, token_loss
from tests.programs.wiring.torch_unseen_parts import plain_step
from tests.programs.wiring.torch_unseen_steps import Then, coins, same

PROGRAMS = Corpus()
twins = PROGRAMS.twins


@twins("cut_gradient")
def skip_connection_only(broken: bool) -> Fields:
    """A U-net whose deep path goes through .data."""

    class Unet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.up = nn.Conv2d(16, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            low = F.relu(self.down(x))
            deep = F.interpolate(F.relu(self.deep(F.max_pool2d(low, 2))), scale_factor=2.0)
            return self.up(torch.cat([low, deep.data if broken else deep], 1))

    x = pictures()[0]
    return case(Unet, batch=lambda: (x, (x.mean(1, keepdim=True) > 0).float()), loss=F.binary_cross_entropy_with_logits)


@twins("cut_gradient", "non_differentiable")
def rounded_positions(broken: bool) -> Fields:
    """Learned offsets are rounded before they are used."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Linear(20, 20)
            self.head = nn.Linear(20, 5)

        def forward(self, x: Tensor) -> Tensor:
            shift = 3 * self.shift(x)
            return self.head(x + (shift.round() if broken else shift))

    return case(Net)


@twins("cut_gradient")
def hidden_state_detached_each_step(broken: bool) -> Fields:
    """A decoder by hand that starts from a detached summary of the encoder."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.cell, self.head = nn.LSTM(8, 16, batch_first=True), nn.GRUCell(8, 16), nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            state = self.encoder(x)[1][0][-1]
            state = state.detach() if broken else state
            out = []
            for t in range(4):
                state = self.cell(x[:, t], state)
                out.append(self.head(state))
            return torch.stack(out, 1)

    x = series()[0]
    return case(Net, batch=lambda: (x, x[:, 5:9]), loss=F.mse_loss)


@twins("head_without_loss")
def second_task_weighted_by_nothing(broken: bool) -> Fields:
    """Two tasks; the loop forgot the second."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(20, 24), nn.ReLU())
            self.kind, self.size = nn.Linear(24, 5), nn.Linear(24, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            seen = self.body(x)
            return {"kind": self.kind(seen), "size": self.size(seen)}

    def loss(o: dict[str, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
        first = CE(o["kind"], y[0])
        return first if broken else first + F.mse_loss(o["size"], y[1])

    return case(Net, batch=lambda: (rows()[0], (rows()[1], values()[1])), loss=loss)


@twins("optimizer_wrong_params")
def only_the_last_block(broken: bool) -> Fields:
    """Parameters are collected in a generator that was already walked through in part."""

    def make(net: nn.Module) -> Any:
        parameters = iter(net.parameters())
        if broken:
            total = next(parameters).numel() + next(parameters).numel()
            assert total
        return plain_step(net, torch.optim.AdamW(parameters, lr=1e-2))

    return stepping(make)


@twins("optimizer_wrong_params")
def new_tokens_after_the_optimizer(broken: bool) -> Fields:
    """The embedding is enlarged in the first call, when the optimizer holds the old one."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(20, 16), nn.Linear(16, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.words(ids).mean(1))

    def make(net: Any) -> Any:
        def enlarge() -> None:
            larger = nn.Embedding(30, 16)
            with torch.no_grad():
                larger.weight[:20] = net.words.weight
            net.words = larger

        if not broken:
            enlarge()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        if broken:
            enlarge()
        return plain_step(net, optimizer)

    x = tokens(words=20, count=16)
    return stepping(make, model=Net, batch=lambda: (x, rows(classes=3)[1]))


@twins("not_frozen")
def teacher_updated_by_all_parameters(broken: bool) -> Fields:
    """A frozen teacher whose requires_grad was set on the module as an attribute."""

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student, self.teacher = Mlp(), Mlp()
            if broken:
                self.teacher.requires_grad = False  # type: ignore[assignment]
            else:
                self.teacher.requires_grad_(False)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.student(x), self.teacher(x)

    def loss(o: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return CE(o[0], y) + F.mse_loss(o[0], o[1])

    return case(Pair, loss=loss, frozen=("teacher.*",))


@twins("lr_zero", "update_skipped")
def rate_of_zero(broken: bool) -> Fields:
    """The rate comes from a configuration as an integer division."""
    return case(optimizer=lambda p: torch.optim.SGD(p, lr=1 // 10 if broken else 1 / 10))


@twins("batch_mixing")
def attention_over_rows(broken: bool) -> Fields:
    """Scores of all rows against all, where steps against steps were meant."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k = self.q(x), self.k(x)
            if broken:
                weights = torch.einsum("ntc,mtc->nmt", q, k).softmax(1)
                seen = torch.einsum("nmt,mtc->ntc", weights, x)
            else:
                weights = torch.einsum("ntc,nsc->nts", q, k).softmax(-1)
                seen = torch.einsum("nts,nsc->ntc", weights, x)
            return self.head(seen.mean(1))

    return case(Net, batch=series)


@twins("batch_mixing")
def first_row_as_reference(broken: bool) -> Fields:
    """Differences to the first row of the batch, where the first step of each row was meant."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.gru(x - (x[:1] if broken else x[:, :1]))[1][0])

    return case(Net, batch=series)


@twins("input_unused")
def slice_that_is_too_short(broken: bool) -> Fields:
    """A convolution over the first half of a signal."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv1d(8, 12, 3, padding=1), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.transpose(1, 2)
            return self.head(F.relu(self.conv(x[..., : x.shape[-1] // 2] if broken else x)).mean(-1))

    return case(Net, batch=series)


@twins("input_unused")
def context_read_twice(broken: bool) -> Fields:
    """Question and context: cat([question, question])."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.gru, self.head = nn.Embedding(30, 12), nn.GRU(12, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, question: Tensor, context: Tensor) -> Tensor:
            both = torch.cat([question, question if broken else context], 1)
            return self.head(self.gru(self.words(both))[0].mean(1))

    x = {"question": tokens(count=16), "context": torch.randint(1, 30, (16, 9), generator=generator(4))}
    return case(Net, batch=lambda: (x, rows(classes=3)[1]))


@twins("mask_ignored", "input_unused")
def maximum_over_padding(broken: bool) -> Fields:
    """A text CNN with a maximum over all places."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.conv, self.head = nn.Embedding(30, 12), nn.Conv1d(12, 16, 1), nn.Linear(16, 3)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            seen = self.conv(self.words(ids).transpose(1, 2))
            if not broken:
                seen = seen.masked_fill(mask[:, None] == 0, -1e9)
            return self.head(seen.max(-1).values)

    return case(Net, batch=sentences)


@twins("lookahead")
def normalised_over_time(broken: bool) -> Fields:
    """A causal convolution with GroupNorm, which takes its mean over all steps."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.conv, self.head = nn.Embedding(30, 16), nn.Conv1d(16, 16, 3), nn.Linear(16, 30)
            self.norm: nn.Module = nn.GroupNorm(1, 16) if broken else nn.LayerNorm(16)

        def forward(self, ids: Tensor) -> Tensor:
            x = F.relu(self.conv(F.pad(self.words(ids).transpose(1, 2), (2, 0))))
            x = self.norm(x).transpose(1, 2) if broken else self.norm(x.transpose(1, 2))
            return self.head(x)

    ids = tokens()
    return case(Net, batch=lambda: (ids[:, :-1], ids[:, 1:]), loss=token_loss)


@twins("double_softmax", "bounded_logits")
def policy_with_softmax_head(broken: bool) -> Fields:
    """Imitation of actions in a loop of its own: Categorical(logits=...) of probabilities."""

    def loss_of(o: Tensor, y: Tensor) -> Tensor:
        return -torch.distributions.Categorical(logits=o).log_prob(y).mean()

    last = (lambda o: o.softmax(1)) if broken else same
    return stepping(
        lambda net: plain_step(net, torch.optim.Adam(net.parameters(), lr=1e-2), loss_of), model=lambda: Then(5, last)
    )


@twins("output_range")
def sigmoid_for_prices(broken: bool) -> Fields:
    """A sigmoid at the end, targets in the tens."""
    return case(
        lambda: Then(1, torch.sigmoid if broken else same),
        batch=lambda: (rows()[0], 30 + 5 * values()[1]),
        loss=F.l1_loss,
    )


@twins("relu_on_logits")
def relu_before_yes_or_no(broken: bool) -> Fields:
    """A ReLU in front of BCEWithLogitsLoss."""
    return case(lambda: Then(4, F.relu if broken else same), batch=lambda: coins(4), loss=nn.BCEWithLogitsLoss())


@twins("missing_sigmoid", missed="a hand-written loss that is none of the usual says not what it takes")
def raw_scores_under_bce_by_hand(broken: bool) -> Fields:
    """A Dice loss of raw scores."""

    def loss(p: Tensor, y: Tensor) -> Tensor:
        return 1 - 2 * (p * y).sum() / (p.sum() + y.sum() + 1e-6)

    return case(lambda: Then(6, same if broken else torch.sigmoid), batch=lambda: coins(6), loss=loss)


@twins("over_confident_start", "too_large_init")
def head_with_large_bias(broken: bool) -> Fields:
    """The last bias is drawn with deviation 50."""

    def model() -> nn.Module:
        net = Mlp()
        nn.init.normal_(net.head.bias, std=50.0 if broken else 0.05)
        return net

    return case(model)


@twins("gradient_ascent")
def maximised_by_the_optimizer(broken: bool) -> Fields:
    """maximize=True was left from another experiment."""
    return case(optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2, maximize=broken))


@twins("wrong_backward")
def clamp_with_a_slope_of_its_own(broken: bool) -> Fields:
    """A hand-written softplus whose backward forgets the incoming slope's factor of beta."""

    class Softplus(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return torch.log1p(torch.exp(3 * x))

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            return slope * torch.sigmoid(3 * x) * (1 if broken else 3)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(20, 32), nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(Softplus.apply(self.first(x)))

    return case(Net)


@twins("missing_zero_grad")
def zeroed_every_other_model(broken: bool) -> Fields:
    """zero_grad only when the counter says so, which it never does again."""

    def make(net: nn.Module) -> Any:
        optimizer, calls = torch.optim.RMSprop(net.parameters(), lr=1e-3), 0

        def step(x: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            if calls == 0 or not broken:
                optimizer.zero_grad()
            calls += 1
            loss = CE(net(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make)


@twins("accumulation_not_divided")
def two_halves_added(broken: bool) -> Fields:
    """A batch in two halves, both means added in one backward pass each."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

        def step(x: Tensor, y: Tensor) -> float:
            optimizer.zero_grad()
            losses = []
            for part in (slice(0, ROWS // 2), slice(ROWS // 2, None)):
                loss = CE(net(x[part]), y[part])
                (loss if broken else loss / 2).backward()
                losses.append(float(loss.detach()))
            optimizer.step()
            return sum(losses) / 2

        return step

    return stepping(make)


@twins("updated_twice")
def step_in_a_helper_too(broken: bool) -> Fields:
    """A helper for clipping steps as well."""

    def make(net: nn.Module) -> Any:
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)

        def clipped() -> None:
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            if broken:
                optimizer.step()

        def step(x: Tensor, y: Tensor) -> Tensor:
            optimizer.zero_grad()
            loss = CE(net(x), y)
            loss.backward()
            clipped()
            optimizer.step()
            return loss.detach()

        return step

    return stepping(make)


@twins("step_in_eval_mode")
def evaluated_while_trained(broken: bool) -> Fields:
    """model.eval() at the beginning of each step, for its dropout."""

    def make(net: nn.Module) -> Any:
        once = plain_step(net, torch.optim.Adam(net.parameters(), lr=1e-2))

        def step(x: Tensor, y: Tensor) -> Tensor:
            net.train(not broken)
            loss: Tensor = once(x, y)
            return loss

        return step

    return stepping(make, model=lambda: nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Dropout(0.4), nn.Linear(32, 5)))
