"""Torch programs written without a look at the rules: mixed rows, unread inputs, sequences that look ahead."""

from __future__ import annotations

import math
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

# ---------------------------------------------------------------------- rows


@twins("batch_mixing")
def attention_over_the_wrong_axis(broken: bool) -> Fields:
    """nn.MultiheadAttention without batch_first on [rows, steps, channels]."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=not broken)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))

    return case(Net, batch=series)


@twins("batch_mixing")
def both_directions_by_view(broken: bool) -> Fields:
    """The last states of both directions are joined by view(rows, -1), not by a transposition."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(8, 12, batch_first=True, bidirectional=True)
            self.head = nn.Linear(24, 3)

        def forward(self, x: Tensor) -> Tensor:
            last = self.gru(x)[1]
            return self.head(last.reshape(len(x), -1) if broken else torch.cat([last[0], last[1]], 1))

    return case(Net, batch=series)


@twins("batch_mixing")
def features_scaled_by_the_batch(broken: bool) -> Fields:
    """Standardised in forward by the batch's own mean and spread, not by those of the training set."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            x = rows()[0]
            self.register_buffer("mean", x.mean(0))
            self.register_buffer("spread", x.std(0))
            self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))

        def forward(self, x: Tensor) -> Tensor:
            mean, spread = (x.mean(0), x.std(0)) if broken else (self.mean, self.spread)
            return self.net((x - mean) / (spread + 1e-5))

    return case(Net)


@twins("batch_mixing")
def norm_without_running_statistics(broken: bool) -> Fields:
    """BatchNorm with track_running_stats=False: evaluation uses the batch."""

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=not broken), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
        )  # fmt: skip

    return case(model, batch=pictures)


@twins("batch_mixing")
def patches_reshaped_across_rows(broken: bool) -> Fields:
    """Steps first for the recurrent layer, and never brought back before the rows are flattened."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(8, 12)
            self.head = nn.Linear(120, 3)

        def forward(self, x: Tensor) -> Tensor:
            seen = self.gru(x.transpose(0, 1))[0]
            return self.head(seen.reshape(len(x), -1) if broken else seen.transpose(0, 1).reshape(len(x), -1))

    return case(Net, batch=series)


@twins("batch_mixing")
def scores_centred_over_the_batch(broken: bool) -> Fields:
    """Scores are centred by their mean over the batch, DINO's way but in the model."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))

        def forward(self, x: Tensor) -> Tensor:
            scores = self.net(x)
            return scores - scores.mean(0 if broken else 1, keepdim=True)

    return case(Net)


# -------------------------------------------------------------------- inputs


@twins("input_unused")
def two_towers_of_one_input(broken: bool) -> Fields:
    """Users and items: both towers read the user."""

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 8))
            self.items = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 8))

        def forward(self, user: Tensor, item: Tensor) -> Tensor:
            return (self.users(user) * self.items(user if broken else item)).sum(1)

    y = (torch.rand(ROWS, generator=generator(4)) < 0.5).float()
    x = (rows()[0], torch.randn(ROWS, 20, generator=generator(6)))
    return case(Towers, batch=lambda: (x, y), loss=F.binary_cross_entropy_with_logits)


@twins("input_unused")
def one_channel_of_three(broken: bool) -> Fields:
    """A network for grey pictures got colour: it takes the first channel."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(1 if broken else 3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4)
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x[:, :1] if broken else x)

    return case(Net, batch=pictures)


@twins("input_unused")
def categories_overwritten(broken: bool) -> Fields:
    """Numbers and categories: the name of the second is used twice."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 8)
            self.numbers = nn.Linear(10, 8)
            self.head = nn.Linear(16, 5)

        def forward(self, number: Tensor, category: Tensor) -> Tensor:
            left = self.numbers(number)
            right = self.embed(category).mean(1)
            if broken:
                left = right
            return self.head(F.relu(torch.cat([left, right], 1)))

    x = (rows(inputs=10)[0], torch.randint(0, 7, (ROWS, 3), generator=generator(6)))
    return case(Table, batch=lambda: (x, rows()[1]))


@twins("input_unused")
def first_step_of_a_series(broken: bool) -> Fields:
    """A forecaster that reads the output of its first step, which has seen nothing else."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(8, 16, batch_first=True)
            self.head = nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][:, 0 if broken else -1])

    return case(Net, batch=lambda: (series()[0], values()[1]), loss=F.mse_loss)


