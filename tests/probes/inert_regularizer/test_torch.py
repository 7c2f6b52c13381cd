"""`inert_regularizer`: every planted fault beside its healthy twin, in torch, own loops and data sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from pytest_overfit import Case, CaseError, Verdict, run_probes
from pytest_overfit.core.limits import Resolved
from pytest_overfit.probes.inert_regularizer import InertRegularizerLimits
from pytest_overfit.probes.inert_regularizer.judgement import judge_regularizers

X = torch.randn(32, 10, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 3


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def verdict(model: Callable[[], Any], **fields: Any) -> Verdict:
    given = {"name": "case", "batch": (X, Y), **fields}
    if "step" not in given:
        given = {"loss": F.cross_entropy, "optimizer": sgd, **given}
    return run_probes(Case(model=model, **given), ["inert_regularizer"])[0]


def net(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), *middle, nn.Linear(64, 3))


class Net(nn.Module):
    """Two layers with something of the test's between them."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(10, 64), nn.Linear(64, 3), between
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, torch.relu(self.first(x)) + 0.01))


def failed(found: Verdict, *words: str) -> None:
    assert found.outcome == "failed", found.summary
    assert found.diagnoses or "weaker than min_decay" in found.summary, found.summary
    for each in words:
        assert each in found.summary, found.summary


def passed(found: Verdict, *words: str) -> None:
    assert found.outcome == "passed", found.summary
    assert found.diagnoses == (), found.summary
    for each in words:
        assert each in found.summary, found.summary


# ------------------------------------------------------------------ dropout of a module


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.5),
        nn.Dropout(0.5, inplace=True),
        nn.AlphaDropout(0.3),
        nn.FeatureAlphaDropout(0.3),
        nn.Dropout(1e-4),
        nn.Dropout(1.0),
    ],
    ids=repr,
)
def test_dropout_works(layer: nn.Module) -> None:
    passed(verdict(lambda: Net(lambda self, h: self.drop(h + 1), drop=layer)), "dropout")


def test_the_effect_is_the_share_that_was_dropped() -> None:
    found = verdict(lambda: net(nn.Dropout(0.25)))
    (finding,) = [each for each in found.findings if each.name == "dropout"]
    alive = 32 * 64 / 2  # a ReLU leaves about half
    assert isinstance(finding.value, float)
    assert abs(finding.value - 0.25) < 5 * math.sqrt(0.25 * 0.75 / alive)


def test_channels_are_dropped_whole() -> None:
    def conv() -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 10)), nn.Conv1d(1, 8, 3), nn.Dropout1d(0.2), nn.Flatten(), nn.Linear(64, 3)
        )

    passed(verdict(conv), "dropout")


def test_a_layer_that_is_never_called() -> None:
    failed(verdict(lambda: Net(lambda self, h: h, drop=nn.Dropout(0.5))), "Dropout drop (p = 0.5) is inert", "never")


def test_a_result_that_is_thrown_away() -> None:
    def forgets(self: Any, h: Tensor) -> Tensor:
        self.drop(h)
        return h

    failed(verdict(lambda: Net(forgets, drop=nn.Dropout(0.5))), "no output of the model depends on its result")
    passed(verdict(lambda: Net(forgets, drop=nn.Dropout(0.5, inplace=True)), loss=lambda o, y: F.cross_entropy(o, y)))


def test_no_gradient_does_not_mean_thrown_away() -> None:
    """A mask by comparison cuts the gradient; moving the result still moves the outputs."""

    def gates(self: Any, h: Tensor) -> Tensor:
        return h * (self.drop(h) > 0.5)

    passed(verdict(lambda: Net(gates, drop=nn.Dropout(0.5))))


def test_evaluation_mode_inside_forward() -> None:
    def before(self: Any, h: Tensor) -> Tensor:
        self.eval()
        return self.drop(h)

    def after(self: Any, h: Tensor) -> Tensor:
        h = self.drop(h)
        self.eval()
        return h

    for between in (before, after):
        failed(verdict(lambda between=between: Net(between, drop=nn.Dropout(0.5))), "in evaluation mode while")


