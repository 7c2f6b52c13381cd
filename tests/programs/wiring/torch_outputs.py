"""Torch programs whose outputs do not fit the loss or the targets, or that start far from knowing nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, Mlp, case, rows, values

PROGRAMS = Corpus()
twins = PROGRAMS.twins


def ending(last: Callable[[Tensor], Tensor] | None, outputs: int = 5) -> Callable[[], nn.Module]:
    """An MLP whose outputs go through `last`."""

    class Model(Mlp):
        def forward(self, x: Tensor) -> Any:
            out = super().forward(x)
            return out if last is None else last(out)

    return lambda: Model(outputs=outputs)


def yes_no() -> tuple[Tensor, Tensor]:
    return rows()[0], rows(classes=2)[1][:, None].float()


def softmax(o: Tensor) -> Tensor:
    return o.softmax(-1)


@twins("double_softmax")
def softmax_before_cross_entropy(broken: bool) -> Fields:
    """cross_entropy of probabilities."""
    return case(ending(softmax if broken else None))


@twins("double_softmax")
def softmax_twice_then_log(broken: bool) -> Fields:
    """nll_loss of the log-softmax of probabilities."""

    def last(o: Tensor) -> Tensor:
        return (o.softmax(-1) if broken else o).log_softmax(-1)

    return case(ending(last), loss=F.nll_loss)


@twins("double_softmax", "bounded_logits")
def mean_of_members_probabilities(broken: bool) -> Fields:
    """An ensemble whose members' probabilities are averaged, under cross_entropy."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = nn.ModuleList(Mlp(units=16) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            outs = [each(x) for each in self.members]
            return torch.stack([o.softmax(-1) if broken else o for o in outs]).mean(0)

    return case(Model)


@twins("double_sigmoid")
def sigmoid_before_logits_loss(broken: bool) -> Fields:
    """binary_cross_entropy_with_logits of probabilities."""
    model = ending(torch.sigmoid if broken else None, 1)
    return case(model, batch=yes_no, loss=F.binary_cross_entropy_with_logits)


@twins("bounded_logits", "double_sigmoid", "double_softmax")
def sigmoid_before_cross_entropy(broken: bool) -> Fields:
    """One sigmoid a class, under cross_entropy."""
    return case(ending(torch.sigmoid if broken else None))


@twins("missing_softmax")
def raw_scores_under_nll(broken: bool) -> Fields:
    """nll_loss of raw scores."""
    return case(ending(None if broken else lambda o: o.log_softmax(-1)), loss=F.nll_loss)


@twins("softmax_without_log")
def probabilities_under_nll(broken: bool) -> Fields:
    """nll_loss of probabilities."""
    return case(ending(softmax if broken else lambda o: o.log_softmax(-1)), loss=F.nll_loss)


@twins("missing_sigmoid", missed="a loss of one's own that clamps is not read as one of probabilities")
def raw_scores_under_written_out_entropy(broken: bool) -> Fields:
    """A hand-written binary entropy that clamps, on raw scores."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        p = o.clamp(1e-6, 1 - 1e-6)
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    return case(ending(None if broken else torch.sigmoid, 1), batch=yes_no, loss=loss)


@twins("softmax_single_unit", "softmax_wrong_axis")
def softmax_of_one_unit(broken: bool) -> Fields:
    """Softmax over a single unit is 1."""
    return case(ending(softmax if broken else torch.sigmoid, 1), batch=yes_no, loss=F.binary_cross_entropy)


@twins("softmax_wrong_axis", "batch_mixing")
def softmax_over_the_batch(broken: bool) -> Fields:
    """softmax(dim=0)."""

    def last(o: Tensor) -> Tensor:
        return (o.softmax(0 if broken else 1) + 1e-9).log()

    return case(ending(last), loss=F.nll_loss)


@twins("softmax_wrong_axis", "batch_mixing")
def softmax_over_places(broken: bool) -> Fields:
    """A map of classes with its softmax over height instead of channels."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).log_softmax(2 if broken else 1)

    x = torch.randn(4, 3, 6, 6, generator=generator(0))
    return case(Model, batch=lambda: (x, torch.randint(0, 4, (4, 6, 6), generator=generator(1))), loss=F.nll_loss)


