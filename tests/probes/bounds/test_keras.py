"""Quantities of Keras models: a planted fault each, and its healthy twin."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.datasets import load_digits

from pytest_overfit import Case, Verdict, run_probes, theory
from pytest_overfit.core.bounds import with_bounds

keras = pytest.importorskip("keras")

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")


def mlp(activation: str = "relu", bias: float = 0.0, scale: float = 1.0, first: Any = None, rate: float = 1e-2) -> Any:
    parts = [
        keras.Input((64,)),
        *([first] if first is not None else []),
        keras.layers.Dense(32, name="hidden", bias_initializer=keras.initializers.Constant(bias)),
        keras.layers.Rescaling(scale),
        keras.layers.Activation(activation),
        keras.layers.Dense(10),
    ]
    model = keras.Sequential(parts)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss=loss)
    return model


class Unsaved(keras.layers.Layer):
    """Random numbers that no saved state holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = keras.random.normal((64,))

    def call(self, x: Any) -> Any:
        return x * self.numbers


class BatchMean(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return x - keras.ops.mean(x, axis=0, keepdims=True)


class Cancelling(keras.layers.Layer):
    """E[x^2] - E[x]^2 far from zero: all digits of float32 cancel."""

    def call(self, x: Any) -> Any:
        far = x + 3000.0
        variance = keras.ops.mean(far * far, axis=1, keepdims=True) - keras.ops.mean(far, axis=1, keepdims=True) ** 2
        return x * variance


class Wasteful(keras.layers.Layer):
    """A product of matrices 64 times as large as those of the reference kernel, for next to nothing."""

    def call(self, x: Any) -> Any:
        large = keras.ops.ones((1024, 1024)) * (1.0 + keras.ops.mean(x))
        return x + 1e-30 * keras.ops.mean(keras.ops.matmul(large, large))


class Tempered(keras.layers.Layer):
    """A temperature of 100 that was left in evaluation: right as often, and sure of nothing."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x if training else x / 100.0


def with_loss(loss: Any) -> Any:
    def make() -> Any:
        model = mlp()
        model.compile("adam", loss=loss)
        return model

    return make


def summed() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")


def found(model: Any, **bounds: Any) -> Verdict:
    case = Case(name="mlp", model=model, train=(X[:300], Y[:300]))
    return run_probes(with_bounds(case, "bounds", bounds, "call"), ["bounds"], k=5)[0]


def test_a_healthy_model_is_within_its_bounds() -> None:
    verdict = found(
        mlp,
        initial_loss=(theory - 0.6, theory + 0.6),
        gradient_norm=(1e-3, 10),
        update_to_weight=(1e-4, 0.5),
        dead_units=(None, 0.6),
        output_range=(None, 20),
        parameters_trainable=2410,
        parameters_frozen=0,
        determinism=True,
        eval_twice=True,
        save_load=True,
        batch_size_invariance=True,
        float64_agrees=True,
        accumulation=True,
        step_time_ratio=(None, 5),
    )
    assert verdict.outcome == "passed", verdict.summary


@pytest.mark.parametrize(
    ("model", "bounds"),
    [
        (lambda: mlp(bias=-100.0), {"dead_units": (None, 0.6)}),
        (lambda: mlp("sigmoid", scale=1e5), {"saturated_units": (None, 0.2)}),
        (lambda: mlp(rate=1e-9), {"update_to_weight": (1e-4, 0.5)}),
        (lambda: mlp(first=BatchMean()), {"batch_size_invariance": True}),
        (lambda: mlp(first=Unsaved()), {"save_load": True}),
        (lambda: mlp(scale=1e6), {"gradient_norm": (1e-3, 10)}),
        (lambda: mlp(first=Cancelling()), {"float64_agrees": True}),
        (with_loss(summed()), {"accumulation": True}),
        (lambda: mlp(first=keras.layers.BatchNormalization()), {"accumulation": True}),
        (lambda: mlp(first=Wasteful()), {"step_time_ratio": (None, 5)}),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_a_planted_violation_is_failed(model: Any, bounds: dict[str, Any]) -> None:
    verdict = found(model, **bounds)
    assert verdict.outcome == "failed", verdict.summary


def test_saturated_outputs_are_meant_to_be_certain() -> None:
    def certain() -> Any:
        hidden, end = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1, activation="sigmoid")
        model = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Rescaling(1e5), end])
        model.compile("adam", loss="binary_crossentropy")
        return model

    case = Case(name="certain", model=certain, train=(X[:300], (Y[:300] % 2)[:, None].astype("float32")))
    verdict = run_probes(with_bounds(case, "bounds", {"saturated_units": (None, 0.3)}, "call"), ["bounds"], k=0)[0]
    assert verdict.outcome == "passed", verdict.summary


def test_what_keras_is_not_asked_is_inconclusive() -> None:
    verdict = found(mlp, memory_peak=(None, 100))
    assert verdict.outcome == "inconclusive"
    assert verdict.summary.startswith("memory_peak: not measured for this framework")


def test_a_layer_with_a_dtype_of_its_own_cannot_be_computed_in_float64() -> None:
    verdict = found(lambda: mlp(first=keras.layers.Rescaling(1.0, dtype="float32")), float64_agrees=True)
    assert verdict.outcome == "inconclusive"
    assert verdict.summary.startswith("float64_agrees: the model cannot be asked, is not all float32")


@pytest.mark.parametrize("raises", [False, True])
def test_default_dtype_and_names_are_as_they_were_after_float64(raises: bool) -> None:
    def model() -> Any:
        if raises and keras.config.floatx() == "float64":
            raise RuntimeError("not in float64")
        return mlp()

    keras.config.set_dtype_policy("float32")
    before = (keras.config.floatx(), keras.config.dtype_policy().name, keras.layers.Dense(1).name)
    assert found(model, float64_agrees=True).outcome == ("inconclusive" if raises else "passed")
    after = (keras.config.floatx(), keras.config.dtype_policy().name, keras.layers.Dense(1).name)
    assert before[:2] == after[:2] == ("float32", "float32")
    number = [int(each[2].rpartition("_")[2] or 0) if "_" in each[2] else 0 for each in (before, after)]
    assert number[1] == number[0] + 1


# --------------------------------------------------------------------------------------------------- a training run

CALIBRATED = (None, 0.3)


def trained(model: Any, rows: int = 600, **bounds: Any) -> Verdict:
    case = Case(name="mlp", model=model, train=(X[:rows], Y[:rows]), val=(X[1400:], Y[1400:]))
    return run_probes(with_bounds(case, "bounds", bounds, "call"), ["bounds"], epochs=6)[0]


def tempered() -> Any:
    model = keras.Sequential([*mlp().layers, Tempered()])
    model.compile(keras.optimizers.Adam(1e-2), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_a_temperature_left_in_evaluation_is_uncalibrated() -> None:
    verdict = trained(tempered, calibration_error=CALIBRATED)
    assert verdict.outcome == "failed", verdict.summary
    assert verdict.summary.startswith("calibration_error 0.")


def test_few_rows_that_are_memorised_leave_a_gap() -> None:
    verdict = trained(lambda: mlp(rate=0.1), 30, gap=(None, 0.25))
    assert verdict.outcome == "failed", verdict.summary
    assert verdict.summary.startswith("gap 0.")


def test_labels_of_other_rows_through_pytest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import keras, numpy as np
        from sklearn.datasets import load_digits
        from pytest_overfit import Case, at_least, chance

        X, Y = load_digits(return_X_y=True)
        X = (X / 16).astype("float32")

        def mlp():
            model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.Adam(1e-2), loss=loss)
            return model

        def within(overfit, labels):
            overfit.within(
                Case(name="mlp", model=mlp, train=(X[:600], labels), val=(X[1400:], Y[1400:])),
                val_score=at_least(chance + 0.4), best_val_score=chance + 0.4, val_loss=(None, 1.5), gap=(None, 0.25),
                calibration_error=(None, 0.3), epochs=6,
            )

        def test_healthy(overfit):
            within(overfit, Y[:600])

        def test_labels_of_other_rows(overfit):
            within(overfit, np.random.default_rng(0).permutation(Y[:600]))
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*mlp: FAILED: val_score * over 4 seeds, bound >= chance + 0.4 = *",
            "*FAIL  val_score *",
            "*FAIL  best_val_score *",
            "*FAIL  val_loss *",
        ]
    )