def test_a_factory_that_returns_evaluation_mode_is_fine_where_the_loop_trains() -> None:
    passed(verdict(lambda: net(nn.Dropout(0.5)).eval()))


def test_probability_0_is_a_note() -> None:
    found = verdict(lambda: net(nn.Dropout(0.0), nn.Identity()))
    assert found.outcome == "not_applicable"
    assert "no regulariser found" in found.summary
    assert "Dropout 2" in found.summary


def test_zeros_cannot_tell() -> None:
    found = verdict(lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(10, 3)), batch=(torch.zeros(32, 10), Y))
    assert found.outcome == "inconclusive", found.summary
    assert "all zeros" in found.summary


def test_a_branch_for_training_only() -> None:
    def noisy(self: Any, h: Tensor) -> Tensor:
        return self.drop(h) if self.training else h

    passed(verdict(lambda: Net(noisy, drop=nn.Dropout(0.5))))


class Block(nn.Module):
    """As in residual nets: only a block with a shortcut drops its path."""

    def __init__(self, shortcut: bool) -> None:
        super().__init__()
        self.linear, self.drop_path, self.shortcut = nn.Linear(10, 10), nn.Dropout(0.2), shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.linear(x)) if self.shortcut else self.linear(x)


def test_a_block_without_a_shortcut_has_nothing_to_drop() -> None:
    passed(verdict(lambda: nn.Sequential(Block(False), Block(True), nn.Linear(10, 3))))
    failed(verdict(lambda: nn.Sequential(Block(False), nn.Linear(10, 3))), "never called")


def test_a_part_that_this_batch_does_not_reach() -> None:
    def skips(self: Any, h: Tensor) -> Tensor:
        return h

    found = verdict(lambda: Net(skips, other=nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))))
    assert found.outcome == "not_applicable", found.summary


def test_a_frozen_part_in_evaluation_mode() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    def part(trains: bool) -> nn.Module:
        body = Frozen(nn.Linear(10, 10), nn.Dropout(0.5))
        return nn.Sequential(body.requires_grad_(trains), nn.Linear(10, 3))

    assert verdict(lambda: part(False)).outcome == "not_applicable"
    failed(verdict(lambda: part(True)), "in evaluation mode while the model trained")


@pytest.mark.filterwarnings("ignore:dropout option adds dropout")
def test_a_recurrent_layer_drops_between_its_layers_only() -> None:
    class Recurrent(nn.Module):
        def __init__(self, layers: int) -> None:
            super().__init__()
            self.lstm = nn.LSTM(2, 16, layers, dropout=0.5, batch_first=True)
            self.last = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.lstm(x.reshape(-1, 5, 2))[0][:, -1])

    passed(verdict(lambda: Recurrent(2)))
    failed(verdict(lambda: Recurrent(1)), "LSTM of one layer has no place for it")


def test_attention_and_its_layers() -> None:
    def encoder() -> nn.Module:
        layer = nn.TransformerEncoderLayer(10, 2, 20, dropout=0.2, batch_first=True)
        return nn.Sequential(nn.Unflatten(1, (1, 10)), nn.TransformerEncoder(layer, 1), nn.Flatten(), nn.Linear(10, 3))

    passed(verdict(encoder), "dropout (4 places)")


class DropPath(nn.Module):
    """Drops whole rows. `keeps`: 1 / (1 - p) where it trains, or (1 - p) where it evaluates, are both in use."""

    def __init__(self, drop_prob: float, broken: str = "") -> None:
        super().__init__()
        self.drop_prob, self.broken = drop_prob, broken

    def forward(self, x: Tensor) -> Tensor:
        if self.broken == "never" or (not self.training and self.broken != "always"):
            return x * (1 - self.drop_prob)
        return x * (torch.rand(len(x), 1) >= self.drop_prob)


@pytest.mark.parametrize("rate", [0.5, 0.05])
def test_stochastic_depth_written_by_hand(rate: float) -> None:
    passed(verdict(lambda: net(DropPath(rate))))
    failed(verdict(lambda: net(DropPath(rate, "never"))), "is inert: in training it drops nothing")
    failed(verdict(lambda: net(DropPath(rate, "always"))), "in evaluation too")


