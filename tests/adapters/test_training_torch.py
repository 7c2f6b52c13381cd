"""Training on whole splits with torch: the user's own loop, and the twin without regularisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pytest_overfit import Case
from pytest_overfit.adapters.dispatch import trainer_for
from pytest_overfit.adapters.trainer import Trainer
from pytest_overfit.core.errors import CaseError, NotApplicable
from pytest_overfit.core.state import epoch_seed
from pytest_overfit.data.splits import open_split, shuffled
from pytest_overfit.measures.predictions.scores import scores_of

random = np.random.default_rng(0)
X = random.normal(size=(70, 4)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int64")


def net(*between: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *(each() for each in between), nn.Linear(8, 2))


PLAIN = net()


def case(model: Callable[[], Any] = PLAIN, decay: float = 0.0, **more: Any) -> Case:
    given: dict[str, Any] = {
        "loss": functional.cross_entropy,
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=decay),
        "train": (X, Y),
        **more,
    }
    return Case(name="c", model=model, **given)


def trainer(of: Case, seed: int = 1, plain: bool = False) -> Trainer:
    return trainer_for(of, open_split(of, "train"), seed, plain)


def test_it_is_the_loop_that_one_writes_by_hand() -> None:
    found = trainer(case()).train(3)
    torch.manual_seed(1)
    model = net()()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for epoch in range(3):
        total = 0.0
        for rows in shuffled(70, 32, epoch_seed(1, epoch)):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(torch.as_tensor(X[rows])), torch.as_tensor(Y[rows]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(rows)
        assert found[epoch] == pytest.approx(total / 70, rel=1e-6)


def test_equal_seeds_give_equal_losses_to_the_bit_and_reading_changes_nothing() -> None:
    of = case(net(lambda: nn.Dropout(0.5)))
    split = open_split(of, "train")
    first, again = trainer(of), trainer(of)
    assert first.train(4, lambda: scores_of(first.read(split), None)) == again.train(4)
    assert first.train(1) == again.train(1)
    assert trainer(of, seed=2).train(4) != trainer(of).train(4)


def test_scores_are_those_of_the_trained_model() -> None:
    mine = trainer(case())
    mine.train(30)
    found = scores_of(mine.read(open_split(case(), "train")), None)
    assert found.metric == "accuracy"
    assert (found.score or 0.0) > 0.9
    assert (found.loss or 1.0) < 0.3


def test_a_step_of_the_users_trains_too() -> None:
    def step(model: nn.Module, x: Any, y: Any) -> float:
        for parameter in model.parameters():
            parameter.grad = None
        loss = functional.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad  # type: ignore[operator]
        return loss.item()

    losses = trainer(Case(name="s", model=net(), step=step, train=(X, Y))).train(20)
    assert losses[-1] < 0.5 * losses[0]


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = functional.dropout(torch.relu(self.first(x)), 0.3, self.training)
        return self.last(functional.dropout(hidden, p=0.2, training=self.training))  # type: ignore[no-any-return]


class DropPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop_prob = 0.4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_prob == 0.0:
            return x
        return x * torch.bernoulli(torch.full((len(x), 1), 1 - self.drop_prob)) / (1 - self.drop_prob)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.GRU(2, 8, num_layers=2, dropout=0.5, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.rnn(x.reshape(len(x), 2, 2))[0][:, -1])  # type: ignore[no-any-return]


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.25, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.block(x[:, None])[:, 0])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (net(lambda: nn.Dropout(0.5)), "dropout 0.5 (2)"),
        (net(lambda: nn.AlphaDropout(0.1)), "dropout 0.1 (2)"),
        (Functional, "dropout 0.3 (1 calls of a function)"),
        (net(DropPath), "dropout 0.4 (2)"),
        (Recurrent, "dropout 0.5 (rnn)"),
        (Attending, "dropout 0.25"),
    ],
)
def test_without_dropout_a_training_pass_is_quiet(model: Callable[[], Any], words: str) -> None:
    of = case(model)
    plain = trainer(of, plain=True)
    assert any(each.startswith(words) for each in plain.removed)
    own = trainer(of)
    assert plain.start_from(own.state())
    quiet = [trainer(of, plain=True).train(2) for _ in range(2)]
    assert quiet[0] == quiet[1] != own.train(2)
    torch.manual_seed(123)  # the plain arm draws nothing for masks: its first loss is that of a model in evaluation
    evaluated = scores_of(trainer(of, plain=True).read(open_split(of, "train")), None).loss
    one_batch = case(model, fit_kwargs={"batch_size": 70})
    assert trainer(one_batch, plain=True).train(1)[0] == pytest.approx(evaluated, rel=1e-5)


def test_weight_decay_is_taken_out_of_every_group() -> None:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        first, *rest = model.parameters()
        return torch.optim.SGD([{"params": [first], "weight_decay": 0.1}, {"params": rest}], lr=0.1)

    of = case(optimizer=optimizer)
    plain = trainer(of, plain=True)
    assert plain.removed == ("weight decay 0.1",)
    without = trainer(case(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)))
    assert plain.train(3) == without.train(3) != trainer(of).train(3)


def test_nothing_to_remove_leaves_the_arms_equal_to_the_bit() -> None:
    of = case(net(lambda: nn.BatchNorm1d(8)))
    own, plain = trainer(of), trainer(of, plain=True)
    assert plain.removed == ()
    assert own.train(3) == plain.train(3)


def test_other_shapes_do_not_share_a_start() -> None:
    own, other = trainer(case()), trainer(case(net(lambda: nn.Linear(8, 8))))
    before = other.state()
    assert not other.start_from(own.state())
    assert all(torch.equal(each, before[name]) for name, each in other.state().items())


def test_unregularized_may_name_fields() -> None:
    of = case(net(lambda: nn.Dropout(0.5)), unregularized={"model": net()})
    other = of.without_regularizers()
    assert other is not None
    assert other.model is not of.model
    assert other.train is of.train


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modle": net()}, r"unregularized= names the field 'modle'; did you mean 'model'"),
        (net()(), r"unregularized: expected a factory, got a model"),
        (3, r"unregularized: .* got 3"),
        ({"model": 3}, r"model: .* got 3"),
    ],
)
def test_an_unregularized_that_cannot_be_used_is_refused_when_it_is_written(given: Any, message: str) -> None:
    with pytest.raises(CaseError, match=message):
        case(unregularized=given)


def test_an_own_loop_has_no_derived_twin() -> None:
    of = Case(name="s", model=object, step=lambda model, x, y: 1.0, train=(X, Y))
    with pytest.raises(NotApplicable, match="give unregularized="):
        trainer(of, plain=True)


def test_a_factory_that_reuses_weights_is_refused() -> None:
    model = net()()
    with pytest.raises(CaseError, match=r"returned the same model twice"):
        trainer(case(lambda: model))
