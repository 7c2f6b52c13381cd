"""`overfit_batch` on real torch programs: every planted fault beside its healthy twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes, load_digits, load_wine
from torch import Tensor, nn

from pytest_overfit import Case, Verdict, run_probes
from pytest_overfit.adapters.dispatch import learner_for
from pytest_overfit.core.errors import ProgramError
from pytest_overfit.data.telling import batch_of
from pytest_overfit.measures.evaluation import close

ROWS = 24


def digits(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[:rows] / 16, y[:rows]


def diabetes(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    x, y = load_diabetes(return_X_y=True)
    x, y = x[:rows] * 20, y[:rows]
    return x, ((y - y.mean()) / y.std())[:, None]


def mlp(inputs: int = 64, outputs: int = 10, *last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs), *last)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=3e-3)


def faster(parameters: Any) -> torch.optim.Optimizer:
    """For language models: at a rate of 3e-3 they need 266 to 459 of the 500 steps, seed by seed."""
    return torch.optim.Adam(parameters, lr=1e-2)


def verdict(model: Callable[[], nn.Module], loss: Any, batch: Any, **fields: Any) -> Verdict:
    given = {"optimizer": adam, **fields}
    return run_probes(Case(name="case", model=model, loss=loss, batch=batch, **given), ["overfit_batch"])[0]


class IgnoresInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(10, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.zeros_like(x))


class AlwaysDrops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(F.relu(self.first(x)), 0.3))


class Rolls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).roll(1, dims=0)


class Flips(Rolls):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).flip(0)


class Cancels(nn.Module):
    """Large numbers cancel, so that float32 rounds a row otherwise in every place; rows stand alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)
        large = 1e4 * torch.arange(1.0, len(x) + 1, dtype=found.dtype)[:, None]
        return (found + large) - large


class Seeps(nn.Module):
    """A hundredth of each row's answer is another row's."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)
        return found + 0.01 * found.roll(1, 0)


class SkipsAtTimes(nn.Module):
    """Leaves a layer out at random while it trains, without scaling: most passes look as if nothing were random."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.extra, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        if not (self.training and float(torch.rand(())) < 0.05):
            hidden = hidden + self.extra(hidden).relu()
        found: Tensor = self.last(hidden)
        return found


class Shows(nn.Module):
    """Answers with something beside the logits."""

    def __init__(self, make: Callable[[Tensor, bool], Any]) -> None:
        super().__init__()
        self.net, self.make = mlp(), make

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: Tensor = self.net(x)
        return found, self.make(found.detach(), self.training)


def rows_in_two_orders(model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    x = torch.as_tensor(digits()[0], dtype=torch.float32)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(x)[order].numpy(), model(x[order]).numpy()


class DeadColumn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * torch.tensor([1.0, 0.0])


def two_columns() -> tuple[np.ndarray, np.ndarray]:
    x, y = diabetes()
    return x, np.concatenate([y, np.roll(y, 3)], axis=1)


def padded_language(rows: int = 16, length: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens from 1, and 0 as padding on most of each row."""
    random = np.random.default_rng(0)
    tokens = random.integers(1, 20, size=(rows, length))
    lengths = random.integers(2, 5, size=rows)
    tokens[np.arange(length)[None, :] >= lengths[:, None]] = 0
    return tokens, np.roll(tokens, -1, axis=1)


class Language(nn.Module):
    """Sees the position only when `blind`: it can learn where padding begins, and no word."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.blind = blind
        self.embed, self.net = nn.Embedding(20, 32), nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        seen = (tokens > 0).long() if self.blind else tokens
        return self.head(self.net(self.embed(seen))[0])


def per_token(outputs: Tensor, tokens: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), tokens.flatten())


def batch_norm(momentum: float | None = 0.1) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=momentum), nn.ReLU(), nn.Linear(64, 10))


def far_targets() -> tuple[np.ndarray, np.ndarray]:
    x, y = diabetes()
    return x, y + 100


