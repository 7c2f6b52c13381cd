"""What must hold for every batch, not only for this one: properties of a torch and a Keras model under Hypothesis."""

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from pytest_overfit import Case
from pytest_overfit.properties import (
    PropertyFailed,
    batch_size_does_not_matter,
    finite_outputs,
    loss_not_negative,
    order_does_not_matter,
    right_shape,
)
from pytest_overfit.strategies import batches_like, cases_of

settings.load_profile("pytest-overfit")


def load() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[:64], y[:64]


class Mlp(torch.nn.Sequential):
    def __init__(self, hidden: int = 32, rate: float = 0.2) -> None:
        super().__init__(
            torch.nn.Linear(64, hidden),
            torch.nn.BatchNorm1d(hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(rate),
            torch.nn.Linear(hidden, 10),
        )


class BatchScaled(Mlp):
    """Divides by the largest pixel of the batch: alone in its batch, a picture gets another answer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x / x.abs().amax().clamp(min=1.0))


def torch_case(name: str, model: type[torch.nn.Module]) -> Case:
    return Case(
        name=name,
        model=model,
        loss=torch.nn.functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        batch=load,
    )


def make_dense() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


# made once, outside of the tests: each case's model is built once and then asked again and again
MLP = torch_case("mlp", Mlp)
BATCH_SCALED = torch_case("batch_scaled", BatchScaled)
DENSE = Case(name="dense", model=make_dense, batch=load)


@given(batches_like(MLP))
def test_torch(batch):
    finite_outputs(MLP, batch)
    right_shape(MLP, batch)
    order_does_not_matter(MLP, batch)
    batch_size_does_not_matter(MLP, batch)
    loss_not_negative(MLP, batch)


@settings(max_examples=25)
@given(batches_like(DENSE))
def test_keras(batch):
    right_shape(DENSE, batch)
    order_does_not_matter(DENSE, batch)
    loss_not_negative(DENSE, batch)


@settings(max_examples=25)
@given(cases_of(Mlp, MLP, hidden=st.integers(1, 64), rate=st.floats(0, 0.9)), batches_like(MLP, rows=3))
def test_every_width(case, batch):
    right_shape(case, batch)


def test_a_batch_that_is_scaled_as_a_whole_is_caught():
    with pytest.raises(PropertyFailed, match="expected the same outputs row by row as for 2 rows at once"):
        given(batches_like(BATCH_SCALED))(lambda batch: batch_size_does_not_matter(BATCH_SCALED, batch))()