def test_tiny_inputs_are_told_from_zeros() -> None:
    """A layer scale of 1e-6 before the drop path, as recent vision models begin with."""
    passed(verdict(lambda: Net(lambda self, h: h + self.path(1e-6 * h), path=DropPath(0.1))))


# ------------------------------------------------------------------ dropout by a function


def test_functional_dropout() -> None:
    passed(verdict(lambda: Net(lambda self, h: F.dropout(h, 0.3, self.training))))
    passed(verdict(lambda: Net(lambda self, h: F.dropout(h, 0.3) if self.training else h)))
    failed(verdict(lambda: Net(lambda self, h: F.dropout(h, 0.3))), "in evaluation too", "training=self.training")
    failed(verdict(lambda: Net(lambda self, h: F.dropout(h, 0.3, training=False))), "called with training=False")


def test_dropout_that_is_meant_to_stay_on() -> None:
    option = {"inert_regularizer": {"always_on": True}}
    passed(verdict(lambda: Net(lambda self, h: F.dropout(h, 0.3)), options=option))
    with pytest.raises(CaseError, match="did you mean 'always_on'"):
        verdict(net, options={"inert_regularizer": {"allways_on": True}})
    with pytest.raises(CaseError, match="expected True or False, got 1"):
        verdict(net, options={"inert_regularizer": {"always_on": 1}})


def attention(rate: Callable[[Any], float]) -> Callable[[Any, Tensor], Tensor]:
    def between(self: Any, h: Tensor) -> Tensor:
        q = h.reshape(-1, 1, 8, 8)
        return F.scaled_dot_product_attention(q, q, q, dropout_p=rate(self)).reshape(-1, 64)

    return between


def test_fused_attention_drops_in_every_mode_unless_told() -> None:
    drop = nn.Dropout(0.2)  # as libraries do: the module is never called, its p is used
    passed(verdict(lambda: Net(attention(lambda self: self.drop.p if self.training else 0.0), drop=drop)))
    failed(verdict(lambda: Net(attention(lambda self: 0.2))), "dropout_p holds in every mode")
    failed(verdict(lambda: Net(attention(lambda self: 0.0), drop=drop)), "never called")


# ------------------------------------------------------------------ a name is only a reason to look


class Made(nn.Module):
    """A module that does what the test says; subclasses have names."""

    def __init__(self, does: Callable[[Any, Tensor], Tensor], **attributes: Any) -> None:
        super().__init__()
        self.does = does
        vars(self).update(attributes)

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


class FeatureDrop(Made):
    pass


class GaussianNoise(Made):
    pass


def between(layer: Callable[[], nn.Module]) -> Verdict:
    return verdict(lambda: Net(lambda self, h: self.part(h), part=layer()))


FUNCTIONS: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "dropout": lambda x, training: F.dropout(x, 0.5, training),
    "dropout1d": lambda x, training: F.dropout1d(x[:, :, None], 0.5, training)[:, :, 0],
    "torch": lambda x, training: torch.dropout(x, 0.5, training),
    "feature": lambda x, training: torch.feature_dropout(x[:, :, None], 0.5, training)[:, :, 0],
    "native": lambda x, training: torch.native_dropout(x, 0.5, training)[0],
    "alpha": lambda x, training: torch.alpha_dropout(x, 0.5, training),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("kind", [Made, FeatureDrop])
def test_a_function_inside_is_looked_at_whatever_the_module_is_called(kind: type[Made], function: Any) -> None:
    passed(between(lambda: kind(lambda self, x: function(x, self.training))), "dropout")
    failed(between(lambda: kind(lambda self, x: function(x, False))), "(p = 0.5) is inert", "training=False")


