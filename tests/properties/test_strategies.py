"""Strategies draw what their spec says; properties catch planted faults with a small batch, and pass healthy twins."""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import hypothesis
import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pytest_overfit import Case, CaseError
from pytest_overfit import properties as held
from pytest_overfit.adapters.keras.compiled_eval import Answering
from pytest_overfit.data.tree import leaves
from pytest_overfit.properties.as_code import as_code
from pytest_overfit.strategies import BatchSpec, Field, batches, batches_like, cases_of, perturbations, spec_of

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 17, (32, 16)).astype("float32")
LABELS = GENERATOR.integers(0, 4, 32)

#: no files beside the tests; as many examples as a planted fault may need
quickly = settings(deadline=None, database=None, derandomize=True, max_examples=40, phases=list(settings().phases)[:5])


def torch_case(model: Callable[[], Any], name: str = "planted", **fields: Any) -> Case:
    given_fields: dict[str, Any] = {
        "loss": nn.functional.cross_entropy,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "batch": lambda: (PIXELS, LABELS),
    }
    return Case(name=name, model=model, **{**given_fields, **fields})


def assert_holds(proposition: Callable[..., None], case: Case, drawn: Any = None, *more: Any) -> None:
    @quickly
    @given(batches_like(case) if drawn is None else drawn)
    def run(batch: Any) -> None:
        proposition(case, batch, *more)

    run()


def smallest(proposition: Callable[..., None], case: Case, *more: Any, drawn: Any = None, **names: Any) -> Any:
    """The batch that the failure is shown with; its printed code must fail in the same way."""
    with pytest.raises(held.PropertyFailed) as caught:
        assert_holds(proposition, case, drawn, *more)
    message = str(caught.value)
    assert message.startswith(f"{proposition.__name__}: Case {case.name!r}: ")
    code = "\n".join(line.removeprefix("    ") for line in message.split("\n\n", 1)[1].splitlines())
    with pytest.raises(held.PropertyFailed) as again:
        exec(code, {"case": case, **names})
    assert str(again.value).splitlines()[0] == message.splitlines()[0]
    return caught.value.batch, message


# ------------------------------------------------------------------ planted faults, each beside a healthy twin


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.hidden(x)))


class Squeezed(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).squeeze()


class Standardised(Linear):
    """Divides by the standard deviation of the batch, which also is zero in a batch of one row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((x - x.mean(0)) / (x.std(0, unbiased=False) + 1e-3))


class AlwaysTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(torch.cat([x, x + 1]))[: len(x)]


class Normalised(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4))


class Logarithm(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.log(x))


class Leaky(Linear):
    """A row sees the row before it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0.5 * torch.roll(x, 1, 0))