@twins("relu_on_logits")
def relu_before_cross_entropy(broken: bool) -> Fields:
    """A ReLU after the last layer."""
    return case(ending(F.relu if broken else None))


@twins("bounded_logits", "output_range")
def tanh_before_cross_entropy(broken: bool) -> Fields:
    """A tanh after the last layer."""
    return case(ending(torch.tanh if broken else None))


@twins("bounded_logits", "output_range")
def clamped_logits(broken: bool) -> Fields:
    """Logits clamped to one; the healthy ones to fifteen."""
    limit = 1.0 if broken else 15.0
    return case(ending(lambda o: o.clamp(-limit, limit)))


@twins("bounded_logits", "output_range")
def cosines_without_a_temperature(broken: bool) -> Fields:
    """Cosines of features and class vectors as logits; the healthy one multiplies them by 16."""

    class Model(Mlp):
        def forward(self, x: Tensor) -> Any:
            return F.linear(F.normalize(self.body(x)), F.normalize(self.head.weight)) * (1 if broken else 16)

    def model() -> nn.Module:
        made = Model()
        made.head.bias = None  # type: ignore[assignment]
        return made

    return case(model)


@twins("output_range")
def sigmoid_for_values_beyond_one(broken: bool) -> Fields:
    """A sigmoid, and targets from 0 to 10."""
    x, y = values()
    return case(ending(torch.sigmoid if broken else None, 1), batch=lambda: (x, y.abs() * 5), loss=F.mse_loss)


@twins("output_range", "relu_on_logits")
def relu_for_values_below_zero(broken: bool) -> Fields:
    """A ReLU, and standardised targets."""
    return case(ending(F.relu if broken else None, 1), batch=values, loss=F.mse_loss)


@twins("output_range")
def tanh_for_standardised_values(broken: bool) -> Fields:
    """A tanh, and targets up to two; the healthy ones are scaled to its range."""
    x, y = values()
    y = y if broken else y / (y.abs().max() * 1.1)
    return case(ending(torch.tanh, 1), batch=lambda: (x, y), loss=F.mse_loss)


@twins("target_broadcast", "shape_mismatch")
def column_against_vector(broken: bool) -> Fields:
    """[N, 1] against [N]."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return ((o - y) ** 2).mean()

    x, y = values()
    return case(ending(None, 1), batch=lambda: (x, y[:, 0] if broken else y), loss=loss)


@twins("target_broadcast", "shape_mismatch")
def vector_against_column(broken: bool) -> Fields:
    """The output is squeezed, the target is not; mean absolute error."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return (o - y).abs().mean()

    return case(ending(lambda o: o[:, 0] if broken else o, 1), batch=values, loss=loss)


@twins("label_off_by_one", "wrong_output_units")
def labels_from_one(broken: bool) -> Fields:
    """Classes counted from 1, beside one unit more."""
    x, y = rows()
    return case(ending(None, 6 if broken else 5), batch=lambda: (x, y + broken))