# --------------------------------------------------------------------- masks


def sentences() -> tuple[dict[str, Tensor], Tensor]:
    ids = tokens(count=16, length=10)
    lengths = 4 + torch.arange(16) % 7
    mask = torch.arange(10)[None] < lengths[:, None]
    return {"ids": ids * mask, "mask": mask.long()}, rows(classes=3)[1]


class Sentence(nn.Module):
    """A classifier of sentences; what it does about padding is its author's."""

    def __init__(self, attends: str, pools: str) -> None:
        super().__init__()
        self.attends, self.pools = attends, pools
        self.words = nn.Embedding(30, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        real = mask.bool()
        hidden = {"nobody": None, "padding": ~real, "real": real}[self.attends]
        seen = self.layer(self.words(ids), src_key_padding_mask=hidden)
        if self.pools == "all":
            return self.head(seen.mean(1))
        return self.head((seen * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))


@twins("mask_ignored", "input_unused")
def mask_never_handed_on(broken: bool) -> Fields:
    """The encoder gets no mask and the mean goes over everything."""
    words = ("nobody", "all") if broken else ("padding", "real")
    return case(lambda: Sentence(*words), batch=sentences)


@twins("mask_ignored")
def mean_over_padding_too(broken: bool) -> Fields:
    """Attention is masked, the mean is not."""
    return case(lambda: Sentence("padding", "all" if broken else "real"), batch=sentences)


@twins("mask_ignored", "input_unused")
def mask_turned_round(broken: bool) -> Fields:
    """key_padding_mask wants True for padding; it gets True for words."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(30, 16)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
            self.head = nn.Linear(16, 3)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            seen = self.words(ids)
            hidden = mask.bool() if broken else ~mask.bool()
            # the class token is always seen
            query = seen[:, :1]
            bias = torch.zeros(hidden.shape).masked_fill(hidden, -1e9)
            bias = bias.repeat_interleave(2, 0)[:, None]
            return self.head(self.attention(query, seen, seen, attn_mask=bias, need_weights=False)[0][:, 0])

    return case(Net, batch=sentences)


# ----------------------------------------------------------------- sequences


class Block(nn.Module):
    """Attention by hand, with the mask that is given."""

    def __init__(self, width: int, allowed: Tensor) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norm = nn.LayerNorm(width)
        self.register_buffer("allowed", allowed)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (each.view(n, t, 2, c // 2).transpose(1, 2) for each in self.qkv(self.norm(x)).chunk(3, -1))
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(c // 2)
        scores = scores.masked_fill(self.allowed[:t, :t] == 0, float("-inf"))
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))
        return x + self.mlp(x)


class Gpt(nn.Module):
    def __init__(self, allowed: Tensor) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 24)
        self.places = nn.Embedding(16, 24)
        self.blocks = nn.Sequential(Block(24, allowed), Block(24, allowed))
        self.head = nn.Linear(24, 30, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.blocks(self.words(ids) + self.places(torch.arange(ids.shape[1]))))


def next_tokens() -> tuple[Tensor, Tensor]:
    ids = tokens()
    return ids[:, :-1], ids[:, 1:]


def token_loss(scores: Tensor, y: Tensor) -> Tensor:
    return CE(scores.flatten(0, 1), y.flatten())


@twins("lookahead")
def causal_mask_upside_down(broken: bool) -> Fields:
    """triu for tril."""
    ones = torch.ones(16, 16)
    return case(lambda: Gpt(ones.triu() if broken else ones.tril()), batch=next_tokens, loss=token_loss)


@twins("lookahead")
def causal_mask_off_by_one(broken: bool) -> Fields:
    """tril(1): each token sees the one it has to predict."""
    ones = torch.ones(16, 16)
    return case(lambda: Gpt(ones.tril(1 if broken else 0)), batch=next_tokens, loss=token_loss)


@twins("lookahead")
def convolution_padded_on_both_sides(broken: bool) -> Fields:
    """A language model of dilated convolutions with padding="same"."""

    class Conv(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(30, 24)
            self.convs = nn.ModuleList(nn.Conv1d(24, 24, 3, dilation=2**i) for i in range(3))
            self.head = nn.Linear(24, 30)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.words(ids).transpose(1, 2)
            for i, conv in enumerate(self.convs):
                reach = 2 * 2**i
                x = x + F.relu(conv(F.pad(x, (reach // 2, reach // 2) if broken else (reach, 0))))
            return self.head(x.transpose(1, 2))

    return case(Conv, batch=next_tokens, loss=token_loss)


@twins("lookahead")
def recurrent_both_ways(broken: bool) -> Fields:
    """A bidirectional LSTM asked for the next token."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(30, 24)
            self.lstm = nn.LSTM(24, 12 if broken else 24, batch_first=True, bidirectional=broken)
            self.head = nn.Linear(24, 30)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.lstm(self.words(ids))[0])

    return case(Net, batch=next_tokens, loss=token_loss)