@pytest.mark.parametrize("attributes", [{}, {"p": 0.5}, {"drop_ratio": 0.25}])
def test_what_draws_nothing_and_does_the_same_in_both_modes_drops_nothing_at_random(attributes: Any) -> None:
    """The last half of the columns is cut off; every fourth is zero; a name with drop in it."""

    def last(self: Any, x: Tensor) -> Tensor:
        return torch.cat([x[:, :32], torch.zeros_like(x[:, 32:])], 1)

    def fourth(self: Any, x: Tensor) -> Tensor:
        return x * (torch.arange(64) % 4 != 0)

    for does in (last, fourth, lambda self, x: torch.tanh(x)):
        found = between(lambda does=does: FeatureDrop(does, **attributes))
        assert found.outcome == "not_applicable", found.summary
        assert any("is not a regulariser, whatever its name says" in each.message for each in found.findings)


def test_what_takes_no_numbers_is_no_regulariser_either() -> None:
    table = torch.randn(32, 64)
    found = verdict(
        lambda: Net(lambda self, h: h + self.part(torch.arange(32)), part=GaussianNoise(lambda _, t: table[t]))
    )
    assert found.outcome == "not_applicable", found.summary


@pytest.mark.parametrize("scale", [1.0, 0.8])
def test_a_declared_rate_that_keeps_everything_is_inert_still(scale: float) -> None:
    failed(between(lambda: FeatureDrop(lambda self, x: x * scale, drop_prob=0.2)), "(p = 0.2) is inert")
    mask = (torch.arange(64) % 2).float()
    of_mode = lambda self, x: x * mask * 2 if self.training else x  # noqa: E731
    failed(between(lambda: FeatureDrop(of_mode, p=0.5)), "one input gets the same output each time")


def noisy(self: Any, x: Tensor) -> Tensor:
    return x + self.sigma * torch.randn_like(x) if self.training and self.on else x


def test_noise_by_its_declared_size() -> None:
    passed(between(lambda: GaussianNoise(noisy, sigma=0.2, on=True)), "noise")
    failed(
        between(lambda: GaussianNoise(noisy, sigma=0.2, on=False)), "(size = 0.2) is inert: in training it adds nothing"
    )
    found = between(lambda: GaussianNoise(noisy, sigma=0.0, on=True))
    assert found.outcome == "not_applicable"
    assert "with probability or size 0: GaussianNoise part" in found.summary


def test_noise_is_taken_out_of_the_twin_and_what_cannot_be_is_said() -> None:
    from pytest_overfit.adapters.dispatch import trainer_for
    from pytest_overfit.data.splits import open_split

    def twin(*parts: nn.Module) -> Any:
        case = Case(name="c", model=lambda: net(*parts), loss=F.cross_entropy, optimizer=sgd, train=(X, Y))
        return trainer_for(case, open_split(case, "train"), 0, plain=True)

    quiet = twin(GaussianNoise(noisy, sigma=0.2, on=True))
    assert quiet.removed == ("noise 0.2 (2)",)
    assert quiet.remarks == ()
    drawn = twin(nn.Dropout(0.5), GaussianNoise(lambda _, x: x + 0.1 * torch.randn_like(x)))
    assert drawn.removed == ("dropout 0.5 (2)",)
    assert "is random in training, in a way that could not be taken out" in drawn.remarks[0]


# ------------------------------------------------------------------ weight decay


def adamw(**given: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.AdamW(parameters, **{"lr": 1e-3, **given})


def shrink(found: Verdict) -> float:
    (finding,) = [each for each in found.findings if each.name in ("weight decay", "penalty")]
    assert isinstance(finding.value, float)
    return finding.value


def test_decay_is_what_the_formula_says() -> None:
    """Decoupled: w (1 - lr wd) a step. Coupled under SGD: the same, and 1 / (1 - momentum) times it in the long run."""
    found = verdict(net, optimizer=adamw(weight_decay=0.01))
    passed(found, "weight decay")
    assert shrink(found) == pytest.approx(-math.expm1(-10_000 * 1e-5), rel=0.01)
    plain = verdict(net, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=1e-4))
    assert shrink(plain) == pytest.approx(-math.expm1(-10_000 * 1e-5), rel=0.02)
    momentum = verdict(net, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=1e-4, momentum=0.9))
    assert 5e-5 < -math.log1p(-shrink(momentum)) / 10_000 < 1e-4


