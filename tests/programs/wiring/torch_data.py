"""Torch programs that mix rows, leave inputs unread, or look ahead in a sequence."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, Mlp, adam, case, pictures, rows, series, tokens, values

PROGRAMS = Corpus()
twins = PROGRAMS.twins

# ------------------------------------------------------------------- rows

MIXED = ("batch_mixing", "wrong_reshape", "softmax_wrong_axis", "batchnorm_eval_mismatch")


@twins(*MIXED)
def attention_over_the_batch(broken: bool) -> Fields:
    """MultiheadAttention without batch_first."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=not broken), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x + self.attention(x, x, x)[0]).mean(1))

    return case(Model, batch=series)


@twins(*MIXED)
def recurrent_over_the_batch(broken: bool) -> Fields:
    """A GRU that takes rows for steps."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 16, batch_first=not broken), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    return case(Model, batch=series)


class Between(Mlp):
    """An MLP with something of ours between body and head."""

    def __init__(self, between: Any, outputs: int = 5) -> None:
        super().__init__(outputs=outputs)
        self.between = between

    def forward(self, x: Tensor) -> Any:
        return self.head(self.between(self.body(x)))


def between(broken: Any, healthy: Any) -> Any:
    return lambda flag: case(lambda: Between(broken if flag else healthy))


@twins(*MIXED)
def centred_over_the_batch(broken: bool) -> Fields:
    """Centred over rows instead of features."""
    return case(lambda: Between(lambda h: h - h.mean(0 if broken else 1, keepdim=True)))


@twins(*MIXED)
def softmax_over_rows(broken: bool) -> Fields:
    """Gates whose softmax is taken over the batch."""
    return case(lambda: Between(lambda h: h * h.softmax(0 if broken else 1) * 16))


@twins(*MIXED)
def neighbour_rows(broken: bool) -> Fields:
    """A shift along the wrong axis: every row sees the one before it and no other."""
    return case(lambda: Between(lambda h: h + 0.5 * h.roll(1, 0 if broken else 1)))


@twins(*MIXED)
def one_row_reaches_one_other(broken: bool) -> Fields:
    """A buffer written by index: the first row leaks into the last alone."""

    def between(h: Tensor) -> Tensor:
        if not broken:
            return h
        more = torch.zeros_like(h)
        more[-1] = h[0]
        return h + more

    return case(lambda: Between(between))


@twins(*MIXED)
def cumulated_over_rows(broken: bool) -> Fields:
    """cumsum along the batch."""
    return case(lambda: Between(lambda h: h.cumsum(0 if broken else 1) / 4))


@twins(*MIXED)
def batch_statistics_in_evaluation(broken: bool) -> Fields:
    """BatchNorm that keeps no running statistics."""

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Linear(20, 32), nn.BatchNorm1d(32, track_running_stats=not broken, momentum=0.3), nn.ReLU()
            )

    return case(Model)


@twins(*MIXED)
def frames_reshaped_into_rows(broken: bool) -> Fields:
    """[N, T, F] is viewed as [T, N, F], where a transpose was meant."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(8, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            n, t, f = x.shape
            turned = x.reshape(t, n, f) if broken else x.transpose(0, 1)
            return self.head(self.rnn(turned)[0][-1])

    return case(Model, batch=series)


@twins(*MIXED)
def normalised_by_hand_in_evaluation(broken: bool) -> Fields:
    """Pictures standardised over batch and space, in evaluation too."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.conv(x)
            axes = (0, 2, 3) if broken else (2, 3)
            h = (h - h.mean(axes, keepdim=True)) / (h.std(axes, keepdim=True) + 1e-5)
            return self.head(F.relu(h).mean((2, 3)))

    return case(Model, batch=pictures)


# ------------------------------------------------------------------- inputs

UNREAD = ("input_unused", "input_ignored")


@twins(*UNREAD)
def first_half_read_twice(broken: bool) -> Fields:
    """Two towers on one half of the features."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(10, 16), nn.Linear(10, 16), nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            second = x[:, :10] if broken else x[:, 10:]
            return self.head(F.relu(torch.cat([self.a(x[:, :10]), self.b(second)], 1)))

    return case(Model)