def far_net() -> nn.Module:
    net = mlp(10, 1)
    with torch.no_grad():
        net[2].bias += 100
    return net


class TestBroken:
    def test_input_ignoring_net_at_target_mean_100(self) -> None:
        optimizer = lambda p: torch.optim.Adam(p, lr=0.1)  # noqa: E731
        found = verdict(IgnoresInput, F.mse_loss, far_targets(), optimizer=optimizer)
        assert found.outcome == "failed"
        assert verdict(far_net, F.mse_loss, far_targets()).outcome == "passed"

    def test_nll_loss_of_probabilities(self) -> None:
        found = verdict(lambda: mlp(64, 10, nn.Softmax(1)), F.nll_loss, digits())
        assert found.outcome == "failed"
        assert "the least nll_loss can be: it expects log-probabilities" in found.summary
        assert verdict(lambda: mlp(64, 10, nn.LogSoftmax(1)), F.nll_loss, digits()).outcome == "passed"

    @pytest.mark.parametrize(
        "loss", [lambda o, y: -F.cross_entropy(o, y), lambda o, y: F.log_softmax(o, 1).gather(1, y[:, None]).mean()]
    )
    def test_flipped_sign(self, loss: Any) -> None:
        assert verdict(mlp, loss, digits()).outcome == "failed"

    def test_flipped_sign_of_a_regression(self) -> None:
        assert verdict(lambda: mlp(10, 1), lambda o, y: -F.mse_loss(o, y), diabetes()).outcome == "failed"

    def test_batch_norm_with_momentum_0(self) -> None:
        found = verdict(lambda: batch_norm(0.0), F.cross_entropy, digits())
        assert found.outcome == "failed"
        assert "running statistics of BatchNorm1d 1 never move" in found.summary
        assert [(each.fault, each.confidence) for each in found.diagnoses] == [("batchnorm_eval_mismatch", "proved")]

    def test_dropout_that_stays_on(self) -> None:
        found = verdict(AlwaysDrops, F.cross_entropy, digits())
        assert found.outcome == "failed"
        assert any(each.name == "eval_forwards_agree" and "AlwaysDrops" in each.message for each in found.findings)

    @pytest.mark.parametrize("model", [Rolls, Flips])
    @pytest.mark.parametrize("rows", [2, 3, ROWS])
    def test_rows_mixed_up(self, model: type[nn.Module], rows: int) -> None:
        found = verdict(model, F.cross_entropy, digits(rows))
        assert found.outcome == "failed"
        assert any(each.name == "rows_stand_alone" for each in found.findings)

    def test_rounding_does_not_look_like_rows_mixed_up(self) -> None:
        found = verdict(Cancels, F.cross_entropy, digits())
        assert found.outcome == "passed"
        plain, permuted = rows_in_two_orders(Cancels())
        assert not close(plain, permuted)  # the check would have found it

    def test_rows_mixed_up_a_little(self) -> None:
        found = verdict(Seeps, F.cross_entropy, digits())
        assert found.outcome == "failed"
        assert [each.name for each in found.findings if each.outcome == "failed"] == ["rows_stand_alone"]
        assert close(*rows_in_two_orders(Seeps()), tolerance=0.05)  # no more than rounding may be

    def test_one_dead_column_of_two(self) -> None:
        found = verdict(DeadColumn, F.mse_loss, two_columns())
        assert found.outcome == "failed"
        assert "column 1, the worst of 2" in str(found.findings)
        assert verdict(lambda: mlp(10, 2), F.mse_loss, two_columns()).outcome == "passed"

    def test_language_model_that_learnt_padding_only(self) -> None:
        found = verdict(lambda: Language(blind=True), per_token, padded_language())
        assert found.outcome != "passed"
        assert verdict(Language, per_token, padded_language(), optimizer=faster).outcome == "passed"

    def test_double_softmax(self) -> None:
        assert verdict(lambda: mlp(64, 10, nn.Softmax(1)), F.cross_entropy, digits()).outcome == "failed"

    def test_target_that_broadcasts(self) -> None:
        x, y = diabetes()
        with pytest.warns(UserWarning, match="target size"):
            found = verdict(lambda: mlp(10, 1), F.mse_loss, (x, y[:, 0]))
        assert found.outcome == "failed"
        assert verdict(lambda: mlp(10, 1), F.mse_loss, (x, y)).outcome == "passed"

    def test_learning_rate_zero_names_what_never_moved(self) -> None:
        found = verdict(mlp, F.cross_entropy, digits(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
        assert found.outcome == "failed"
        assert found.steps == 5
        assert "4 of 4 trainable parameters never changed" in str(found.findings)

    def test_exploding_loss_says_when(self) -> None:
        found = verdict(lambda: mlp(10, 1), F.mse_loss, far_targets(), optimizer=lambda p: torch.optim.SGD(p, lr=50.0))
        assert found.outcome == "failed"
        assert "from step" in found.summary


def smoothed(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs, y, label_smoothing=0.2)


def soft_digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = digits()
    return x, 0.9 * np.eye(10)[y] + 0.1 * np.roll(np.eye(10)[y], 1, axis=1)


class TestHealthy:
    @pytest.mark.parametrize(
        "loss",
        [
            F.cross_entropy,
            smoothed,
            nn.CrossEntropyLoss(label_smoothing=0.2),
            nn.CrossEntropyLoss(weight=torch.linspace(0.2, 2, 10)),
            nn.CrossEntropyLoss(reduction="sum"),
            lambda o, y: F.log_softmax(o, 1).gather(1, y[:, None]).mean().neg(),
        ],
        ids=["plain", "smoothed", "smoothed_module", "class_weights", "sum", "by_hand"],
    )
    def test_losses_of_digits(self, loss: Any) -> None:
        found = verdict(mlp, loss, digits())
        assert found.outcome == "passed", found.summary

    def test_soft_targets(self) -> None:
        found = verdict(mlp, F.cross_entropy, soft_digits())
        assert found.outcome == "passed", found.summary

    def test_ignore_index(self) -> None:
        tokens, following = padded_language()
        loss = lambda o, y: F.cross_entropy(o.transpose(1, 2), y, ignore_index=0)  # noqa: E731
        found = verdict(Language, loss, (tokens, following))
        assert found.outcome == "passed", found.summary
        assert "token accuracy" in found.summary

    def test_learning_rate_schedule_that_starts_at_zero(self) -> None:
        warm_up = lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, max(0, step - 20) / 30))  # noqa: E731
        assert verdict(mlp, F.cross_entropy, digits(), scheduler=warm_up).outcome == "passed"

    @pytest.mark.parametrize("momentum", [0.1, 0.01, 0.001, None])
    def test_batch_norm_whose_statistics_lag(self, momentum: float | None) -> None:
        found = verdict(lambda: batch_norm(momentum), F.cross_entropy, digits())
        assert found.outcome == "passed", found.summary

    def test_frozen_batch_norm_stays_frozen(self) -> None:
        class Frozen(nn.Sequential):
            def train(self, mode: bool = True) -> Frozen:
                super().train(mode)
                self[1].eval()
                return self

        model = lambda: Frozen(*batch_norm())  # noqa: E731
        assert verdict(model, F.cross_entropy, digits()).outcome == "passed"

    def test_hand_written_batch_norm(self) -> None:
        class Norm(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("mean", torch.zeros(64))
                self.register_buffer("var", torch.ones(64))

            def forward(self, x: Tensor) -> Tensor:
                mean, var = self.mean, self.var
                if self.training:
                    mean, var = x.mean(0), x.var(0, unbiased=False)
                    self.mean.lerp_(mean.detach(), 0.01)
                    self.var.lerp_(var.detach(), 0.01)
                return (x - mean) / (var + 1e-5).sqrt()

        model = lambda: nn.Sequential(nn.Linear(64, 64), Norm(), nn.ReLU(), nn.Linear(64, 10))  # noqa: E731
        found = verdict(model, F.cross_entropy, digits())
        assert found.outcome == "passed", found.summary

    def test_dropout_one_half(self) -> None:
        model = lambda: nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10))  # noqa: E731
        assert verdict(model, F.cross_entropy, digits()).outcome == "passed"

    def test_contradictory_labels(self) -> None:
        x, y = digits()
        x[1], y[0], y[1] = x[0], 3, 4
        found = verdict(mlp, F.cross_entropy, (x, y))
        assert found.outcome == "passed", found.summary

    def test_multilabel(self) -> None:
        x, y = digits()
        labels = np.stack([y % 2, y > 4, y % 3 == 0], axis=1).astype(float)
        assert verdict(lambda: mlp(64, 3), F.binary_cross_entropy_with_logits, (x, labels)).outcome == "passed"

    def test_a_model_that_computes_its_own_loss(self) -> None:
        class WithLoss(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = Language()

            def forward(self, tokens: Tensor, labels: Tensor) -> dict[str, Tensor]:
                scores = self.net(tokens)
                router = 0.1 + 0.01 * scores.pow(2).mean()
                return {"loss": per_token(scores, labels) + router, "logits": scores}

        tokens, labels = padded_language()
        found = verdict(WithLoss, None, ({"tokens": tokens, "labels": labels}, None), optimizer=faster)
        assert found.outcome == "passed", found.summary
        assert "token accuracy" in found.summary

    def test_a_target_that_the_model_makes_is_no_prediction(self) -> None:
        loss = lambda o, y: F.cross_entropy(o, y) + 0.01 * F.mse_loss(o, o.roll(1, 0))  # noqa: E731
        found = verdict(mlp, loss, digits())
        scores = [each.name for each in found.findings if each.source == "default" and each.name != "loss_ratio"]
        assert scores == ["accuracy"]

    def test_auxiliary_outputs_in_training_only(self) -> None:
        class Auxiliary(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3))
                self.head, self.side = nn.Linear(64, 10), nn.Linear(64, 10)

            def forward(self, x: Tensor) -> Any:
                x = self.body(x)
                return (self.head(x), self.side(x)) if self.training else self.head(x)

        loss = lambda o, y: F.cross_entropy(o[0], y) + 0.4 * F.cross_entropy(o[1], y)  # noqa: E731
        found = verdict(Auxiliary, loss, digits())
        assert found.outcome == "passed", found.summary

    def test_embeddings_are_not_taken_for_classes(self) -> None:
        def triplet(outputs: Tensor, y: Tensor) -> Tensor:
            distance = torch.cdist(outputs, outputs)
            same = y[:, None] == y[None, :]
            worst = (distance * same).max(1).values - (distance + 1e3 * same).min(1).values
            return F.relu(worst + 1.0).mean()

        found = verdict(lambda: mlp(64, 16), triplet, digits())
        assert found.outcome == "passed", found.summary
        assert "agreement: not measured" in found.summary


