"""`overfit_batch` on the kinds of torch model: recurrent, masked, normalised, shared, compiled, in other precisions.

Every program has a faulty twin.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

from tests.programs.helpers import ROWS, Fields, Forget, Programs, adam, digits, generator, mlp, verdict

PROGRAMS = Programs()
program = PROGRAMS.add


def on_digits(model: Callable[[], nn.Module], **more: Any) -> Fields:
    return {"model": model, "loss": F.cross_entropy, "batch": digits, **more}


def on_pictures(model: Callable[[], nn.Module], **more: Any) -> Fields:
    x, y = digits()
    return on_digits(model, batch=lambda: (x.reshape(-1, 1, 8, 8), y), **more)


def first(broken: bool) -> nn.Module:
    return Forget() if broken else nn.Identity()


# -------------------------------------------------------------------------------------- recurrent


def series(rows: int = 12) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 9, 6, generator=generator(0)), torch.arange(rows) % 4


@program
def lstm_on_packed_sequences(broken: bool) -> Fields:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.head = nn.LSTM(6, 32, batch_first=True), nn.Linear(32, 4)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            _, (last, _) = self.net(packed)
            return self.head(torch.zeros_like(last[-1]) if broken else last[-1])

    x, y = series()
    lengths = torch.tensor([9, 8, 7, 6, 5, 9, 4, 3, 9, 6, 5, 7])
    return {"model": Packed, "loss": F.cross_entropy, "batch": lambda: ((x, lengths), y)}


@program
def gru_with_its_state_as_an_input_and_an_output(broken: bool) -> Fields:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.head, self.first = nn.GRU(6, 32, batch_first=True), nn.Linear(32, 4), first(broken)

        def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            found, state = self.net(self.first(x), state.transpose(0, 1).contiguous())
            return self.head(found[:, -1]), state.transpose(0, 1)

    x, y = series()
    loss = lambda o, y: F.cross_entropy(o[0], y)  # noqa: E731
    return {"model": Stateful, "loss": loss, "batch": lambda: ((x, torch.zeros(12, 1, 32)), y)}


@program
def lstm_with_time_first_inside(broken: bool) -> Fields:
    """The twin forgot the transposition: its steps are the rows of the batch."""

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.head = nn.LSTM(6, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            found, _ = self.net(x if broken else x.transpose(0, 1))
            return self.head(found[:, -1] if broken else found[-1])

    x, y = series()
    return {"model": TimeFirst, "loss": F.cross_entropy, "batch": lambda: (x, y)}


@program
def recurrent_with_ctc(broken: bool) -> Fields:
    class Aligned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.first = nn.GRU(6, 32, batch_first=True, bidirectional=True), first(broken)
            self.head = nn.Linear(64, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.net(self.first(x))[0]).log_softmax(-1)

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return F.ctc_loss(o.transpose(0, 1), y, torch.full((8,), 9), torch.full((8,), 3))

    x, _ = series(8)
    spoken = torch.randint(1, 6, (8, 3), generator=generator(1))
    return {"model": Aligned, "loss": loss, "batch": lambda: (x, spoken), "optimizer": adam(1e-2)}


# ---------------------------------------------------------------------------------------- masks


WORDS = 20


def sentences() -> Tensor:
    """Words from 1, padded with 0."""
    words = torch.randint(1, WORDS, (9, 10), generator=generator(0))
    return words * (torch.arange(10)[None] < torch.randint(4, 10, (9, 1), generator=generator(1)))


def transformer() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


@program
def transformer_with_masked_padding(broken: bool) -> Fields:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.place = nn.Embedding(WORDS, 32), nn.Parameter(0.1 * torch.randn(10, 32))
            self.first, self.net, self.head = first(broken), transformer(), nn.Linear(32, 3)

        def forward(self, words: Tensor) -> Tensor:
            # the first word is there in every row: in the twin, what is padding is lost together with all words
            empty = words == 0
            if broken:
                empty = torch.zeros_like(empty)
            seen = self.net(self.first(self.embed(words)) + self.place, src_key_padding_mask=empty)
            real = (~empty)[..., None].float()
            return self.head((seen * real).sum(1) / real.sum(1))

    return {"model": Masked, "loss": F.cross_entropy, "batch": lambda: (sentences(), torch.arange(9) % 3)}


@program
def causal_transformer(broken: bool) -> Fields:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.place = nn.Embedding(WORDS, 32), nn.Parameter(0.1 * torch.randn(9, 32))
            self.first, self.net, self.head = first(broken), transformer(), nn.Linear(32, WORDS)

        def forward(self, words: Tensor) -> Tensor:
            later = torch.triu(torch.full((9, 9), float("-inf")), 1)
            return self.head(self.net(self.first(self.embed(words)) + self.place, mask=later))

    words = sentences()
    loss = lambda o, y: F.cross_entropy(o.flatten(0, 1), y.flatten(), ignore_index=0)  # noqa: E731
    return {"model": Causal, "loss": loss, "batch": lambda: (words[:, :-1], words[:, 1:]), "optimizer": adam(5e-3)}


@program
def mask_as_an_input_and_in_the_loss(broken: bool) -> Fields:
    """Tags for real words only; the twin's mask hides every word.

    Turned round it would show how long a row is, and the loss would creep down for as long as one likes.
    """

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(WORDS, 32), nn.Linear(64, 4)
            self.net = nn.GRU(32, 32, batch_first=True, bidirectional=True)

        def forward(self, words: Tensor, mask: Tensor) -> Tensor:
            kept = torch.zeros_like(mask) if broken else mask
            return self.head(self.net(self.embed(words) * kept[..., None])[0])

    def loss(o: Tensor, y: tuple[Tensor, Tensor]) -> Tensor:
        tags, mask = y
        return (F.cross_entropy(o.transpose(1, 2), tags, reduction="none") * mask).sum() / mask.sum()

    words = sentences()
    mask, tags = (words > 0).float(), torch.randint(0, 4, words.shape, generator=generator(2))
    return {"model": Tagger, "loss": loss, "batch": lambda: ({"words": words, "mask": mask}, (tags, mask))}


# --------------------------------------------------------------- normalisation and regularisation


def convolution(norm: Callable[[int], nn.Module], broken: bool) -> nn.Sequential:
    layers = [first(broken), nn.Conv2d(1, 8, 3), norm(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)]
    return nn.Sequential(*layers)


@program
def synchronised_batch_norm(broken: bool) -> Fields:
    return on_pictures(lambda: nn.SyncBatchNorm.convert_sync_batchnorm(convolution(nn.BatchNorm2d, broken)))


@program
def group_norm(broken: bool) -> Fields:
    return on_pictures(lambda: convolution(lambda width: nn.GroupNorm(4, width), broken))


@program
def instance_norm_with_running_statistics(broken: bool) -> Fields:
    """The twin never updates what evaluation normalises with."""

    def norm(width: int) -> nn.Module:
        return nn.InstanceNorm2d(width, affine=True, track_running_stats=True, momentum=0.0 if broken else 0.1)

    x, y = digits()
    pictures = x.reshape(-1, 1, 8, 8) * 20 + 50
    return on_pictures(lambda: convolution(norm, False)) | {"batch": lambda: (pictures, y)}


class StochasticDepth(nn.Module):
    def __init__(self, always: bool) -> None:
        super().__init__()
        self.net, self.always = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), always

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and not self.always:
            return x + self.net(x)
        return x + self.net(x) * (torch.rand(len(x), 1) > 0.3) / 0.7


@program
def stochastic_depth(broken: bool) -> Fields:
    """The twin skips layers in evaluation too."""
    return on_digits(lambda: nn.Sequential(nn.Linear(64, 64), StochasticDepth(broken), nn.Linear(64, 10)))


@program
def weight_norm(broken: bool) -> Fields:
    layer = lambda outputs: parametrizations.weight_norm(nn.Linear(64, outputs))  # noqa: E731
    return on_digits(lambda: nn.Sequential(first(broken), layer(64), nn.ReLU(), layer(10)))


@program
def spectral_norm(broken: bool) -> Fields:
    layer = lambda: parametrizations.spectral_norm(nn.Linear(64, 128))  # noqa: E731
    return on_digits(lambda: nn.Sequential(first(broken), layer(), nn.ReLU(), nn.Linear(128, 10)))


@program
def running_average_of_the_weights(broken: bool) -> Fields:
    """Evaluation uses an average of the weights; the twin forgets to update it."""

    class Averaged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()
            self.average = copy.deepcopy(self.net).requires_grad_(requires_grad=False)

        @torch.no_grad()
        def update(self) -> None:
            for slow, fast in zip(self.average.parameters(), self.net.parameters(), strict=True):
                slow.lerp_(fast, 0.05)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return self.average(x)
            if not broken:
                self.update()
            return self.net(x)

    return on_digits(Averaged)


# ------------------------------------------------------------------ shared, lazy, frozen, functional


@program
def tied_weights(broken: bool) -> Fields:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.weight = first(broken), nn.Parameter(0.1 * torch.randn(48, 64))

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.first(x) @ self.weight.T) @ self.weight

    x, _ = digits()
    return {"model": Tied, "loss": F.mse_loss, "batch": lambda: (x[:12], x[:12]), "optimizer": adam(1e-2)}


@program
def one_layer_used_three_times(broken: bool) -> Fields:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer, self.head = first(broken), nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for _ in range(3):
                x = torch.tanh(self.layer(x))
            return self.head(x)

    return on_digits(Repeated)


@program
def lazy_layers_with_normalisation(broken: bool) -> Fields:
    layers = lambda: (nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))  # noqa: E731
    return on_pictures(lambda: nn.Sequential(first(broken), *layers()))


@program
def adapters_on_a_frozen_body(broken: bool) -> Fields:
    """Low-rank factors, one of which starts at zero; with both there, neither ever gets a gradient."""

    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = mlp().requires_grad_(requires_grad=False)
            self.down = nn.Parameter(torch.zeros(64, 16) if broken else torch.randn(64, 16) / 8)
            self.up = nn.Parameter(torch.zeros(16, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + F.relu(x @ self.down) @ self.up

    optimizer = lambda parameters: torch.optim.Adam([each for each in parameters if each.requires_grad], lr=2e-2)  # noqa: E731
    return on_digits(Adapted, optimizer=optimizer)


@program
def functional_call(broken: bool) -> Fields:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(broken=broken)

        def forward(self, x: Tensor) -> Tensor:
            return torch.func.functional_call(self.net, dict(self.net.named_parameters()), (x,))

    return on_digits(Functional)


@program
def ensemble_under_vmap(broken: bool) -> Fields:
    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.weights = first(broken), nn.Parameter(0.1 * torch.randn(4, 64, 10))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return torch.vmap(lambda weight: x @ weight)(self.weights).mean(0)

    return on_digits(Ensemble, optimizer=adam(3e-2))


# --------------------------------------------------------------------- numbers, compilers, devices


@program
def autocast_to_half_precision(broken: bool) -> Fields:
    return on_pictures(lambda: convolution(nn.BatchNorm2d, broken), autocast="bfloat16")


@program
def weights_in_half_precision(broken: bool) -> Fields:
    """Steps smaller than a weight's rounding are lost: with a rate of 1e-6, nothing moves enough."""
    optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=1e-6 if broken else 1e-2)  # noqa: E731
    x, y = digits()
    return on_digits(lambda: mlp().bfloat16(), optimizer=optimizer) | {"batch": lambda: (x.numpy(), y.numpy())}