def test_decay_added_to_the_gradient_of_adam_is_measured() -> None:
    found = verdict(net, optimizer=lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=1e-4))
    passed(found)
    (finding,) = [each for each in found.findings if each.name == "weight decay"]
    assert "times what the same number does in a decoupled optimizer" in finding.message


def test_decay_that_is_too_small() -> None:
    failed(verdict(net, optimizer=adamw(lr=1e-4, weight_decay=1e-4)), "weight_decay 0.0001 of AdamW is inert")
    passed(verdict(net, optimizer=adamw(lr=1e-4, weight_decay=0.05)))


def test_decay_of_half_precision_weights_is_swallowed() -> None:
    half = {"batch": (X.bfloat16(), Y), "optimizer": adamw(weight_decay=0.1)}
    failed(verdict(lambda: net().bfloat16(), **half), "rounding")
    passed(verdict(net, optimizer=adamw(weight_decay=0.1)))


def test_the_optimizers_own_default_is_no_claim() -> None:
    found = verdict(net, optimizer=adamw(lr=1e-6))
    assert found.outcome == "not_applicable"
    assert "the optimizer's own default" in found.summary


def test_groups_that_all_say_no_decay() -> None:
    def none(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW([{"params": model.parameters(), "weight_decay": 0.0}], lr=1e-3, weight_decay=0.1)

    def biases_without(model: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": [each for each in model.parameters() if each.ndim > 1]},
            {"params": [each for each in model.parameters() if each.ndim == 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)

    failed(verdict(net, optimizer=none), "every parameter group sets weight_decay=0")
    passed(verdict(net, optimizer=biases_without))


def frozen_first() -> nn.Module:
    model = net()
    model[0].requires_grad_(False)  # type: ignore[index]
    return model


def test_decay_of_frozen_parameters() -> None:
    def wrong(model: Any) -> torch.optim.Optimizer:
        groups = [{"params": model[0].parameters(), "weight_decay": 0.01}, {"params": model[2].parameters()}]
        return torch.optim.SGD(groups, lr=0.1)

    failed(verdict(frozen_first, optimizer=wrong), "none of its 2 tensors has a gradient", "frozen_parameters")
    found = verdict(frozen_first, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01))
    passed(found)
    assert any("reaches 2 of 4 tensors" in each.message for each in found.findings)


def test_a_warm_up_that_begins_at_0() -> None:
    def warm_up(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 100))

    passed(verdict(net, optimizer=adamw(weight_decay=0.01), scheduler=warm_up))


def test_an_optimizer_that_never_moves() -> None:
    failed(verdict(net, optimizer=adamw(lr=0.0, weight_decay=0.1)), "lr_zero")


def with_penalty(power: int, detach: bool, factor: float = 1e-3) -> dict[str, Any]:
    live: dict[str, nn.Module] = {}

    def model() -> nn.Module:
        live["model"] = net()
        return live["model"]

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        weights = [each.detach() if detach else each for each in live["model"].parameters()]
        return F.cross_entropy(outputs, y) + factor * sum((each.abs() ** power).sum() for each in weights)

    return {"model": model, "loss": loss}


@pytest.mark.parametrize(("power", "name"), [(1, "L1"), (2, "L2")])
def test_a_penalty_in_the_loss(power: int, name: str) -> None:
    found = verdict(**with_penalty(power, detach=False))
    passed(found, "penalty")
    assert any(f"{name} penalty in the loss halves the weights" in each.message for each in found.findings)
    failed(verdict(**with_penalty(power, detach=True)), f"{name} penalty in the loss is inert", "no gradient")
    failed(verdict(**with_penalty(power, detach=False, factor=1e-11)), "is inert")


def test_a_learnt_temperature_in_the_loss_is_no_penalty() -> None:
    live: dict[str, Any] = {}

    def model() -> nn.Module:
        live["model"] = net()
        live["model"].register_parameter("temperature", nn.Parameter(torch.tensor(1.0)))
        return live["model"]

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs / live["model"].temperature.exp(), y)

    assert verdict(model, loss=loss).outcome == "not_applicable"