class TestInputs:
    def test_tensors_and_arrays_give_the_same_losses(self) -> None:
        x, y = digits()
        tensors = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
        assert verdict(mlp, F.cross_entropy, (x, y)).losses == verdict(mlp, F.cross_entropy, tensors).losses

    def test_float64_model_gets_float64(self) -> None:
        assert verdict(lambda: mlp().double(), F.cross_entropy, digits()).outcome == "passed"

    def test_first_batch_of_a_loader(self) -> None:
        x, y = (torch.as_tensor(each) for each in digits(64))
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x.float(), y), batch_size=16, shuffle=True)
        found = verdict(mlp, F.cross_entropy, None, train=loader)
        assert found.outcome == "passed"
        assert found.data["rows"] == 16

    def test_first_rows_of_a_dataset(self) -> None:
        x, y = (torch.as_tensor(each) for each in digits(64))
        found = verdict(mlp, F.cross_entropy, None, train=lambda: torch.utils.data.TensorDataset(x.float(), y))
        assert found.outcome == "passed"
        assert found.data["rows"] == 32

    def test_lazy_layers(self) -> None:
        model = lambda: nn.Sequential(nn.LazyLinear(64), nn.ReLU(), nn.LazyLinear(10))  # noqa: E731
        assert verdict(model, F.cross_entropy, digits()).outcome == "passed"

    def test_an_optimizer_function_may_ask_for_the_model(self) -> None:
        found = verdict(mlp, F.cross_entropy, digits(), optimizer=lambda model: adam(model[2].parameters()))
        assert "2 of 4 trainable parameters never changed: 0.weight, 0.bias" in str(found.findings) or found.passed

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_the_device_of_the_parameters_is_respected(self) -> None:
        assert verdict(lambda: mlp().cuda(), F.cross_entropy, digits()).outcome == "passed"