@program
def double_precision(broken: bool) -> Fields:
    x, y = digits()
    return on_digits(lambda: mlp(broken=broken).double()) | {"batch": lambda: (x.double(), y)}


@program
def complex_weights(broken: bool) -> Fields:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = first(broken), nn.Linear(64, 10)
            self.weight = nn.Parameter(0.1 * torch.randn(64, 64, dtype=torch.cfloat))

        def forward(self, x: Tensor) -> Tensor:
            return self.head((torch.fft.fft(self.first(x)) @ self.weight).abs())

    return on_digits(Waves)


@program
def sparse_embedding_gradients(broken: bool) -> Fields:
    words = torch.randint(0, 100, (16, 6), generator=generator(0))
    model = lambda: nn.Sequential(nn.EmbeddingBag(100, 16, sparse=True), first(broken), nn.Linear(16, 4))  # noqa: E731
    optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1.0)  # noqa: E731
    batch = lambda: (words, torch.arange(16) % 4)  # noqa: E731
    return {"model": model, "loss": F.cross_entropy, "batch": batch, "optimizer": optimizer}


@program
def compiled(broken: bool) -> Fields:
    return on_digits(lambda: torch.compile(mlp(broken=broken), backend="eager"))


@program
def compiled_in_place(broken: bool) -> Fields:
    def model() -> nn.Module:
        found = mlp(broken=broken)
        found.compile(backend="eager")
        return found

    return on_digits(model)


