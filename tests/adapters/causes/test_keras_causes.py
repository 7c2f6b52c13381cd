"""Which fault a crash of Keras shows: planted programs, texts as frameworks have them, and crashes that show none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from pytest_overfit import Case, CaseError, run_probes
from pytest_overfit.adapters.causes import cause_of
from pytest_overfit.adapters.causes.table import Crash

X, Y = np.linspace(-1, 1, 48, dtype="float32").reshape(8, 6), np.arange(8) % 3
SPARSE, ONE_HOT = "sparse_categorical_crossentropy", "categorical_crossentropy"


def dense(*stack: Any, loss: Any = SPARSE, inputs: int = 6) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        head = [each() for each in stack] or [layers.Dense(3, activation="softmax")]
        model = keras.Sequential([keras.Input((inputs,)), *head])
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
        return model

    return make


class Program(keras.Model):
    """A layer, and a forward pass that is given."""

    def __init__(self, forward: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.last, self.steps = layers.Dense(3), forward

    def call(self, x: Any) -> Any:
        return self.steps(self, x)


def program(forward: Callable[[Any, Any], Any], loss: Any = "mse") -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        model = Program(forward)
        model.compile(optimizer="sgd", loss=loss)
        return model

    return make


def case(model: Callable[[], keras.Model], batch: Any = (X, Y)) -> Case:
    return Case(name="net", model=model, batch=batch)


def tokens() -> list[Callable[[], Any]]:
    return [lambda: layers.Embedding(5, 2), layers.Flatten, lambda: layers.Dense(3, activation="softmax")]


T = np.stack([X[:, 0], X[:, 1], X[:, 2]], axis=1)

#: what is wrong -> the case, the faults that its error names, and words of the message
FAULTY: dict[str, tuple[Callable[[], Case], list[str], str]] = {
    "width of a layer": (lambda: case(dense(inputs=5)), ["shape_mismatch"], "axis -1, got (8, 6)"),
    "an axis too few": (
        lambda: case(dense(lambda: layers.LSTM(3))), ["shape_mismatch"], "takes 3 axes, got 2"
    ),
    "reshape": (
        lambda: case(program(lambda net, x: net.last(keras.ops.reshape(x, (-1, 5)))), (X[:7], T[:7])),
        ["shape_mismatch"],
        "cause: shape_mismatch",
    ),
    "product": (
        lambda: case(program(lambda _, x: tf.matmul(x, tf.ones((5, 3)))), (X, T)), ["shape_mismatch"], "[8,6]"
    ),
    "dtype": (
        lambda: case(program(lambda _, x: tf.matmul(x, tf.ones((6, 3), tf.float64))), (X, T)),
        ["dtype_mismatch"],
        "cause: dtype_mismatch",
    ),
    "tokens": (
        lambda: case(dense(*tokens()), (np.full((8, 6), 7), Y)), ["shape_mismatch"], "has none for the index 7"
    ),
    "labels": (
        lambda: case(dense(), (X, Y + 1)),
        ["label_out_of_range", "label_off_by_one"],
        "cause: label_off_by_one (labels go from 1 to 3 for 3 units)",
    ),
    "units": (
        lambda: case(dense(lambda: layers.Dense(2, activation="softmax"))),
        ["label_out_of_range", "wrong_output_units"],
        "give the last layer 3 units",
    ),
    "far labels": (lambda: case(dense(), (X, Y * 10)), ["label_out_of_range"], "cause: label_out_of_range"),
    "one-hot in a sparse loss": (
        lambda: case(dense(), (X, np.eye(3, dtype="float32")[Y])), ["wrong_loss"], "loss='categorical_crossentropy'"
    ),
    "labels in a one-hot loss": (lambda: case(dense(loss=ONE_HOT)), ["wrong_loss"], "loss='sparse_categorical"),
    "other one-hot": (
        lambda: case(dense(loss=ONE_HOT), (X, np.eye(4, dtype="float32")[Y])), ["wrong_output_units"], "as wide as"
    ),
    "quantities": (lambda: case(dense(), (X, X[:, 0])), ["wrong_loss"], "loss='mse'"),
    "squared width": (
        lambda: case(dense(lambda: layers.Dense(2), loss="mse"), (X, T)), ["wrong_output_units"], "(8,3) with (8,2)"
    ),
    "binary labels": (
        lambda: case(dense(lambda: layers.Dense(1, activation="sigmoid"), loss="binary_crossentropy"),
                     (X, Y[:, None].astype("float32"))),
        ["label_out_of_range"],
        "cause: label_out_of_range",
    ),
    "cut": (
        lambda: case(program(lambda net, x: tf.stop_gradient(net.last(x))), (X, T)), ["detached_graph"], "stop_gradient"
    ),
    "percent dropped": (
        lambda: case(dense(lambda: layers.Dropout(50), lambda: layers.Dense(3))), ["excessive_dropout"], "rate=0.5"
    ),
    "words": (lambda: case(dense(), (X, np.array(list("abcabcab")))), ["dtype_mismatch"], "numpy.unique"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTY)
def test_an_error_names_the_fault_that_it_shows(name: str) -> None:
    make, faults, words = FAULTY[name]
    with pytest.raises(CaseError) as raised:
        run_probes(make(), ["overfit_batch"], steps=5)
    assert [each.fault for each in raised.value.diagnoses] == faults, raised.value
    assert words in str(raised.value)


@pytest.mark.parametrize("batch", [(X, Y), (X + 5, Y)])
def test_a_healthy_case_has_no_diagnosis(batch: Any) -> None:
    (verdict,) = run_probes(case(dense(), batch), ["inert_regularizer"])
    assert verdict.diagnoses == ()


TEXTS = {
    "Input 0 of layer \"dense\" is incompatible with the layer: expected axis -1 of input shape to have value 64, but "
    "received input with shape (None, 60)": ("shape_mismatch", "layer dense takes 64 in axis -1, got (None, 60)"),
    "Input 0 of layer \"conv2d\" is incompatible with the layer: expected min_ndim=4, found ndim=3. Full shape "
    "received: (None, 28, 28)": ("shape_mismatch", "layer conv2d takes at least 4 axes, got 3"),
    "Shapes (None, 1) and (None, 10) are incompatible": ("shape_mismatch", ""),
    "logits and labels must be broadcastable: logits_size=[8,10] labels_size=[8,3]": ("wrong_output_units", ""),
    "Graph execution error:\n\nDetected at node loss/Sparse defined at (most recent call last):\n  File \"a.py\", line "
    "3, in fit\n\nReceived a label value of 12 which is outside the valid range of [0, 10).  Label values: 12\n\t "
    "[[{{node loss/Sparse}}]] [Op:__inference_one_step_77]": ("label_out_of_range", "the label 12 occurs"),
    "Received a label value of -1 which is outside the valid range of [0, 10).": ("label_out_of_range", "-1"),
    "Exception encountered when calling Embedding.call().\n\n\x1b[1mindices[0,0] = 12 is not in [0, 10)\x1b[0m": (
        "shape_mismatch", "a table of 10 rows has none for the index 12"),
    "Dimensions must be equal, but are 3 and 10 for '{{node compile_loss/mse/sub}} = Sub[T=DT_FLOAT](a, b)' with input "
    "shapes: [?,3], [?,10].": ("wrong_output_units", "the loss compares (?,3) with (?,10)"),
    "Dimensions must be equal, but are 60 and 50 for '{{node m/MatMul}} = MatMul[T=DT_FLOAT](a, b)' with input shapes: "
    "[?,60], [50,10].": ("shape_mismatch", ""),
    "Arguments `target` and `output` must have the same shape. Received: target.shape=(None, 3), output.shape=(None, "
    "10)": ("wrong_output_units", "10 units for 3 numbers a row"),
    "Argument `output` must have rank (ndim) `target.ndim - 1`. Received: target.shape=(None, 10), "
    "output.shape=(None, 10)": ("wrong_loss", ""),
    "Input 'y' of 'Mul' Op has type int64 that does not match type float32 of argument 'x'.": ("dtype_mismatch", ""),
    "Cannot convert 0.1 to EagerTensor of dtype int64": ("dtype_mismatch", ""),
    "Expected int64, but got 0.1 of type 'float'.": ("dtype_mismatch", ""),
    "No gradients provided for any variable.": ("detached_graph", ""),
    "Unknown variable: <Variable path=a>. This optimizer can only be called for the variables it was originally built "
    "with.": ("optimizer_wrong_params", ""),
    "Invalid value received for argument `rate`. Expected a float value between 0 and 1. Received: rate=1.5": (
        "excessive_dropout", "1.5"),
    "'SymbolicTensor' object has no attribute 'numpy'": ("detached_graph", "numpy"),
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_message_alone_is_enough(text: str) -> None:
    fault, evidence = TEXTS[text]
    found = cause_of(Crash(ValueError(text), "Case 'net': the training step"))
    assert found is not None
    assert (found.fault, evidence in found.evidence) == (fault, True), found
    assert "\x1b" not in found.evidence


@pytest.mark.parametrize(
    "text",
    [
        "None values not supported.",
        "Could not interpret loss identifier: msee",
        "loss : Tensor had NaN values",
        "OOM when allocating tensor with shape[8192,8192]",
        "Invalid value received for argument `rate`. Expected a float value between 0 and 1. Received: rate=-0.5",
        "tuple index out of range",
    ],
)
def test_a_message_that_does_not_show_its_cause_has_none(text: str) -> None:
    assert cause_of(Crash(ValueError(text), "Case 'net': the training step")) is None