@pytest.mark.parametrize(
    "make",
    [
        lambda found, training: found if training else found.double(),
        lambda found, training: found.to_sparse(),
        lambda found, training: found.to(torch.float8_e4m3fn),
        lambda found, training: found > 0,
    ],
    ids=["double in evaluation", "sparse", "float8", "bool"],
)
def test_outputs_in_any_layout_and_precision(make: Any) -> None:
    found = verdict(lambda: Shows(make), lambda outputs, y: F.cross_entropy(outputs[0], y), digits())
    assert found.outcome == "passed", found.summary


@pytest.mark.parametrize(("model", "is_reading"), [(mlp, True), (batch_norm, True), (SkipsAtTimes, False)])
def test_a_training_pass_is_a_reading_where_nothing_random_is_drawn(model: Any, is_reading: bool) -> None:
    case = Case(name="pass", model=model, loss=F.cross_entropy, optimizer=adam, batch=digits())
    seeds = range(5)
    assert {(learner_for(case, batch_of(case), each).last_pass() is not None) for each in seeds} == {is_reading}


def test_a_crash_names_the_layer_its_shape_and_what_it_wanted() -> None:
    from pytest_overfit import ProgramError

    with pytest.raises(ProgramError) as caught:
        verdict(lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(32, 10)), F.cross_entropy, digits())
    assert "layer 2 (Linear) got (24, 64) float32, expects 32 features in the last axis" in str(caught.value)