@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
class TestScripted:
    @pytest.mark.parametrize("broken", [False, True])
    @pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.zeros(ROWS, 64))])
    def test_scripted_and_traced(self, make: Callable[[nn.Module], nn.Module], broken: bool) -> None:
        found = verdict(**on_digits(lambda: make(mlp(broken=broken))))
        assert found.outcome == ("failed" if broken else "passed"), found.summary


@program
def data_parallel(broken: bool) -> Fields:
    return on_digits(lambda: nn.DataParallel(mlp(broken=broken)))


@program
def channels_last(broken: bool) -> Fields:
    x, y = digits()
    pictures = x.reshape(-1, 1, 8, 8).contiguous(memory_format=torch.channels_last)
    model = lambda: convolution(nn.BatchNorm2d, broken).to(memory_format=torch.channels_last)  # noqa: E731
    return on_digits(model) | {"batch": lambda: (pictures, y)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_healthy(name: str) -> None:
    found = verdict(**PROGRAMS[name](False))
    assert found.outcome == "passed", found.summary


@pytest.mark.parametrize("name", PROGRAMS)
def test_faulty_twin(name: str) -> None:
    found = verdict(**PROGRAMS[name](True))
    assert found.outcome == "failed", found.summary


DEVICES = [
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
    pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")),
]


@pytest.mark.parametrize("device", DEVICES)
class TestDevices:
    """The batch follows the model, and losses come to the host once a chunk."""

    @pytest.mark.parametrize("broken", [False, True])
    def test_convolutions(self, device: str, broken: bool) -> None:
        found = verdict(**on_pictures(lambda: convolution(nn.BatchNorm2d, broken).to(device)))
        assert found.outcome == ("failed" if broken else "passed"), found.summary

    @pytest.mark.parametrize("broken", [False, True])
    def test_autocast(self, device: str, broken: bool) -> None:
        found = verdict(**on_digits(lambda: mlp(broken=broken).to(device), autocast="float16"))
        assert found.outcome == ("failed" if broken else "passed"), found.summary

    @pytest.mark.parametrize("broken", [False, True])
    def test_a_loss_without_a_closed_form(self, device: str, broken: bool) -> None:
        x, y = digits()
        wanted = F.one_hot(y, 10).float()
        loss = lambda o, y: ((o - y).abs() ** 1.5).mean()  # noqa: E731
        found = verdict(model=lambda: mlp(broken=broken).to(device), loss=loss, batch=(x, wanted))
        assert found.outcome == ("failed" if broken else "passed"), found.summary

    @pytest.mark.parametrize("broken", [False, True])
    def test_a_custom_step(self, device: str, broken: bool) -> None:
        def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            optimizer = model.__dict__.setdefault("own", torch.optim.Adam(model.parameters(), lr=3e-3))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        found = verdict(model=lambda: mlp(broken=broken).to(device), step=step, optimizer=None, batch=digits())
        assert found.outcome == ("failed" if broken else "passed"), found.summary


class CountReads(TorchDispatchMode):
    """Counts how often a tensor's number is asked for, which on an accelerator makes the host wait."""

    reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("waits", [False, True])
def test_losses_are_kept_on_the_device_until_a_chunk_ends(waits: bool) -> None:
    """The rate is too small for the run to end early; the loss that waits asks for its number at each step."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        found = F.cross_entropy(o, y)
        return found + 0 * found.item() if waits else found

    steps = 200
    optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1e-5)  # noqa: E731
    with CountReads() as seen:
        found = verdict(model=mlp, loss=loss, batch=digits(), optimizer=optimizer, limits={"steps": steps})
    assert found.steps == steps
    assert (seen.reads >= steps) == waits, seen.reads