@twins("wrong_loss")
def class_numbers_as_values(broken: bool) -> Fields:
    """The number of the class as the target of a squared error; the healthy one fits one-hot targets."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(o[:, 0], y.float()) if broken else F.mse_loss(o, F.one_hot(y, 5).float())

    return case(ending(None, 1 if broken else 5), loss=loss, classes=5)


@twins("wrong_reduction")
def sum_of_squares(broken: bool) -> Fields:
    """reduction='sum' over rows and columns."""
    loss = nn.MSELoss(reduction="sum" if broken else "mean")
    return case(ending(None, 4), batch=lambda: values(outputs=4), loss=loss)


@twins("wrong_reduction")
def sum_of_entropies(broken: bool) -> Fields:
    """cross_entropy summed over the batch."""
    return case(loss=lambda o, y: F.cross_entropy(o, y, reduction="sum" if broken else "mean"))


START = ("over_confident_start", "too_large_init")


@twins(*START)
def head_ten_thousand_times_too_large(broken: bool) -> Fields:
    """An initialisation that multiplies where it should divide."""

    def model() -> nn.Module:
        made = Mlp()
        if broken:
            with torch.no_grad():
                made.head.weight.mul_(1e4)
        return made

    return case(model)


@twins(*START, "bounded_logits")
def logits_times_a_hundred(broken: bool) -> Fields:
    """A temperature on the wrong side of the division."""
    return case(ending(lambda o: o * 100 if broken else o / 2))


@twins(*START)
def all_weights_of_deviation_one(broken: bool) -> Fields:
    """normal_(0, 1) on every layer."""

    def model() -> nn.Module:
        made = Mlp(units=64)
        for each in made.modules():
            if isinstance(each, nn.Linear):
                nn.init.normal_(each.weight, std=1.0 if broken else each.in_features**-0.5)
        return made

    return case(model)


@twins(*START)
def values_start_far_off(broken: bool) -> Fields:
    """A regression whose bias starts at 300, with standardised targets."""

    def model() -> nn.Module:
        made = Mlp(outputs=1)
        nn.init.constant_(made.head.bias, 300.0 if broken else 0.0)
        return made

    return case(model, batch=values, loss=F.mse_loss)


@PROGRAMS.healthy()
def log_softmax_before_cross_entropy() -> Fields:
    """Applied twice it is what it is once."""
    return case(ending(lambda o: o.log_softmax(-1)))


@PROGRAMS.healthy()
def smoothed_labels() -> Fields:
    return case(loss=nn.CrossEntropyLoss(label_smoothing=0.1))


@PROGRAMS.healthy()
def ratings_under_squared_error() -> Fields:
    """Stars from 1 to 5."""
    x, y = rows()
    return case(ending(None, 1), batch=lambda: (x, y[:, None].float() + 1), loss=F.mse_loss)


@PROGRAMS.healthy()
def ratings_from_a_scaled_sigmoid() -> Fields:
    """1 + 4 sigmoid, whose ends are just the targets'."""
    x, y = rows()
    last = lambda o: 0.8 + 4.4 * o.sigmoid()  # noqa: E731
    return case(ending(last, 1), batch=lambda: (x, y[:, None].float() + 1), loss=F.mse_loss)


@PROGRAMS.healthy()
def background_is_class_zero() -> Fields:
    """A segmentation whose batch holds no background: labels from 1."""
    net = lambda: nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1))  # noqa: E731
    x = torch.randn(4, 3, 6, 6, generator=generator(0))
    return case(net, batch=lambda: (x, torch.randint(1, 4, (4, 6, 6), generator=generator(1))))


@PROGRAMS.healthy()
def background_is_ignored() -> Fields:
    """Class 0 stands for what is left out."""
    x, y = rows(classes=6)
    return case(ending(None, 6), batch=lambda: (x, y), loss=nn.CrossEntropyLoss(ignore_index=0))


@PROGRAMS.healthy()
def soft_capped_logits() -> Fields:
    return case(ending(lambda o: 30 * torch.tanh(o / 30)))


@PROGRAMS.healthy()
def tanh_clipped_scores() -> Fields:
    """10 tanh, as pointer networks have it."""
    return case(ending(lambda o: 10 * torch.tanh(o)))


@PROGRAMS.healthy()
def softplus_of_positive_values() -> Fields:
    x, y = values()
    return case(ending(F.softplus, 1), batch=lambda: (x, y.abs()), loss=F.mse_loss)