@twins("targets_not_shifted")
def inputs_as_next_tokens(broken: bool) -> Fields:
    """The targets are the inputs; the loss does not shift either."""
    ones = torch.ones(16, 16)
    ids = tokens()
    batch = (ids, ids) if broken else (ids[:, :-1], ids[:, 1:])
    return case(lambda: Gpt(ones.tril()), batch=lambda: batch, loss=token_loss)


@twins("targets_not_shifted")
def shifted_by_the_loop_and_by_the_loss(broken: bool) -> Fields:
    """The collator shifts, and the loss shifts once more."""
    ids = tokens()

    def loss(scores: Tensor, y: Tensor) -> Tensor:
        return token_loss(scores[:, :-1], y[:, 1:])

    batch = (ids[:, :-1], ids[:, 1:]) if broken else (ids, ids)
    return case(lambda: Gpt(torch.ones(16, 16).tril()), batch=lambda: batch, loss=loss)


@twins("padding_in_loss")
def padded_targets_count(broken: bool) -> Fields:
    """ignore_index was forgotten; the mask says what is padding."""
    ids = tokens(count=8, length=13)
    lengths = 6 + torch.arange(8) % 7
    mask = torch.arange(13)[None] < lengths[:, None]
    ids = ids * mask

    class Net(Gpt):
        def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(ids)

    def loss(scores: Tensor, y: Tensor) -> Tensor:
        return CE(scores.flatten(0, 1), y.flatten(), ignore_index=-100 if broken else 0)

    x = {"ids": ids[:, :-1], "attention_mask": mask[:, :-1].long()}
    return case(lambda: Net(torch.ones(16, 16).tril()), batch=lambda: (x, ids[:, 1:]), loss=loss)


@twins("lookahead")
def decoder_without_target_mask(broken: bool) -> Fields:
    """A translator by hand: the decoder sees the whole target, in a loop of its own."""

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(30, 16)
            self.net = nn.Transformer(16, 2, 1, 1, 32, dropout=0.0, batch_first=True)
            self.head = nn.Linear(16, 30)

        def forward(self, source: Tensor, target: Tensor) -> Tensor:
            mask = None if broken else nn.Transformer.generate_square_subsequent_mask(target.shape[1])
            return self.head(self.net(self.words(source), self.words(target), tgt_mask=mask))

    target = torch.randint(1, 30, (8, 9), generator=generator(8))
    x = (tokens(), target[:, :-1])
    return case(Translator, batch=lambda: (x, target[:, 1:]), loss=token_loss)


def loop_of(loss_of: Any, rate: float = 1e-2) -> Any:
    return lambda net: plain_step(net, torch.optim.Adam(net.parameters(), lr=rate), loss_of)


@twins("target_broadcast")
def critic_with_a_column_too_many(broken: bool) -> Fields:
    """A value network in a loop of its own: [rows, 1] against [rows]."""

    def loss_of(outputs: Tensor, y: Tensor) -> Tensor:
        return ((outputs if broken else outputs[:, 0]) - y).pow(2).mean()

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 1))

    return stepping(loop_of(loss_of), model=model, batch=lambda: (rows()[0], values()[1][:, 0]))
