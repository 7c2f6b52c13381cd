"""What tutorials build in PyTorch: text."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.verdicts.zoo_models.base import Architecture, adam, adamw, random, sgd, tokens

LENGTHS = torch.tensor([16, 14, 12, 10, 16, 14, 12, 10])


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight sentences, padded with 0, of four kinds."""
    return tokens() * (torch.arange(16)[None] < LENGTHS[:, None]), torch.arange(8) % 4


def tagged() -> tuple[torch.Tensor, torch.Tensor]:
    x, _ = texts()
    return x, torch.randint(0, 5, x.shape, generator=random(1)).masked_fill(x == 0, -100)


def shifted() -> tuple[torch.Tensor, torch.Tensor]:
    x = tokens(8, 17, 65)
    return x[:, :-1], x[:, 1:]


def per_token(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), y.flatten())


class CharRnn(nn.Module):
    """One-hot letters, an Elman net, the last state decides; log-probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(58, 128, batch_first=True), nn.Linear(128, 18)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.log_softmax(self.head(self.rnn(x)[1][0]), dim=1)


def names() -> tuple[torch.Tensor, torch.Tensor]:
    return F.one_hot(tokens(16, 8, 58), 58).float(), torch.arange(16)


class LstmClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(200, 64, padding_idx=0)
        self.lstm = nn.LSTM(64, 64, num_layers=2, dropout=0.3, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(128, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lengths = (x != 0).sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)
        _, (state, _) = self.lstm(packed)
        return self.head(torch.cat([state[-2], state[-1]], 1))


class LstmTagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(200, 64), nn.LSTM(64, 32, bidirectional=True, batch_first=True)
        self.head = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embed(x))[0]).transpose(1, 2)


class BagOfWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.EmbeddingBag(200, 64, padding_idx=0), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x))


class WordLstm(nn.Module):
    """A language model as the official example has it: dropout 0.2, SGD at 20, gradients clipped at 0.25."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop = nn.Embedding(65, 200), nn.Dropout(0.2)
        self.lstm, self.head = nn.LSTM(200, 200, 2, dropout=0.2, batch_first=True), nn.Linear(200, 65)
        self.embed.weight.data.uniform_(-0.1, 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.lstm(self.drop(self.embed(x)))[0]))


def clipped_step(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    model.train()
    model.zero_grad()
    loss = per_token(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    with torch.no_grad():
        for each in model.parameters():
            each.add_(each.grad, alpha=-20)
    return loss


class TinyGpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(65, 64), nn.Embedding(16, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 65)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.blocks(self.embed(x) + self.place(torch.arange(length)), mask=mask, is_causal=True))


class TransformerClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(200, 64, padding_idx=0), nn.Parameter(torch.zeros(16, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        empty = x == 0
        h = self.encoder(self.embed(x) + self.place, src_key_padding_mask=empty)
        return self.head(h.masked_fill(empty[..., None], 0).sum(1) / (~empty).sum(1, keepdim=True))


class Translator(nn.Module):
    """Sequence to sequence with GRUs and additive attention, teacher forced: takes both sentences."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(200, 64), nn.Embedding(200, 64)
        self.encoder, self.decoder = nn.GRU(64, 64, batch_first=True), nn.GRU(64, 64, batch_first=True)
        self.query, self.key, self.energy = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 1)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(128, 200)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory, state = self.encoder(self.drop(self.source(source)))
        h, _ = self.decoder(self.drop(self.target(target)), state)
        energy = self.energy(torch.tanh(self.query(h)[:, :, None] + self.key(memory)[:, None]))[..., 0]
        return self.head(torch.cat([h, energy.softmax(-1) @ memory], -1))


def sentences() -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    target = tokens(8, 13, seed=8)
    return (tokens(), target[:, :-1]), target[:, 1:]


def attention_is_all() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source, self.target = nn.Embedding(200, 64), nn.Embedding(200, 64)
            self.net = nn.Transformer(64, 4, 2, 2, 128, batch_first=True)
            self.head = nn.Linear(64, 200)

        def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            angles = torch.arange(16)[:, None] / 10000 ** (torch.arange(32) / 32)
            place = torch.cat([angles.sin(), angles.cos()], 1)
            length = target.shape[1]
            h = self.net(
                self.source(source) * 8 + place,
                self.target(target) * 8 + place[:length],
                tgt_mask=nn.Transformer.generate_square_subsequent_mask(length),
            )
            return self.head(h)

    return Net()


def architectures() -> Iterator[Architecture]:
    row = Architecture
    yield row(name="char_rnn", model=CharRnn, loss=F.nll_loss, optimizer=sgd(0.15), batch=names)
    yield row(name="lstm_classifier", model=LstmClassifier, loss=F.cross_entropy, optimizer=adam(), batch=texts)
    yield row(name="lstm_tagger", model=LstmTagger, loss=F.cross_entropy, optimizer=adam(1e-2), batch=tagged)
    yield row(name="embedding_bag", model=BagOfWords, loss=F.cross_entropy, optimizer=sgd(5.0), batch=texts)
    yield row(name="word_lstm", model=WordLstm, step=clipped_step, batch=shifted)
    yield row(name="tiny_gpt", model=TinyGpt, loss=per_token, optimizer=adamw(), batch=shifted)
    yield row(
        name="transformer_classifier", model=TransformerClassifier, loss=F.cross_entropy, optimizer=adam(), batch=texts
    )
    yield row(name="gru_seq2seq", model=Translator, loss=per_token, optimizer=adam(), batch=sentences)
    yield row(name="transformer_seq2seq", model=attention_is_all, loss=per_token, optimizer=adam(5e-4), batch=sentences)