class Probabilities(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(-1)


class LogProbabilities(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).log_softmax(-1)


class Refuses(Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if 3 <= len(x) <= 8:
            raise RuntimeError("three rows are one too many")
        return super().forward(x)


def test_a_squeeze_drops_the_rows_of_a_batch_of_one() -> None:
    (x, _), message = smallest(held.right_shape, torch_case(Squeezed))
    assert len(x) == 1
    assert "expected the shape (1, 4) on 1 row, as on the case's own batch, got (4,)" in message
    assert_holds(held.right_shape, torch_case(Linear))


@pytest.mark.parametrize("model", [Standardised, AlwaysTraining])
def test_statistics_of_the_batch_make_its_size_matter(model: Any) -> None:
    (x, _), message = smallest(held.batch_size_does_not_matter, torch_case(model))
    assert len(x) == 2
    assert "limit: " in message
    assert "0.001 of the largest output" in message


def test_a_logarithm_of_zero_is_not_finite() -> None:
    (x, _), message = smallest(held.finite_outputs, torch_case(Logarithm))
    assert len(x) == 1
    assert (x == 0).any()
    assert "of output 0 are NaN or infinite (limit: 0)" in message


def test_rows_that_see_their_neighbour() -> None:
    (x, _), _ = smallest(held.order_does_not_matter, torch_case(Leaky))
    assert len(x) == 3  # with two rows, moving on by one and reversing commute with it
    smallest(held.batch_size_does_not_matter, torch_case(Leaky))


def test_a_likelihood_of_probabilities_is_negative() -> None:
    case = torch_case(Probabilities, loss=nn.functional.nll_loss)
    (x, _), message = smallest(held.loss_not_negative, case)
    assert len(x) == 1
    assert "below 0, the least that nll_loss can be" in message
    assert_holds(held.loss_not_negative, torch_case(LogProbabilities, loss=nn.functional.nll_loss))


def test_a_loss_of_ones_own_needs_its_least_value() -> None:
    case = torch_case(Linear, loss=lambda outputs, y: -(outputs**2).mean() - 1)
    with pytest.raises(CaseError, match=r"the least value of its loss is not known; write .*minimum=0\.0"):
        held.loss_not_negative(case, (PIXELS[:1], LABELS[:1]))
    smallest(held.loss_not_negative, case, 0.0)
    assert_holds(held.loss_not_negative, case, None, -1e9)


def test_a_crash_on_one_size_is_shown_with_its_batch() -> None:
    (x, _), message = smallest(held.finite_outputs, torch_case(Refuses))
    assert len(x) == 3
    assert "three rows are one too many" in message


ALL = [
    held.finite_outputs,
    held.right_shape,
    held.order_does_not_matter,
    held.batch_size_does_not_matter,
    held.loss_not_negative,
]


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
    )


@pytest.mark.parametrize("proposition", ALL)
@pytest.mark.parametrize("model", [Normalised, conv], ids=["mlp", "cnn"])
def test_healthy_models_hold(proposition: Callable[..., None], model: Any) -> None:
    assert_holds(proposition, torch_case(model))


# ------------------------------------------------------------------ sequences


SEQUENCES = BatchSpec(
    x={"values": Field(shape=(3,), lengths=(1, 6)), "mask": Field(dtype="bool", lengths=(1, 6), mask=True)},
    y=Field(classes=4),
    rows=5,
)


class Recurrent(nn.Module):
    def __init__(self, masked: bool = True) -> None:
        super().__init__()
        self.cell, self.out, self.masked = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 4), masked

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.cell(values)[0]
        if not self.masked:
            return self.out(states.mean(1))
        weights = mask.unsqueeze(-1).to(states.dtype)
        return self.out((states * weights).sum(1) / weights.sum(1))


def recurrent(masked: bool) -> Case:
    x = {"values": GENERATOR.normal(size=(8, 6, 3)).astype("float32"), "mask": np.ones((8, 6), bool)}
    return torch_case(lambda: Recurrent(masked), "gru", batch=(x, LABELS[:8]))


def test_a_mean_over_the_padding() -> None:
    (x, _), message = smallest(
        held.padding_does_not_matter, recurrent(False), SEQUENCES, drawn=batches(SEQUENCES), spec=SEQUENCES
    )
    assert x["values"].shape == (1, 1, 3)
    assert "with 3 more columns of padding" in message


@pytest.mark.parametrize("proposition", [*ALL, held.padding_does_not_matter])
def test_a_masked_recurrent_net_holds(proposition: Callable[..., None]) -> None:
    more = (SEQUENCES,) if proposition is held.padding_does_not_matter else ()
    assert_holds(proposition, recurrent(True), batches(SEQUENCES), *more)


def test_padding_by_a_number() -> None:
    case = torch_case(lambda: nn.Sequential(nn.Linear(3, 4)), "tokenwise", batch=(PIXELS[:, :3], LABELS))
    with pytest.raises(held.PropertyFailed, match="raised RuntimeError"):
        held.padding_does_not_matter(case, (PIXELS[:2, :3], LABELS[:2]), 0)


# ------------------------------------------------------------------ Keras