@twins(*UNREAD)
def last_step_dropped(broken: bool) -> Fields:
    """x[:, :-1], left from next-step targets."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x[:, :-1] if broken else x)[0][:, -1])

    return case(Model, batch=series)


class TwoInputs(nn.Module):
    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(12, 16), nn.Linear(8, 16), nn.Linear(32, 5)
        self.broken = broken

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        second = self.right(left[:, :8] if self.broken else right)
        return self.head(F.relu(torch.cat([self.left(left), second], 1)))


@twins(*UNREAD)
def second_argument_ignored(broken: bool) -> Fields:
    """Two inputs; both branches read the first."""
    x, y = rows()
    return case(lambda: TwoInputs(broken), batch=lambda: ((x[:, :12], x[:, 12:]), y))


@twins(*UNREAD)
def key_of_a_dict_ignored(broken: bool) -> Fields:
    """The model takes a dict and forgets one of its keys."""

    class Model(Mlp):
        def forward(self, x: dict[str, Tensor]) -> Any:
            first, second = x["image"], x["meta"]
            return super().forward(torch.cat([first, 0 * second if broken else second], 1))

    x, y = rows()
    return case(Model, batch=lambda: ({"image": x[:, :12], "meta": x[:, 12:]}, y))


@twins(*UNREAD)
def channel_dropped(broken: bool) -> Fields:
    """The third channel is sliced off."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(2 if broken else 3, 8, 3, padding=1), nn.Linear(8 * 144, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.conv(x[:, :2] if broken else x)).flatten(1))

    return case(Model, batch=pictures)


@twins(*UNREAD)
def first_step_of_unmixed_steps(broken: bool) -> Fields:
    """The first step is read out as if attention had gathered the others in it."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16)), nn.Linear(16, 3)
            self.attention = None if broken else nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            h = self.step(x)
            if self.attention is not None:
                h = h + self.attention(h, h, h)[0]
            return self.head(h[:, 0])

    return case(Model, batch=series)


@twins(*UNREAD)
def every_other_step(broken: bool) -> Fields:
    """Subsampled twice: the loader had already done it."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, 3))

        def forward(self, x: Tensor) -> Any:
            return self.net(x[:, ::2] if broken else x)

    def model() -> nn.Module:
        made = Model()
        made(series()[0])
        return made

    return case(model, batch=series)


@twins(*UNREAD)
def category_read_twice(broken: bool) -> Fields:
    """Two categorical columns, and two embeddings of the first."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Embedding(7, 8), nn.Embedding(7, 8), nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.a(x[:, 0]), self.b(x[:, 0 if broken else 1])], 1).tanh())

    return case(Model, batch=lambda: (torch.randint(0, 7, (ROWS, 2), generator=generator(4)), rows()[1]))


class Masked(nn.Module):
    """Attention over padded tokens and a mean over the real ones; each of the two can forget the mask."""

    def __init__(self, attend: bool = True, average: bool = True, invert: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 16)
        self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 4)
        self.attend, self.average, self.invert = attend, average, invert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        h = self.words(input_ids)
        left_out = attention_mask.bool() if self.invert else ~attention_mask.bool()
        h = h + self.attention(h, h, h, key_padding_mask=left_out if self.attend else None)[0]
        weights = (~left_out)[..., None].float() if self.average else torch.ones_like(h[..., :1])
        return self.head((h * weights).sum(1) / weights.sum(1))


def padded() -> Any:
    ids, lengths = tokens(count=ROWS, length=10), 3 + torch.arange(ROWS) % 7
    mask = (torch.arange(10) < lengths[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}, rows(classes=4)[1]


UNMASKED = ("mask_ignored", "input_unused", "input_ignored")


@twins(*UNMASKED)
def mask_never_used(broken: bool) -> Fields:
    """The mask is an argument and nothing else."""
    return case(lambda: Masked(attend=not broken, average=not broken), batch=padded)


@twins(*UNMASKED)
def padding_averaged_in(broken: bool) -> Fields:
    """Attention is masked, the mean over steps is not."""
    return case(lambda: Masked(average=not broken), batch=padded)


@twins(*UNMASKED)
def padding_attended_to(broken: bool) -> Fields:
    """The mean over steps is masked, attention is not."""
    return case(lambda: Masked(attend=not broken), batch=padded)


@twins(*UNMASKED)
def mask_inverted(broken: bool) -> Fields:
    """key_padding_mask is True where a token is left out; the mask given says where it counts."""
    return case(lambda: Masked(invert=broken), batch=padded)


@twins(*UNREAD)
def half_of_the_picture(broken: bool) -> Fields:
    """A crop that was made for pictures of twice the size."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
            self.head = nn.Linear(128, 4)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.net(x[..., :6, :] if broken else x))

    return case(Model, batch=pictures)