class Stepped(nn.Module):
    """Brings its own optimizer, too slow a one, and counts its updates."""

    def __init__(self, rate: float = 0.02) -> None:
        super().__init__()
        self.net = mlp()
        self.optimizer, self.updates = torch.optim.SGD(self.net.parameters(), lr=rate), 0

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def update(self, x: Tensor, y: Tensor, most: int | None = None) -> Tensor:
        self.updates += 1
        if self.updates == most:
            raise ValueError("the schedule has no more steps")
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(x), y)
        loss.backward()
        self.optimizer.step()
        return loss


class TestMoreSteps:
    """Runs whose steps were left open."""

    def run(self, step: Any, rate: float = 0.02) -> Verdict:
        return verdict(lambda: Stepped(rate), None, digits(), optimizer=None, step=step)

    def test_a_step_of_ones_own_may_go_on(self) -> None:
        found = self.run(lambda model, x, y: model.update(x, y))
        assert found.outcome == "passed", found.summary
        assert found.steps > 500

    def test_a_schedule_inside_a_step_ends_the_run_and_is_said(self) -> None:
        # at 500 steps it has come a third of the way: from about two thirds on it would pass as it stands
        found = self.run(lambda model, x, y: model.update(x, y, most=501), rate=0.01)
        assert (found.outcome, found.steps) == ("inconclusive", 500), found.summary
        assert any("no step was made beyond 500" in each.message for each in found.findings)

    def test_an_exception_within_the_steps_is_the_users(self) -> None:
        with pytest.raises(ProgramError, match="no more steps"):
            self.run(lambda model, x, y: model.update(x, y, most=400))

    def test_a_low_rate_passes_with_its_name(self) -> None:
        found = verdict(
            mlp, F.cross_entropy, digits(), optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.02)
        )
        warned = {each.name: each for each in found.findings if each.outcome == "warning"}
        assert found.outcome == "passed", found.summary
        assert list(warned) == ["lr_too_low"]
        assert found.steps == warned["lr_too_low"].value
        assert [(each.fault, each.confidence) for each in found.diagnoses] == [("lr_too_low", "proved")]

    def test_raw_features_pass_with_a_warning_that_names_them(self) -> None:
        x, y = load_wine(return_X_y=True)
        picked = np.random.default_rng(0).permutation(len(x))[:32]
        rate = lambda parameters: torch.optim.Adam(parameters, lr=3e-4)  # noqa: E731
        found = verdict(
            lambda: mlp(13, 3), F.cross_entropy, (x[picked], y[picked]), optimizer=rate, limits={"steps": 4000}
        )
        assert found.outcome == "passed", found.summary
        (warned,) = [each for each in found.findings if each.outcome == "warning"]
        assert warned.name in ("slow_to_fit", "lr_too_low")
        assert "inputs reach" in warned.message

    def test_units_that_start_alike_are_named(self) -> None:
        def alike() -> nn.Module:
            net = mlp()
            nn.init.constant_(net[0].weight, 0.02)
            return net

        case = Case(name="case", model=alike, loss=F.cross_entropy, optimizer=adam, batch=digits())
        learner = learner_for(case, batch_of(case), 0)
        assert learner.equal_units() == ["0.weight"]