@PROGRAMS.healthy()
def relu_of_counts() -> Fields:
    """Rectified outputs for targets that are never below 0."""
    x, y = values()
    return case(ending(lambda o: F.relu(o + 1), 1), batch=lambda: (x, y.abs().round()), loss=F.mse_loss)


@PROGRAMS.healthy()
def sums_of_a_vae() -> Fields:
    """Reconstruction summed over pixels and rows, and the divergence with it."""

    class Vae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Linear(20, 8), nn.Linear(4, 20)

        def forward(self, x: Tensor) -> Any:
            mean, spread = self.encode(x).chunk(2, 1)
            z = mean + torch.randn_like(mean) * (spread / 2).exp() if self.training else mean
            return self.decode(z), mean, spread

    def loss(o: Any, y: Tensor) -> Tensor:
        out, mean, spread = o
        divergence = -0.5 * (1 + spread - mean**2 - spread.exp()).sum()
        return F.binary_cross_entropy_with_logits(out, y, reduction="sum") + divergence

    x = (rows()[0] > 0).float()
    return case(Vae, batch=lambda: (x, x), loss=loss)


@PROGRAMS.healthy()
def raw_features() -> Fields:
    """Columns of very different units."""
    x, y = rows()
    units = torch.logspace(-1, 2.3, 20)
    return case(batch=lambda: (x * units + units, y))


@PROGRAMS.healthy()
def one_positive_in_64() -> Fields:
    x = torch.randn(64, 20, generator=generator(0))
    y = (torch.arange(64) == 7).float()[:, None]
    return case(ending(None, 1), batch=lambda: (x, y), loss=F.binary_cross_entropy_with_logits)


@PROGRAMS.healthy()
def bias_of_the_prior() -> Fields:
    """A head that starts at the log-odds of 1 in 100, on a batch of 2 in 16."""

    def model() -> nn.Module:
        made = Mlp(outputs=1)
        nn.init.constant_(made.head.bias, -4.6)
        return made

    batch = lambda: (rows()[0], (torch.arange(ROWS) % 8 == 3).float()[:, None])  # noqa: E731
    return case(model, batch=batch, loss=F.binary_cross_entropy_with_logits)


@PROGRAMS.healthy()
def factorised_matrix() -> Fields:
    """Products of drawn factors of 32 dimensions, and ratings from 1 to 5."""

    class Factors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.things = nn.Embedding(10, 32), nn.Embedding(12, 32)

        def forward(self, x: Tensor) -> Tensor:
            return (self.users(x[:, 0]) * self.things(x[:, 1])).sum(1)

    x = torch.randint(0, 10, (ROWS, 2), generator=generator(5))
    return case(Factors, batch=lambda: (x, rows()[1].float() + 1), loss=F.mse_loss)


@PROGRAMS.healthy()
def clip_with_its_temperature() -> Fields:
    """In-batch contrast with a scale of 14 at the start."""

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(12, 16), nn.Linear(8, 16)
            self.scale = nn.Parameter(torch.tensor(2.6593))

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.scale.exp() * F.normalize(self.left(left)) @ F.normalize(self.right(right)).T

    x = rows()[0]
    inputs = (x[:, :12], x[:, 12:])
    loss = lambda o, y: (CE(o, y) + CE(o.T, y)) / 2  # noqa: E731
    return case(Clip, batch=lambda: (inputs, torch.arange(ROWS)), loss=loss)


@PROGRAMS.healthy()
def warm_start() -> Fields:
    """Weights from training on other rows of the same task."""
    rule = torch.randn(20, 5, generator=generator(7))

    def model() -> nn.Module:
        made, x = Mlp(), torch.randn(128, 20, generator=generator(8))
        optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            CE(made(x), (x @ rule).argmax(1)).backward()
            optimizer.step()
        return made

    return case(model, batch=lambda: (rows()[0], (rows()[0] @ rule).argmax(1)))