@twins(*UNREAD)
def conditioning_ignored(broken: bool) -> Fields:
    """A decoder whose condition is embedded and then overwritten."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.label, self.net = nn.Embedding(5, 8), nn.Sequential(nn.Linear(28, 32), nn.ReLU(), nn.Linear(32, 1))

        def forward(self, x: Tensor, label: Tensor) -> Any:
            c = self.label(label)
            if broken:
                c = self.label.weight[:1].expand(len(x), -1)
            return self.net(torch.cat([x, c], 1))

    return case(Model, batch=lambda: ((rows()[0], rows()[1]), values()[1]), loss=F.mse_loss)


# ---------------------------------------------------------------- sequences


class Language(nn.Module):
    """Predicts tokens by a transformer of one layer with this mask (True: hidden)."""

    def __init__(self, mask: Tensor | None, words: int = 30, length: int = 12) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, 32), nn.Parameter(torch.randn(length, 32) * 0.1)
        self.layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.head, self.mask = nn.Linear(32, words), mask

    def forward(self, input_ids: Tensor) -> Any:
        length = input_ids.shape[1]
        mask = None if self.mask is None else self.mask[:length, :length]
        return self.head(self.layer(self.words(input_ids) + self.places[:length], src_mask=mask))


def causal(diagonal: int = 1) -> Tensor:
    return torch.ones(12, 12).triu(diagonal).bool()


def of_tokens(o: Tensor, y: Tensor) -> Tensor:
    return CE(o.flatten(0, 1), y.flatten())


def language(mask: Tensor | None, cut: tuple[slice, slice] = (slice(-1), slice(1, None)), **more: Any) -> Fields:
    """`cut`: which places of the tokens are inputs, and which targets."""
    model = more.pop("model", lambda: Language(mask))
    x, y = (tokens()[:, each] for each in cut)
    return {"model": model, "loss": of_tokens, "optimizer": adam, "batch": lambda: (x, y), **more}


@twins("lookahead", "batch_mixing")
def causal_mask_lost(broken: bool) -> Fields:
    """No mask at all."""
    return language(None if broken else causal(), task="language_model")


@twins("lookahead", "batch_mixing")
def causal_mask_off_by_one(broken: bool) -> Fields:
    """triu(diagonal=2) lets every place see the next one."""
    return language(causal(2 if broken else 1))


@twins("lookahead", "batch_mixing")
def causal_mask_turned_round(broken: bool) -> Fields:
    """The mask transposed: every place sees what comes, and nothing that was."""
    return language(causal().T.clone() if broken else causal())


@twins("lookahead", "batch_mixing")
def bidirectional_recurrence(broken: bool) -> Fields:
    """A next-token GRU in both directions."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(30, 16)
            self.rnn = nn.GRU(16, 16, batch_first=True, bidirectional=broken)
            self.head = nn.Linear(32 if broken else 16, 30)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.rnn(self.words(x))[0])

    return language(None, model=Model)


@twins("lookahead", "batch_mixing")
def convolution_sees_both_sides(broken: bool) -> Fields:
    """A causal convolution padded on both sides."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.conv, self.head = nn.Embedding(30, 16), nn.Conv1d(16, 32, 3), nn.Linear(32, 30)

        def forward(self, x: Tensor) -> Any:
            h = F.pad(self.words(x).transpose(1, 2), (1, 1) if broken else (2, 0))
            return self.head(F.relu(self.conv(h)).transpose(1, 2))

    return language(None, model=Model)


@twins("targets_not_shifted")
def targets_are_the_inputs(broken: bool) -> Fields:
    """labels = input_ids, and nothing shifts them."""
    return language(causal(), (slice(None), slice(None)) if broken else (slice(-1), slice(1, None)))


@twins("targets_not_shifted")
def targets_shifted_twice(broken: bool) -> Fields:
    """Shifted by the loader and by the loss."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return of_tokens(o[:, :-1], y[:, 1:]) if broken else of_tokens(o, y)

    return language(causal(), loss=loss)


@twins("targets_not_shifted")
def targets_two_ahead(broken: bool) -> Fields:
    """The loader shifts twice."""
    return language(causal(), (slice(-2), slice(2, None)) if broken else (slice(-1), slice(1, None)))


@twins("padding_in_loss", "label_ignored", "mask_ignored")
def padding_among_the_targets(broken: bool) -> Fields:
    """Targets are 0 where the mask is 0, and not -100."""

    class Model(Language):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
            length = input_ids.shape[1]
            h = self.words(input_ids) + self.places[:length]
            hidden = torch.zeros(length, length).masked_fill(causal()[:length, :length], -math.inf)
            left_out = torch.zeros(attention_mask.shape).masked_fill(attention_mask == 0, -math.inf)
            return self.head(self.layer(h, src_mask=hidden, src_key_padding_mask=left_out))

    ids = tokens()
    mask = (torch.arange(12) < (6 + torch.arange(8) % 6)[:, None]).long()
    ids = ids * mask
    target = ids[:, 1:] if broken else ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    x = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}
    return language(None, model=lambda: Model(None), batch=lambda: (x, target))