class Normalised(nn.Module):
    """With its own optimizer; `update` may show the layers of normalisation a second domain."""

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        layers = (nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=momentum), nn.ReLU(), nn.Linear(64, 10))
        self.net = nn.Sequential(*layers)
        self.optimizer = adam(self.net.parameters())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def update(self, x: Tensor, y: Tensor, shared: bool) -> Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(x), y)
        loss.backward()
        self.net.train(shared)
        far = self.net(3 - 2 * x).softmax(1)
        (-1e-4 * (far * (far + 1e-6).log()).sum(1).mean()).backward()
        self.net.train()
        self.optimizer.step()
        return loss


class SecondPass(nn.Module):
    """In training something else passes the same layers, inside `forward`, without a gradient."""

    def __init__(self, what: str, momentum: float | None = 0.1) -> None:
        super().__init__()
        layers = (nn.Linear(64, 64), nn.BatchNorm1d(64, momentum=momentum), nn.ReLU(), nn.Linear(64, 10))
        self.net, self.what = nn.Sequential(*layers), what

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.net(x)
        if self.training:
            with torch.no_grad():
                if self.what == "a fixed mean":
                    self.net[1].running_mean.data = torch.full((64,), 2.0)
                elif self.what != "nothing":
                    other = {"the same rows": x.flip(0), "other colours": 3 - 2 * x}
                    self.net(other.get(self.what, 3 * torch.randn_like(x)))
        return outputs