def dense() -> keras.Model:
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(4, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@keras.saving.register_keras_serializable("strategies")
class Centred(keras.layers.Layer):
    """Takes the mean of the batch away, also where it evaluates."""

    def call(self, x: Any) -> Any:
        return x - keras.ops.mean(x, axis=0, keepdims=True)


def centred() -> keras.Model:
    model = keras.Sequential([keras.Input((16,)), Centred(), keras.layers.Dense(4, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


KERAS = Case(name="keras", model=dense, batch=lambda: (PIXELS, LABELS))


@pytest.mark.parametrize("proposition", ALL)
def test_a_healthy_keras_model_holds(proposition: Callable[..., None]) -> None:
    assert_holds(proposition, KERAS)


def test_keras_statistics_of_the_batch() -> None:
    case = Case(name="centred", model=centred, batch=lambda: (PIXELS, LABELS))
    (x, _), _ = smallest(held.batch_size_does_not_matter, case)
    assert len(x) == 2


def asked_often(forward: Callable[[Any], Any], rows: int, times: int = 30) -> list[float]:
    """What a function answers when it is asked so often that it would be compiled."""
    answering = Answering(forward, compiles=True)
    return [float(answering(keras.ops.ones((rows, 2)))[0, 0]) for _ in range(times)]


def test_what_is_compiled_is_asked_for_each_size_anew() -> None:
    answering = Answering(lambda x: x * 10.0 if x.shape[0] == 1 else x, compiles=True)
    for _ in range(30):
        assert [float(answering(keras.ops.ones((rows, 2)))[0, 0]) for rows in (1, 2, 3)] == [10.0, 1.0, 1.0]
    assert len(answering._compiled) == 3


def test_what_answers_otherwise_when_it_is_compiled_is_not_compiled() -> None:
    drawn = np.random.default_rng(0)
    assert len(set(asked_often(lambda x: x + drawn.normal(), 2))) == 30

    def untraceable(x: Any) -> Any:
        return x * 2.0 if float(keras.ops.max(x)) > 0 else x

    assert asked_often(untraceable, 2) == [2.0] * 30
    assert np.isnan(asked_often(lambda x: x * np.nan, 1)).all()


def test_what_is_compiled_overflows_where_it_did() -> None:
    import tensorflow

    before = tensorflow.config.optimizer.get_experimental_options()
    assert np.isinf(asked_often(lambda x: (x * 1e30) * 1e30 * 1e-30 * 1e-30, 2)).all()
    assert tensorflow.config.optimizer.get_experimental_options() == before


class Restless(keras.layers.Layer):
    """Noise that numpy draws, the same for all rows of a call."""

    def call(self, x: Any) -> Any:
        return x + np.random.default_rng().normal()


def test_noise_of_every_call_is_found_however_often_a_model_was_asked() -> None:
    def restless() -> keras.Model:
        model = keras.Sequential([keras.Input((16,)), Restless(), keras.layers.Dense(4)])
        model.compile("sgd", "mse")
        return model

    case = Case(name="restless", model=restless, batch=lambda: (PIXELS, np.eye(4, dtype="float32")[LABELS]))
    for _ in range(30):
        with pytest.raises(held.PropertyFailed):
            held.batch_size_does_not_matter(case, (PIXELS[:2], LABELS[:2]))


def test_a_negative_keras_loss() -> None:
    def linear() -> keras.Model:
        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(1)])
        model.compile("sgd", lambda y, outputs: keras.ops.mean(outputs - y))
        return model

    case = Case(name="flipped", model=linear, batch=lambda: (PIXELS, LABELS.astype("float32")[:, None]))
    smallest(held.loss_not_negative, case, 0.0)


# ------------------------------------------------------------------ strategies


@quickly
@given(st.data())
def test_batches_are_as_their_spec_says(data: st.DataObject) -> None:
    classes, rows = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    low = data.draw(st.floats(-5, 5, width=16))
    dtype = data.draw(st.sampled_from(["float16", "float32", "float64", "int8", "uint8"]))
    low = low if dtype.startswith("float") else 0.0
    spec = BatchSpec(
        x=(Field(shape=(3, 2), dtype=dtype, low=low, high=low + 2), [Field(missing=0.5)]),
        y={"one_hot": Field(classes=classes, one_hot=True), "index": Field(classes=classes)},
        rows=rows,
    )
    (first, (holes,)), y = data.draw(batches(spec))
    assert 1 <= len(first) <= rows
    assert first.dtype == dtype
    assert first.shape == (len(first), 3, 2)
    assert (first.astype(float) >= low - 1e-2).all()
    assert (first.astype(float) <= low + 2 + 1e-2).all()
    assert np.isnan(holes).sum() <= max(1, 0.5 * holes.size)
    assert y["one_hot"].shape == (len(first), classes)
    assert (y["one_hot"].sum(1) == 1).all()
    assert set(y["index"]) <= set(range(classes))


@quickly
@given(batches(SEQUENCES))
def test_sequences_end_in_padding(batch: Any) -> None:
    values, mask = batch[0]["values"], batch[0]["mask"]
    assert values.shape[:2] == mask.shape
    lengths = mask.sum(1)
    assert (lengths >= 1).all()
    assert (mask == (np.arange(mask.shape[1]) < lengths[:, None])).all()
    assert lengths.max() == mask.shape[1]
    assert (values[~mask] == 0).all()


def test_every_size_comes_up_and_the_odd_last_one_often() -> None:
    def sizes(last: int | None) -> list[int]:
        seen = []

        @settings(quickly, max_examples=300, phases=[hypothesis.Phase.generate])
        @given(batches(BatchSpec(x=Field(shape=(2,)), rows=7, last=last)))
        def run(batch: Any) -> None:
            seen.append(len(batch[0]))

        run()
        return seen

    plain, odd = sizes(None), sizes(5)
    assert set(plain) == set(odd) == set(range(1, 8))
    assert odd.count(5) > plain.count(5)


def test_batches_like_the_cases_own() -> None:
    tokens = GENERATOR.integers(5, 50, (12, 7))
    tokens[np.arange(7) >= GENERATOR.integers(1, 8, 12)[:, None]] = 1
    tokens[0], tokens[1, 2:] = 7, 1
    x = {"ids": torch.from_numpy(tokens), "mask": torch.from_numpy(tokens != 1), "table": PIXELS[:12]}
    spec = spec_of(torch_case(Linear, batch=(x, LABELS[:12]), classes=6))
    ids, mask, table = spec.x["ids"], spec.x["mask"], spec.x["table"]
    assert (ids.lengths, ids.width, ids.padding, ids.low >= 5, ids.high < 50) == ((1, 7), 7, 1, True, True)
    assert (mask.mask, mask.lengths, mask.dtype) == (True, (1, 7), "bool")
    assert (table.lengths, table.shape, table.low, table.high) == (None, (16,), 0, 16)
    assert (spec.y.classes, spec.rows) == (6, 8)
    digits = np.zeros((9, 8, 8), "float32")
    digits[:, 2:6, 2:6] = 1
    assert spec_of(torch_case(Linear, batch=(digits, LABELS[:9]))).x.lengths is None
    holed = PIXELS.copy()
    holed[0, :8] = np.nan
    assert spec_of(torch_case(Linear, batch=(holed, LABELS))).x.missing == 8 / 512


def test_the_data_of_a_case_are_read_when_the_first_batch_is_drawn() -> None:
    read = []

    def load() -> Any:
        read.append(1)
        return PIXELS, LABELS

    drawn = batches_like(torch_case(Linear, batch=load))
    assert not read
    settings(quickly, max_examples=3)(given(drawn)(lambda batch: None))()
    assert read == [1]


def test_data_without_numbers_cannot_be_drawn() -> None:
    case = torch_case(Linear, batch=(["a text", "another", "a third", "a fourth"], LABELS[:4]))
    with pytest.raises(CaseError, match="only arrays of numbers with one entry a row can be drawn; write the spec"):
        spec_of(case)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Field(low=1, high=0), "expected finite numbers with low <= high"),
        (lambda: Field(high=float("nan")), "finite numbers"),
        (lambda: Field(classes=0), "at least one class"),
        (lambda: Field(one_hot=True), "how many classes"),
        (lambda: Field(shape=(3, 0)), "whole numbers of 1 or more"),
        (lambda: Field(dtype="float33"), "not a dtype of numpy"),
        (lambda: Field(dtype="complex64"), "numbers or truth values"),
        (lambda: Field(dtype="uint8", high=300), "it holds 0 to 255"),
        (lambda: Field(dtype="int64", low=0.2, high=0.8), "no whole number"),
        (lambda: Field(lengths=(3, 2)), "shortest <= longest"),
        (lambda: Field(lengths=(0, 2)), "shortest <= longest"),
        (lambda: Field(lengths=(1, 4), width=3), "does not go in"),
        (lambda: Field(mask=True), "write lengths="),
        (lambda: Field(missing=1.5), "a share from 0 to below 1"),
        (lambda: Field(missing=0.5, dtype="int64"), "NaN exists in floating point only"),
        (lambda: BatchSpec(x=()), "expected fields"),
        (lambda: BatchSpec(x=PIXELS), "ndarray of shape"),
        (lambda: BatchSpec(x=Field(), rows=0), "from 1 to rows"),
        (lambda: BatchSpec(x=Field(), last=9), "from 1 to rows"),
        (lambda: BatchSpec(x=[Field(lengths=(1, 2)), Field(lengths=(1, 3))]), "different lengths="),
        (lambda: batches(Field()), "expected a BatchSpec"),  # type: ignore[arg-type]
        (lambda: perturbations((PIXELS, LABELS), ["shuffled"]), "unknown kind 'shuffled'"),
        (lambda: perturbations((PIXELS, LABELS), ["padded"]), "padding=spec or a number"),
        (lambda: perturbations((PIXELS, LABELS), noise=-1), "noise >= 0"),
        (lambda: perturbations(PIXELS), "expected a pair"),  # type: ignore[arg-type]
        (lambda: held.finite_outputs(KERAS, PIXELS), "expected a pair"),
        (lambda: held.finite_outputs(dense, (PIXELS, LABELS)), "expected a Case, got a function"),  # type: ignore[arg-type]
        (lambda: held.order_does_not_matter(KERAS, (PIXELS, LABELS), 2), "a share from 0"),
        (lambda: held.padding_does_not_matter(KERAS, (PIXELS, LABELS), BatchSpec(x=Field())), "no sequences"),
        (lambda: held.padding_does_not_matter(KERAS, (PIXELS, LABELS), 0, 0), "at least one column"),
        (lambda: cases_of(3), "expected a factory"),  # type: ignore[arg-type]
        (lambda: cases_of(dense, KERAS, hiden=st.just(1)), "takes no argument 'hiden'"),
        (lambda: cases_of(dict, KERAS, size=4), "expected a strategy"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_refused_in_words(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(CaseError, match=said):
        make()


def make_mlp(hidden: int = 4, activation: Any = nn.ReLU, rate: float = 0.0) -> nn.Module:
    return nn.Sequential(nn.Linear(16, hidden), activation(), nn.Dropout(rate), nn.Linear(hidden, 4))


ARGUMENTS = {
    "hidden": st.integers(1, 8),
    "activation": st.sampled_from([nn.ReLU, nn.Tanh]),
    "rate": st.sampled_from([0.0, 0.5]),
}


def test_cases_of_a_factory_of_models() -> None:
    names: dict[str, tuple[int, str]] = {}

    @quickly
    @given(cases_of(make_mlp, torch_case(make_mlp, "mlp"), **ARGUMENTS))
    def run(case: Case) -> None:
        model = case.model()
        described = (model[0].out_features, type(model[1]).__name__, model[2].p)
        assert case.name == "mlp.hidden_{}.activation_{}.rate_{}".format(*described)
        assert names.setdefault(case.name, described) == described
        held.batch_size_does_not_matter(case, (PIXELS[:3], LABELS[:3]))

    run()
    assert len(names) > 5


def test_cases_of_a_factory_of_cases_and_values_without_a_name() -> None:
    def make(hidden: Any) -> Case:
        return torch_case(lambda: make_mlp(len(str(hidden))), "mlp")

    def one(strategy: Any) -> Case:
        found: list[Case] = []
        settings(quickly, max_examples=1)(given(cases_of(make, hidden=strategy))(lambda case: found.append(case)))()
        return found[0]

    first, second = one(st.just((1, -2))), one(st.just((1, 2)))
    assert first.name.startswith("mlp.hidden_")
    assert first.name != second.name
    assert first.name == one(st.just((1, -2))).name
    with pytest.raises(CaseError, match="no name that is the same in every run"):
        one(st.just(lambda: 0))
    with pytest.raises(CaseError, match=r"expected the factory to return a Case, .* for a factory of models write"):
        settings(quickly, max_examples=1)(given(cases_of(make_mlp))(lambda case: None))()


@quickly
@given(st.data())
def test_perturbed_batches(data: st.DataObject) -> None:
    batch = data.draw(batches(SEQUENCES))
    before = [each.copy() for each in leaves(batch)]
    name, (x, y) = data.draw(perturbations(batch, noise=0.5, factors=(2, 2), padding=SEQUENCES))
    values, old = x["values"], batch[0]["values"]
    if name == "permuted":
        assert sorted(y.tolist()) == sorted(batch[1].tolist())
        assert sorted(values.ravel().tolist()) == sorted(old.ravel().tolist())
    elif name == "duplicated":
        assert len(old) < len(values) == len(y) <= 2 * len(old)
        assert (values[: len(old)] == old).all()
    elif name == "padded":
        assert (values[:, : old.shape[1]] == old).all()
        assert (values[:, old.shape[1] :] == 0).all()
        assert not x["mask"][:, old.shape[1] :].any()
    elif name == "scaled":
        np.testing.assert_allclose(values, 2 * old)
    else:
        assert name == "noise"
        assert values.shape == old.shape
        assert values.dtype == old.dtype
    assert all(np.array_equal(a, b) for a, b in zip(before, leaves(batch), strict=True))


# ------------------------------------------------------------------ code


@quickly
@given(st.data())
def test_code_makes_the_same_batch_again(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float16", "float32", "float64", "int8", "bool", "uint64"]))
    low, high = (0, 1) if dtype == "bool" else (0, 100)
    field = Field(
        shape=data.draw(st.sampled_from([(), (3,), (9, 9)])),
        dtype=dtype,
        low=low,
        high=high,
        missing=0.2 * dtype.startswith("float"),
    )
    x, y = data.draw(batches(BatchSpec(x={"a": field, "b": (field, [field])}, y=field, rows=3)))
    made: dict[str, Any] = {}
    exec(as_code(x=x, y=y), made)
    assert isinstance(made["x"]["b"], tuple)
    for old, new in zip(leaves([x, y]), leaves([made["x"], made["y"]]), strict=True):
        assert old.dtype == new.dtype
        assert old.tobytes() == new.tobytes()


def test_code_of_many_numbers_is_packed_and_of_odd_ones_exact() -> None:
    large = GENERATOR.normal(size=(40, 60))
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-30, 0.1], "float32")
    sparse = np.zeros((50, 4), "float32")
    sparse[3, 1] = -0.0
    made: dict[str, Any] = {}
    exec(as_code(large=large, odd=odd, sparse=sparse, none=None), made)
    assert (made["large"] == large).all()
    assert made["odd"].tobytes() == odd.tobytes()
    assert made["sparse"].tobytes() == sparse.tobytes()
    assert made["none"] is None


# ------------------------------------------------------------------ state, profile, pytest


def test_everything_global_is_as_it_was() -> None:
    case = torch_case(Normalised)
    for proposition in (*ALL, held.finite_outputs):
        before = (random.getstate(), torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads())
        numpy_before, environment = np.random.get_state()[1].copy(), dict(os.environ)
        proposition(case, (PIXELS[:3], LABELS[:3]))
        after = (random.getstate(), torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads())
        assert before[0] == after[0]
        assert torch.equal(before[1], after[1])
        assert before[2:] == after[2:]
        assert (np.random.get_state()[1] == numpy_before).all()
        assert dict(os.environ) == environment


def test_the_batch_and_the_model_are_as_they_were() -> None:
    models = []

    def make() -> nn.Module:
        models.append(Normalised())
        return models[-1]

    case, x, y = torch_case(make), PIXELS[:3].copy(), LABELS[:3].copy()
    held.finite_outputs(case, (x, y))
    before = [{name: each.clone() for name, each in model.state_dict().items()} for model in models]
    for proposition in ALL:
        proposition(case, (x, y))
    assert [len(models)] == [len(before)]  # built once, and asked many times
    for model, old in zip(models, before, strict=True):
        assert all(torch.equal(each, old[name]) for name, each in model.state_dict().items())
    assert (x == PIXELS[:3]).all()
    assert (y == LABELS[:3]).all()


def test_a_model_whose_inputs_only_its_step_knows() -> None:
    class Two(Linear):
        def forward(self, x: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
            return super().forward(x + more)

    def step(model: Any, x: Any, y: Any) -> float:
        return float(nn.functional.cross_entropy(model(x, x), y))

    with pytest.raises(CaseError, match="its outputs cannot be looked at"):
        held.finite_outputs(torch_case(Two, loss=None, step=step), (PIXELS[:2], LABELS[:2]))


def test_pairs_of_rows_may_be_permuted_on_both_axes() -> None:
    class Similar(Linear):
        def forward(self, x: torch.Tensor) -> Any:
            found = super().forward(x)
            return found, found @ found.T

    case = torch_case(Similar, loss=lambda outputs, y: nn.functional.cross_entropy(outputs[0], y))
    for proposition in (held.right_shape, held.order_does_not_matter, held.batch_size_does_not_matter):
        proposition(case, (PIXELS[:4], LABELS[:4]))


#: how Hypothesis, too, knows that it is in CI
CI = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "TEAMCITY_VERSION")

PROFILE_TEST = """
import hypothesis
from hypothesis import given, strategies as st, settings
{imported}

def test_the_profile():
    active = hypothesis.settings.default
    assert (active.deadline is None) is {loaded}
    ours = hypothesis.settings.get_profile("pytest-overfit")
    assert (ours.deadline, ours.max_examples) == (None, 100)
    assert hypothesis.Phase.explain not in ours.phases
    assert ours.derandomize is {fixed}
    assert (ours.database is None) is {fixed}
"""


@pytest.mark.parametrize("ci", [True, False])
def test_the_profile_is_there_and_not_loaded(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: bool
) -> None:
    for name in CI:
        monkeypatch.delenv(name, raising=False)
    if ci:
        monkeypatch.setenv("CI", "true")
    pytester.makepyfile(
        PROFILE_TEST.format(imported="import pytest_overfit.strategies", loaded=ci, fixed=ci)
    )  # Hypothesis has a profile of its own for CI, which has no deadline either
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
    if not ci:
        pytester.makeconftest("import pytest_overfit.strategies")
        pytester.makepyfile(PROFILE_TEST.format(imported="", loaded=True, fixed=False))
        command = ("-p", "no:cacheprovider", "--hypothesis-profile=pytest-overfit")
        pytester.runpytest_subprocess(*command).assert_outcomes(passed=1)


def test_given_goes_with_the_fixture_and_the_failure_is_remembered(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CI:
        monkeypatch.delenv(name, raising=False)
    pytester.makeini("[pytest]\nfilterwarnings = error")
    pytester.makepyfile(
        """
        import numpy as np, pytest, torch
        from hypothesis import given, settings
        from pytest_overfit import Case
        from pytest_overfit.properties import finite_outputs, right_shape
        from pytest_overfit.strategies import batches_like

        settings.load_profile("pytest-overfit")

        class Squeezed(torch.nn.Linear):
            def forward(self, x):
                return super().forward(x).squeeze()

        CASE = Case(name="squeezed", model=lambda: Squeezed(6, 3), loss=torch.nn.functional.cross_entropy,
                    optimizer=torch.optim.SGD, batch=lambda: (np.eye(6, dtype="float32"), np.arange(6) % 3))

        @given(batches_like(CASE))
        def test_finite(overfit, batch):
            finite_outputs(CASE, batch)

        @given(batches_like(CASE))
        def test_shape(overfit, batch):
            right_shape(CASE, batch)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*right_shape: Case 'squeezed': output 0: expected the shape (1, 3) on 1 row, *got (3,)"]
    )
    result.stdout.no_fnmatch_line("*FailedHealthCheck*")
    result.stdout.no_fnmatch_line("*properties.py*")  # the traceback ends in the test
    assert [*(pytester.path / ".hypothesis" / "examples").iterdir()]


REPLAYED = """
    import numpy as np, torch
    from hypothesis import given, settings
    from pytest_overfit import Case
    from pytest_overfit.properties import finite_outputs
    from pytest_overfit.strategies import batches_like

    settings.load_profile("pytest-overfit")

    class Net(torch.nn.Linear):
        def forward(self, x):
            return super().forward(torch.where(x > {highest}, torch.nan, x))

    CASE = Case(name="net", model=lambda: Net(6, 3), loss=torch.nn.functional.cross_entropy,
                optimizer=torch.optim.SGD,
                batch=lambda: (np.arange(36, dtype="float32").reshape(6, 6), np.arange(6) % 3))

    @given(batches_like(CASE))
    def test_finite(batch):
        with open("asked.txt", "a") as file:
            print([each.tolist() for each in batch], file=file)
        finite_outputs(CASE, batch)
"""


def test_a_failing_example_is_kept_and_asked_first_in_the_next_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest failing batch, of large numbers, is the first of the next run, until the fault is gone."""
    for name in CI:
        monkeypatch.delenv(name, raising=False)

    def run(highest: str, **outcomes: int) -> list[str]:
        """The batches that were asked, in their order."""
        (pytester.path / "asked.txt").unlink(missing_ok=True)
        pytester.makepyfile(test_replay=REPLAYED.format(highest=highest))
        pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:randomly").assert_outcomes(**outcomes)
        return (pytester.path / "asked.txt").read_text().splitlines()

    tried = run("20", failed=1)
    assert [*(pytester.path / ".hypothesis" / "examples").iterdir()]
    fails, smallest_batch = run("20", failed=1), tried[-1]
    assert (tried[0] != smallest_batch, fails[0]) == (True, smallest_batch)
    assert len(fails) < len(tried)
    assert run("1000", passed=1)[0] == smallest_batch  # a cured model is asked for it, too
    assert run("1000", passed=1)[0] != smallest_batch


def test_without_hypothesis_it_says_what_to_install() -> None:
    program = """
import sys
sys.modules["hypothesis"] = None
import pytest_overfit.properties
try:
    import pytest_overfit.strategies
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'pytest-overfit[hypothesis]'" in done.stdout


def test_specs_can_be_changed() -> None:
    spec = dataclasses.replace(spec_of(KERAS), rows=2)
    settings(quickly, max_examples=5)(given(batches(spec))(lambda batch: held.right_shape(KERAS, batch)))()
