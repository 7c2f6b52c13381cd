"""Each fault that is planted in a torch case changes its program as promised, and the healthy case stays as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pytest_overfit import Case, OverfitError
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.data.splits import open_split
from pytest_overfit.data.telling import batch_of
from pytest_overfit.data.tree import leaves
from pytest_overfit.run import learner_of
from pytest_overfit.selftest.faults import FAULTS
from pytest_overfit.selftest.run import plant
from tests.selftest import torch_cases as cases

BY_NAME = {each.name: each for each in FAULTS}


def planted(case: Case, fault: str) -> Case:
    found = plant(case, [BY_NAME[fault]])[fault]
    assert isinstance(found, Case), found
    return found


def reason(case: Case, fault: str) -> str:
    found = plant(case, [BY_NAME[fault]])[fault]
    assert isinstance(found, str)
    return found


def model(case: Case, training: bool = False) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = case.model()
    return made.train(training)


def answers(case: Case, training: bool = False, x: Tensor | None = None) -> Tensor:
    made = model(case, training)
    torch.manual_seed(1)
    out: Tensor = made(cases.inputs() if x is None else x)
    return out


def pair(case: Case, fault: str, training: bool = False) -> tuple[Tensor, Tensor]:
    """Answers of the healthy case and of the planted one, from the same weights."""
    return answers(case, training), answers(planted(case, fault), training)


def same(first: Tensor, second: Tensor) -> bool:
    return bool(torch.allclose(first, second, atol=1e-6))


def moved(case: Case, steps: int = 1) -> Tensor:
    """How far the first steps move all parameters."""
    learner = learner_of(case, 0)
    assert isinstance(learner, TorchLearner)
    before = [each.detach().clone() for each in learner.model.parameters()]
    learner.train(steps)
    changes = zip(learner.model.parameters(), before, strict=True)
    return torch.cat([(after.detach() - first).flatten() for after, first in changes])


# ----------------------------------------------------------------------------------------------------- the forward pass

ON_TOP: dict[str, tuple[Callable[[], Case], Callable[[Tensor], Tensor]]] = {
    "double_softmax": (cases.classes, lambda out: out.softmax(1)),
    "double_sigmoid": (cases.binary, torch.sigmoid),
    "softmax_wrong_axis": (cases.classes, lambda out: out.softmax(0)),
    "relu_on_logits": (cases.classes, F.relu),
    "output_range": (cases.values, torch.sigmoid),
    "batch_mixing": (cases.classes, lambda out: out + out.roll(1, 0)),
}


@pytest.mark.parametrize("fault", ON_TOP)
def test_what_is_put_on_top(fault: str) -> None:
    make, function = ON_TOP[fault]
    healthy, broken = pair(make(), fault)
    assert same(broken, function(healthy))


def test_the_last_softmax_is_taken_off() -> None:
    healthy, broken = pair(cases.probabilities(), "missing_softmax")
    assert not same(healthy, broken)
    assert same(broken.log_softmax(1), healthy)


def test_the_last_sigmoid_is_taken_off() -> None:
    case = cases.binary(model=lambda: cases.net(1, nn.Sigmoid()), loss=F.binary_cross_entropy)
    healthy, broken = pair(case, "missing_sigmoid")
    assert same(broken.sigmoid(), healthy)


def test_outputs_are_detached() -> None:
    healthy, broken = pair(cases.classes(), "detached_graph")
    assert healthy.requires_grad
    assert not broken.requires_grad
    assert same(healthy, broken)


def test_the_gradient_is_cut_before_the_last_layer() -> None:
    case = planted(cases.classes(), "cut_gradient")
    assert same(answers(case), answers(cases.classes()))
    made = model(case)
    made(cases.inputs()).sum().backward()
    assert [each.grad is None for each in made.parameters()] == [True, True, False, False]


def test_inputs_are_ignored() -> None:
    case = cases.classes()
    assert same(answers(planted(case, "input_ignored")), answers(case, x=torch.zeros(cases.ROWS, cases.FEATURES)))


def test_evaluation_is_random() -> None:
    case = planted(cases.classes(), "random_in_eval")
    made = model(case)
    assert not same(made(cases.inputs()), made(cases.inputs()))


def test_dropout_leaves_next_to_nothing_in_training_alone() -> None:
    case = cases.classes()
    assert same(*pair(case, "excessive_dropout"))
    out, bias = answers(planted(case, "excessive_dropout"), training=True), model(case)[2].bias  # type: ignore[index]
    assert float((out == bias).all(1).float().mean()) > 0.5  # no hidden unit was left


def test_outputs_are_dropped_in_training_alone() -> None:
    case = cases.classes()
    assert same(*pair(case, "dropout_on_output"))
    assert 0.2 < float((answers(planted(case, "dropout_on_output"), training=True) == 0).float().mean()) < 0.8


def test_a_branch_is_thrown_away() -> None:
    case = planted(cases.classes(), "unused_parameters")
    made = model(case)
    made(cases.inputs()).sum().backward()
    gradients = [each.grad for name, each in made.named_parameters() if "thrown_away" in name]
    assert [float(each.abs().sum()) for each in gradients if each is not None] == [0.0, 0.0]


def test_the_first_layer_is_not_registered() -> None:
    case = planted(cases.classes(), "unregistered_parameters")
    assert same(answers(case), answers(cases.classes()))
    assert [name for name, _ in model(case).named_parameters()] == ["2.weight", "2.bias"]


# -------------------------------------------------------------------------------------------------------------- weights


def test_weights_start_as_promised() -> None:
    zero, alike = (model(planted(cases.classes(), fault)) for fault in ("zero_init", "constant_init"))
    assert not any(each.any() for each in zero.parameters())
    assert all((each == each.max()).all() and each.all() for each in alike.parameters() if each.ndim > 1)
    sure, nan = (model(planted(cases.classes(), fault)) for fault in ("over_confident_start", "nan_parameter"))
    healthy = model(cases.classes())
    assert same(sure[2].weight, 100 * healthy[2].weight)  # type: ignore[index,union-attr,operator,arg-type]
    assert same(sure[0].weight, healthy[0].weight)  # type: ignore[index,union-attr,arg-type]
    assert [int(each.isnan().sum()) for each in nan.parameters()] == [1, 0, 0, 0]


def test_every_relu_is_dead() -> None:
    made = model(planted(cases.classes(), "dead_relu"))
    assert not made[1](made[0](cases.inputs())).any()  # type: ignore[index,operator]


def test_all_but_the_last_layer_is_frozen() -> None:
    made = model(planted(cases.classes(), "frozen_parameters"))
    assert [each.requires_grad for each in made.parameters()] == [False, False, True, True]


def test_running_statistics_stay() -> None:
    made = model(planted(cases.normalised(), "batchnorm_eval_mismatch"), training=True)
    made(cases.inputs())
    assert float(made[1].running_mean.abs().sum()) == 0  # type: ignore[index,union-attr,operator]
    healthy = model(cases.normalised(), training=True)
    healthy(cases.inputs())
    assert float(healthy[1].running_mean.abs().sum()) > 0  # type: ignore[index,union-attr,operator]


def test_dropout_never_drops() -> None:
    made = model(planted(cases.normalised(), "inert_regularizer"), training=True)
    assert made.training
    assert same(made[3](torch.ones(200)), torch.ones(200))  # type: ignore[index,operator]
    for case in (cases.classes(), cases.classes(model=TwoLayers)):
        unused = model(planted(case, "inert_regularizer"))
        assert [each.p for each in unused.modules() if isinstance(each, nn.Dropout)] == [0.5]
        assert same(unused.train()(cases.inputs()), answers(case))


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.layer(x)))
        return out


# -------------------------------------------------------------------------------------------------------------- updates

SCALED = {"lr_zero": 0.0, "lr_too_low": 1e-4, "lr_too_high": 1e4, "gradient_ascent": -1.0, "update_skipped": 0.0}


@pytest.mark.parametrize("make", [cases.classes, cases.looped])
@pytest.mark.parametrize("fault", SCALED)
def test_the_first_update_is_scaled(fault: str, make: Callable[[], Case]) -> None:
    before, after = moved(make()), moved(planted(make(), fault))
    assert torch.allclose(after, SCALED[fault] * before, rtol=1e-3, atol=2e-7)


@pytest.mark.parametrize("make", [cases.classes, cases.looped])
def test_gradients_pile_up(make: Callable[[], Case]) -> None:
    case = make()
    broken = planted(case, "missing_zero_grad")
    assert same(moved(case, 1), moved(broken, 1))
    first, two = moved(broken, 1), moved(broken, 2)
    assert float((two - first).norm()) > 1.5 * float((moved(case, 2) - first).norm())  # the sum of two gradients


def test_zero_grad_is_as_it_was_after_a_step_without_it() -> None:
    own = torch.optim.Optimizer.zero_grad, nn.Module.zero_grad
    moved(planted(cases.looped(), "missing_zero_grad"), 2)
    assert (torch.optim.Optimizer.zero_grad, nn.Module.zero_grad) == own


def test_the_optimizer_holds_the_last_layer_only() -> None:
    still = moved(planted(cases.classes(), "optimizer_wrong_params"))
    first = 24 * cases.FEATURES + 24
    assert not still[:first].any()
    assert still[first:].all()


def test_updates_fade() -> None:
    case = planted(cases.classes(), "schedule_kills_rate")
    assert float((moved(case, 40) - moved(case, 30)).norm()) < 1e-4
    assert float((moved(cases.classes(), 40) - moved(cases.classes(), 30)).norm()) > 1e-2


def test_clipping_leaves_next_to_nothing() -> None:
    assert float(moved(planted(cases.classes(), "grad_clip_too_small")).norm()) < 1e-6


def test_decay_halves_the_weights() -> None:
    case = cases.classes()
    start = torch.cat([each.detach().flatten() for each in learner_of(case, 0).model.parameters()])  # type: ignore[attr-defined]
    assert same(moved(planted(case, "excessive_weight_decay")), moved(case) - 0.5 * start)


def test_epsilon_outweighs_the_gradients() -> None:
    case = cases.classes(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.5))
    assert float(moved(planted(case, "bad_adam_epsilon")).abs().max()) < 1e-4
    assert float(moved(case).abs().max()) > 0.1


def test_a_schedule_of_its_own_rates_keeps_them() -> None:
    def cycle(optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10_000)

    assert "schedule sets the rate" in reason(cases.classes(scheduler=cycle), "lr_too_low")


# --------------------------------------------------------------------------------------------------------------- losses


def loss(case: Case, out: Tensor, y: Tensor) -> float:
    assert case.loss is not None
    return float(case.loss(out, y).detach())


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_losses_are_others() -> None:
    x, y = batch_of(cases.values()).x, batch_of(cases.values()).y
    out = answers(cases.values(), x=x).detach()
    assert loss(planted(cases.values(), "wrong_reduction"), out, y) == pytest.approx(12 * float(F.mse_loss(out, y)))
    expected = float(((out - y.reshape(1, -1)) ** 2).mean())
    assert loss(planted(cases.values(), "target_broadcast"), out, y) == pytest.approx(expected)
    binary = float(F.binary_cross_entropy_with_logits(out, y))
    assert loss(planted(cases.values(), "wrong_loss"), out, y) == pytest.approx(binary)
    scores, numbers = answers(cases.classes()).detach(), cases.labels()
    squared = float(((scores - numbers[:, None]) ** 2).mean())
    assert loss(planted(cases.classes(), "wrong_loss"), scores, numbers) == pytest.approx(squared)


def test_a_root_at_zero_has_no_gradient() -> None:
    case = planted(cases.classes(), "sqrt_zero_gradient")
    out = answers(cases.classes()).detach().requires_grad_()
    assert case.loss is not None
    case.loss(out, cases.labels()).backward()
    assert loss(case, out, cases.labels()) == pytest.approx(float(F.cross_entropy(out.detach(), cases.labels())))
    assert out.grad is not None
    assert bool(out.grad.isnan().all())


# ----------------------------------------------------------------------------------------------------------------- data


def arrays(case: Case, name: str = "") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    batch = next(open_split(case, name).chunks()) if name else batch_of(case)
    return batch.x.numpy(), batch.y.numpy()


def test_inputs_are_others() -> None:
    x, y = arrays(cases.classes())
    alike, _ = arrays(planted(cases.classes(), "constant_input"))
    assert (alike == x[:1]).all()
    large, same_y = arrays(planted(cases.classes(), "unnormalised_input"))
    assert np.allclose(large, 1e4 * x)
    assert (same_y == y).all()
    holes, _ = arrays(planted(cases.classes(), "nan_in_input"))
    assert np.isnan(holes).sum() == 1
    twice, labels = arrays(planted(cases.classes(), "conflicting_labels"))
    assert (twice[::2] == twice[1::2]).all()
    assert (labels == y).all()


def test_targets_are_others() -> None:
    _, y = arrays(cases.classes())
    assert set(arrays(planted(cases.classes(), "labels_collapsed"))[1]) == {y[0]}
    assert (arrays(planted(cases.classes(), "label_off_by_one"))[1] == y + 1).all()
    assert np.allclose(arrays(planted(cases.values(), "unnormalised_target"))[1], 1e4 * arrays(cases.values())[1])


def test_splits_are_others() -> None:
    case = cases.split()
    (x, y), (val_x, val_y) = arrays(case, "train"), arrays(case, "val")
    shuffled_x, shuffled = arrays(planted(case, "misaligned_labels"), "train")
    assert (shuffled_x == x).all()
    assert (np.sort(shuffled) == np.sort(y)).all()
    assert (shuffled != y).mean() > 0.4
    renumbered = planted(case, "classes_renumbered")
    assert (arrays(renumbered, "val")[1] == (val_y + 1) % 3).all()
    assert (arrays(renumbered, "train")[1] == y).all()
    unseen = planted(case, "unseen_class")
    assert set(arrays(unseen, "train")[1]) == {0, 1}
    assert set(arrays(unseen, "val")[1]) == {0, 1, 2}
    told = planted(case, "label_in_input")
    for name, labels in (("train", y), ("val", val_y)):
        assert (arrays(told, name)[0][:, -1] == labels).all()
    assert (arrays(told, "train")[0][:, :-1] == x[:, :-1]).all()
    leaked, leaked_y = arrays(planted(case, "split_leak"), "val")
    rows = {row.tobytes(): label for row, label in zip(x, y, strict=True)}
    assert [row.tobytes() in rows for row in leaked] == [True] * 15 + [False] * 15
    assert all(rows[row.tobytes()] == label for row, label in zip(leaked[:15], leaked_y[:15], strict=True))
    assert (leaked[15:] == val_x[15:]).all()


@pytest.mark.parametrize("kind", ["loader", "dataset"])
def test_data_that_come_in_batches_are_changed_where_they_are_read(kind: str) -> None:
    from torch.utils.data import DataLoader, TensorDataset

    dataset = TensorDataset(cases.inputs(0, 60), cases.labels(60))
    given = dataset if kind == "dataset" else DataLoader(dataset, batch_size=20)
    case = cases.classes(batch=None, train=given, val=(cases.inputs(1, 30), cases.labels(30)))
    batches = list(open_split(planted(case, "labels_collapsed"), "train").chunks())
    assert sum(each.rows for each in batches) == 60
    assert {int(label) for each in batches for label in each.y} == {int(batches[0].y[0])}
    again = list(open_split(planted(case, "misaligned_labels"), "train").chunks())
    assert all((one.y == other.y).all() for one, other in zip(again, again, strict=True))


# ----------------------------------------------------------------------------------------------------- the healthy twin


def contents(case: Case) -> list[bytes]:
    made = [each.detach().numpy().tobytes() for each in model(case).parameters()]
    data = [leaf for part in (case.batch, case.train, case.val) for leaf in leaves(part)]
    return [*made, answers(case).detach().numpy().tobytes(), *(leaf.numpy().tobytes() for leaf in data)]


@pytest.mark.parametrize("make", [cases.classes, cases.split, cases.values, cases.binary, cases.normalised])
def test_the_case_stays_as_it_was(make: Callable[[], Case]) -> None:
    """Its models, their answers, its data, and every generator."""
    case = make()
    before, fields, state = contents(case), dict(vars(case)), torch.get_rng_state()
    found = plant(case)
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(vars(case)) == fields
    assert contents(case) == before
    assert all(each is not case for each in found.values())


def test_the_same_is_planted_each_time() -> None:
    one, other = (arrays(planted(cases.split(), "misaligned_labels"), "train")[1] for _ in range(2))
    assert (one == other).all()


# ---------------------------------------------------------------------------------------------------- what has no place


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.LazyLinear(8), nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.layer(x)))
        return out


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x), self.second(x)


def two_losses(outputs: Any, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs[0], y) + F.cross_entropy(outputs[1], y)


ODD: dict[str, Callable[[], Case]] = {
    "lazy": lambda: cases.classes(model=Lazy),
    "scripted": lambda: cases.classes(model=lambda: torch.jit.script(cases.net())),
    "compiled": lambda: cases.classes(model=lambda: torch.compile(cases.net(), backend="eager")),
    "two heads": lambda: cases.classes(model=TwoHeads, loss=two_losses),
    "step": cases.looped,
    "one layer": lambda: cases.classes(model=lambda: nn.Linear(6, 3)),
    "iterator": lambda: cases.classes(batch=None, train=(each for each in [(cases.inputs(), cases.labels())])),
    "loss with weights": lambda: cases.classes(loss=nn.CrossEntropyLoss(weight=torch.ones(3))),
    "parameters of its own": lambda: cases.classes(model=Bare),
}


class Bare(nn.Module):
    """No layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Lazy modules", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_planted_says_why(name: str) -> None:
    found = plant(ODD[name]())
    assert set(found) == set(BY_NAME)
    for fault, each in found.items():
        if isinstance(each, str):
            assert each, fault
            assert "Error:" not in each, f"{fault}: {each}"
        else:
            learner_is_made(each)
    assert any(isinstance(each, Case) for each in found.values())


def learner_is_made(case: Case) -> None:
    """Whatever refuses it does so as it refuses a user's own program."""
    with contextlib.suppress(OverfitError):
        learner_of(case, 0)


def test_at_least_twenty_faults_in_a_plain_case() -> None:
    assert sum(isinstance(each, Case) for each in plant(cases.split()).values()) >= 40


def test_a_loop_around_neither_framework_has_its_data() -> None:
    class Mean:
        def __init__(self) -> None:
            self.value = 0.0

    def step(model: Any, x: Any, y: Any) -> float:
        model.value += 0.1 * float(y.mean() - model.value)
        return float((y.mean() - model.value) ** 2)

    x = np.arange(48.0).reshape(12, 4)
    found = plant(Case(name="mean", model=Mean, step=step, batch=(x, np.arange(12) % 3)))
    assert {name for name, each in found.items() if isinstance(each, Case)} >= {"constant_input", "labels_collapsed"}
    assert "neither torch nor Keras" in str(found["lr_zero"])