def test_a_penalty_shrinks_as_its_gradient_says() -> None:
    """SGD with factor c of the sum of squares: w (1 - 2 c lr) a step."""
    assert shrink(verdict(**with_penalty(2, detach=False, factor=1e-4))) == pytest.approx(
        -math.expm1(-10_000 * 2e-5), rel=0.05
    )


# ------------------------------------------------------------------ loops of one's own


def stepping(*, trains: bool, evaluates: bool = False, decay: float = 0.0) -> Callable[..., Tensor]:
    optimizers: dict[int, torch.optim.Optimizer] = {}

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if id(model) not in optimizers:
            optimizers[id(model)] = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=decay)
        if trains:
            model.train()
        optimizers[id(model)].zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizers[id(model)].step()
        if evaluates:
            model.eval()
            with torch.no_grad():
                model(x)
        return loss

    return step


def test_a_step_trains_in_training_mode() -> None:
    passed(verdict(lambda: net(nn.Dropout(0.5)), step=stepping(trains=False)))
    passed(verdict(lambda: net(nn.Dropout(0.5)).eval(), step=stepping(trains=True, evaluates=True)))
    mode = "in evaluation mode while the model trained"
    failed(verdict(lambda: net(nn.Dropout(0.5)).eval(), step=stepping(trains=False)), mode)
    failed(verdict(lambda: net(nn.Dropout(0.5)), step=stepping(trains=False, evaluates=True)), mode)


def test_dropout_that_a_step_calls_outside_its_model() -> None:
    """What becomes of its result cannot be followed, so that it drops is all that is asked."""
    train = stepping(trains=True)

    def dropping(rate: float) -> Callable[..., Tensor]:
        return lambda model, x, y: train(model, F.dropout(x, rate), y)

    found = verdict(net, step=dropping(0.5))
    passed(found, "dropout")
    assert any("dropout in (outside the model)" in each.message for each in found.findings)
    assert verdict(net, step=dropping(0.0)).outcome == "not_applicable"


def test_decay_inside_a_step() -> None:
    passed(verdict(net, step=stepping(trains=True, decay=1e-3)), "weight decay")
    failed(verdict(net, step=stepping(trains=True, decay=1e-9)), "weight_decay 1e-09 of SGD is inert")


def test_an_unknown_loop_has_nothing_to_look_at() -> None:
    found = verdict(object, step=lambda model, x, y: 1.0, batch=(X.numpy(), Y.numpy()))
    assert found.outcome == "not_applicable"


# ------------------------------------------------------------------ augmentation of data