class TestRunningStatistics:
    @pytest.mark.parametrize("momentum", [0.1, 0.01])
    @pytest.mark.parametrize("shared", [False, True])
    def test_two_domains_in_one_layer(self, shared: bool, momentum: float) -> None:
        step = lambda model, x, y: model.update(x, y, shared)  # noqa: E731
        found = verdict(lambda: Normalised(momentum), None, digits(), optimizer=None, step=step)
        assert found.outcome == ("failed" if shared else "passed"), found.summary
        assert ("net.1 do not follow the batch's" in found.summary) == shared

    @pytest.mark.parametrize(
        ("what", "outcome"),
        [
            ("nothing", "passed"),
            ("the same rows", "passed"),
            ("other colours", "failed"),
            ("noise", "failed"),
            ("a fixed mean", "failed"),
        ],
    )
    def test_what_else_passes_inside_the_model(self, what: str, outcome: str) -> None:
        found = verdict(lambda: SecondPass(what), F.cross_entropy, digits())
        assert found.outcome == outcome, found.summary
        assert ("do not follow the batch's" in found.summary) == (outcome == "failed")
        assert found.steps < 50  # it is known without a further step

    @pytest.mark.parametrize(("depth", "rate"), [(2, 1e-2), pytest.param(4, 1e-3, marks=pytest.mark.slow)])
    def test_dropout_before_a_normalisation_is_no_other_domain(self, depth: int, rate: float) -> None:
        """Training normalises a variance that dropout makes larger; it follows the batch all the same."""

        def block() -> nn.Module:
            return nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), nn.BatchNorm1d(64), nn.ReLU())

        def dropped() -> nn.Module:
            return nn.Sequential(*(block() for _ in range(depth)), nn.Linear(64, 10))

        optimizer = lambda parameters: torch.optim.Adam(parameters, lr=rate)  # noqa: E731
        found = verdict(dropped, F.cross_entropy, digits(), optimizer=optimizer)
        assert found.outcome == "passed", found.summary
        assert "batchnorm_eval_mismatch" not in [each.name for each in found.findings]

    @pytest.mark.parametrize("momentum", [0.1, 3e-4, None])
    @pytest.mark.parametrize("what", ["nothing", "other colours"])
    def test_where_they_come_to_rest_does_not_depend_on_weights_that_move_on(
        self, momentum: float | None, what: str
    ) -> None:
        large = lambda parameters: torch.optim.Adam(parameters, lr=0.05)  # noqa: E731
        case = Case(name="case", model=lambda: SecondPass(what, momentum), loss=F.cross_entropy, optimizer=large,
                    batch=digits())  # fmt: skip
        learner = learner_for(case, batch_of(case), 0)
        learner.train(12)
        before = {name: each.clone() for name, each in learner.model.state_dict().items()}  # type: ignore[attr-defined]
        found = learner.at_rest()
        assert found is not None
        for name, each in learner.model.state_dict().items():  # type: ignore[attr-defined]
            assert torch.equal(each, before[name]), name
        assert max(each.remaining for each in learner.statistics()) > 0.2  # they lag behind the moving weights
        assert list(found.off) == ["BatchNorm1d net.1"]
        off, loss = found.off["BatchNorm1d net.1"], learner.read("reestimated").loss
        assert (off < 0.01) == (what == "nothing")
        if what == "nothing":
            assert found.reading.loss == pytest.approx(loss, rel=0.05, abs=1e-3)

    def test_a_siamese_net_has_the_steps_it_needs_or_is_warned_about(self) -> None:
        x, y = load_digits(return_X_y=True)
        pairs = (x[:ROWS] / 16, x[ROWS : 2 * ROWS] / 32 + 0.1)
        same = (y[:ROWS] % 3 == y[ROWS : 2 * ROWS] % 3).astype(float)

        class Siamese(nn.Module):
            def __init__(self, broken: bool) -> None:
                super().__init__()
                norm = nn.BatchNorm1d(32, momentum=0.0 if broken else 0.1)
                self.side = nn.Sequential(nn.Linear(64, 32), norm, nn.ReLU(), nn.Linear(32, 16))
                self.head = nn.Linear(16, 1)

            def forward(self, one: Tensor, other: Tensor) -> Tensor:
                return self.head((self.side(one) - self.side(other)).abs())[:, 0]

        for broken in (False, True):
            found = verdict(lambda: Siamese(broken), F.binary_cross_entropy_with_logits, (pairs, same))  # noqa: B023
            assert found.outcome == ("failed" if broken else "passed"), found.summary

    @pytest.mark.parametrize(("epochs", "warned"), [(10, True), (10_000, False)])
    def test_a_momentum_too_slow_for_the_training_is_named(self, epochs: int, warned: bool) -> None:
        found = verdict(
            lambda: Normalised(3e-4).net, F.cross_entropy, None, train=digits(), fit_kwargs={"epochs": epochs}
        )
        names = [each.name for each in found.findings if each.outcome == "warning"]
        assert found.outcome == "passed", found.summary
        assert names == ["eval_mode_loss", *(["batchnorm_eval_mismatch"] if warned else [])]
        assert [each.fault for each in found.diagnoses] == names[1:]