class Rows(Dataset[tuple[Tensor, int]]):
    def __init__(self, transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = X[index % 32]
        return (row if self.transform is None else self.transform(row)), index % 3


class RandomNoise:
    """A transform that says it is random; `cached` makes it the same for a row each time."""

    def __init__(self, cached: bool = False) -> None:
        self.cached = cached

    def __call__(self, row: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0) if self.cached else None
        return row + torch.randn(row.shape, generator=generator)

    def __repr__(self) -> str:
        return "RandomNoise()"


@pytest.mark.parametrize("way", [lambda data: data, lambda data: Subset(data, range(48))])
def test_augmentation_of_a_dataset(way: Callable[[Any], Any]) -> None:
    steady, random = way(Rows()), way(Rows(RandomNoise()))
    data = {"batch": None, "train": random}
    passed(verdict(net, **data, val=steady, test=steady), "augmentation")
    failed(verdict(net, **data, val=random), "val=: the same sample, read twice, was not the same")
    failed(verdict(net, batch=None, train=steady, test=random), "test=")
    assert verdict(net, batch=None, train=steady, val=steady).outcome == "not_applicable"


def test_augmentation_of_a_loader() -> None:
    steady, random = DataLoader(Rows(), 32, shuffle=True), DataLoader(Rows(RandomNoise()), 32, shuffle=True)
    passed(verdict(net, batch=None, train=random, val=steady), "augmentation")
    failed(verdict(net, batch=None, train=steady, val=random), "val=")


def test_augmentation_of_batches_that_keep_their_order() -> None:
    class Batches:
        def __init__(self, noise: float, shuffle: bool) -> None:
            self.noise, self.shuffle = noise, shuffle

        def __iter__(self) -> Any:
            order = np.random.permutation(32) if self.shuffle else np.arange(32)
            x = X.numpy() + self.noise * np.random.normal(size=X.shape)
            yield x.astype("float32")[order], Y.numpy()[order]

    failed(verdict(net, train=(X, Y), val=Batches(0.1, shuffle=False)), "whose labels kept their order")
    for harmless in (Batches(0.0, shuffle=False), Batches(0.0, shuffle=True)):
        assert verdict(net, train=(X, Y), val=harmless).outcome == "not_applicable"


def test_an_augmentation_that_is_always_the_same() -> None:
    failed(verdict(net, batch=None, train=Rows(RandomNoise(cached=True))), "train=: its transform is inert", "Random")


# ------------------------------------------------------------------ state, cost, pytest


def test_nothing_is_left_behind() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    verdict(lambda: net(nn.Dropout(0.5)), optimizer=adamw(weight_decay=0.1), train=Rows(RandomNoise()))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_two_runs_say_the_same() -> None:
    def once() -> dict[str, Any]:
        form = verdict(lambda: net(nn.Dropout(0.5)), optimizer=adamw(weight_decay=0.1)).to_dict()
        return {key: value for key, value in form.items() if key != "seconds"}

    assert once() == once()


def test_through_pytest(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider -p no:randomly\n")
    pytester.makepyfile(
        """
        import torch
        import torch.nn.functional as F
        from torch import nn
        from pytest_overfit import Case, Overfit

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.drop, self.last = nn.Linear(10, 64), nn.Dropout(0.5), nn.Linear(64, 3)

            def forward(self, x):
                return self.last(F.relu(self.first(x)))

        def case(name, model):
            return Case(
                name=name, model=model, loss=F.cross_entropy, batch=lambda: (torch.randn(32, 10), torch.arange(32) % 3),
                optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
            )

        def test_forgotten(overfit: Overfit):
            overfit.inert_regularizer(case("forgotten", Net))

        def test_fine(overfit: Overfit):
            body = lambda: nn.Sequential(nn.Linear(10, 64), nn.Dropout(0.5), nn.Linear(64, 3))
            assert overfit.inert_regularizer(case("fine", body), min_decay=0.01).passed

        def test_nothing(overfit: Overfit):
            plain = case("nothing", lambda: nn.Linear(10, 3))
            overfit.inert_regularizer(Case(**{**vars(plain), "optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}))

        def test_too_strict(overfit: Overfit):
            overfit.inert_regularizer(case("strict", lambda: nn.Linear(10, 3)), min_decay=0.9)
        """
    )
    result = pytester.runpytest_inprocess("-rs")
    result.assert_outcomes(passed=1, failed=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*forgotten: FAILED: Dropout drop (p = 0.5) is inert: it is made, but never called in a training pass",
            "*FAIL*dropout*",
            "*ok*weight decay*(default)*weight_decay 0.05 of AdamW halves the weights in 14,000 steps",
            "*strict: FAILED: weight_decay 0.05 of AdamW is weaker than min_decay: over 10,000 steps it takes 0.4*",
            "*no regulariser found in the model*",
        ]
    )


@pytest.mark.parametrize("value", [0, 1, -1, True, "much"])
def test_a_limit_that_cannot_be(value: Any) -> None:
    with pytest.raises(CaseError, match="min_decay"):
        run_probes(Case(name="case", model=net, batch=(X, Y)), ["inert_regularizer"], min_decay=value)


# ------------------------------------------------------------------ the judgement alone

NOISE = {
    "kind": "dropout",
    "name": "Dropout drop",
    "rate": 0.5,
    "training": 0.5,
    "evaluation": 0.0,
    "called": True,
    "reached": True,
    "used": True,
    "switched_off": False,
    "frozen": False,
    "fixed": False,
    "held_back": "",
    "of_library": False,
    "why": "",
    "doubt": "",
}


def judged(*noises: dict[str, Any], always_on: bool = False, limits: Any = None) -> Any:
    measured = {
        "noises": [{**NOISE, **each} for each in noises],
        "shrinkages": [],
        "data": [],
        "off": [],
        "remarks": [],
        "always_on": always_on,
    }
    return judge_regularizers(measured, Resolved(limits or InertRegularizerLimits(), {}))


@given(
    training=st.none() | st.floats(0, 1),
    evaluation=st.none() | st.floats(0, 1),
    called=st.booleans(),
    used=st.none() | st.booleans(),
    frozen=st.booleans(),
    switched_off=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_only_what_was_seen_to_work_passes(**facts: Any) -> None:
    outcome = judged(facts).outcome
    works = bool(facts["called"] and facts["training"] and facts["used"] is not False and not facts["evaluation"])
    assert (outcome == "passed") == (works and not facts["frozen"])
    if facts["evaluation"]:
        assert outcome == "failed"
        assert judged(facts, always_on=True).outcome != "failed" or not works


def test_what_cannot_be_measured_is_not_passed_over() -> None:
    class Closed(torch.optim.SGD):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("a handle that cannot be copied")

    found = verdict(net, optimizer=lambda p: Closed(p, lr=0.1, weight_decay=0.01))
    assert found.outcome == "inconclusive", found.summary
    assert "could not be measured" in found.summary


def test_one_inert_place_fails_among_many() -> None:
    judgement = judged({}, {"training": 0.0, "name": "Dropout other"}, {})
    assert judgement.outcome == "failed"
    assert judgement.summary.startswith("Dropout other (p = 0.5) is inert")
    assert [each.outcome for each in judgement.findings] == ["passed", "failed", "passed"]


def test_what_was_not_looked_at_is_not_said() -> None:
    words = [each.message for each in judged({}, {"evaluation": None}).findings]
    assert words == ["Dropout drop changes its input in training and not in evaluation",
                     "Dropout drop changes its input in training; evaluation could not be looked at"]  # fmt: skip


def test_a_condition_the_wrong_way_round() -> None:
    def turned(self: Any, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, not self.training)

    failed(between(lambda: FeatureDrop(turned)), "changes its input in evaluation, and not in training")


def test_why_it_cannot_tell() -> None:
    def some_ids(self: Any, ids: Tensor) -> Tensor:
        return torch.where(torch.rand(ids.shape) < self.p, 0, ids) if self.training else ids

    ids = torch.randint(1, 9, (32,))
    net_of_ids = lambda: Net(lambda self, h: h + self.part(ids)[:, None], part=FeatureDrop(some_ids, p=0.3))  # noqa: E731
    found = verdict(net_of_ids)
    assert "undetermined: no floating-point numbers are given to it" in str(found.findings), found.findings
    found = verdict(lambda: Net(lambda self, h: h + self.part(0 * h), part=nn.Dropout(0.5)))
    assert "undetermined: its input is all zeros" in str(found.findings), found.findings


def test_a_decay_that_its_optimizer_does_not_take() -> None:
    class Forgetful(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            decays = [group["weight_decay"] for group in self.param_groups]
            for group in self.param_groups:
                group["weight_decay"] = 0.0
            super().step(closure)
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay

    failed(verdict(net, optimizer=lambda p: Forgetful(p, lr=0.1, weight_decay=0.01)), "steps do not take it")


def test_a_mode_that_the_model_itself_switches() -> None:
    def forward(self: Any, h: Tensor) -> Tensor:
        self.part.eval()
        return self.part(h)

    failed(verdict(lambda: Net(forward, part=nn.Dropout(0.5))), "something in the model calls eval()")


def test_a_place_that_a_library_never_calls_is_a_warning() -> None:
    judgement = judged({}, {"called": False, "training": None, "of_library": True})
    assert judgement.outcome == "passed"
    assert [each.outcome for each in judgement.findings] == ["passed", "warning"]
