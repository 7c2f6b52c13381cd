"""Any other training loop, through `step`: softmax regression in plain NumPy, and scikit-learn's `partial_fit`."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss

from pytest_overfit import Case, Overfit


class SoftmaxRegression:
    def __init__(self) -> None:
        self.weights = np.zeros((64, 10))

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        scores = np.exp(x @ self.weights)
        return scores / scores.sum(axis=1, keepdims=True)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.probabilities(x).argmax(axis=1)


def step(model: SoftmaxRegression, x: np.ndarray, y: np.ndarray) -> float:
    """One update by gradient descent; returns the loss before it."""
    probabilities = model.probabilities(x)
    loss = -np.log(probabilities[np.arange(len(y)), y]).mean()
    model.weights -= 0.5 * x.T @ (probabilities - np.eye(10)[y]) / len(y)
    return float(loss)


def load_batch() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[:32] / 16, y[:32]


def test_numpy_loop(overfit: Overfit) -> None:
    overfit.batch(Case(name="softmax_regression", model=SoftmaxRegression, step=step, batch=load_batch))


def partial_fit(model: SGDClassifier, x: np.ndarray, y: np.ndarray) -> float:
    model.partial_fit(x, y, classes=np.arange(10))
    return float(log_loss(y, model.predict_proba(x), labels=np.arange(10)))


def test_partial_fit(overfit: Overfit) -> None:
    overfit.batch(
        Case(
            name="sgd_classifier",
            model=lambda: SGDClassifier(loss="log_loss", random_state=0),
            step=partial_fit,
            batch=load_batch,
        )
    )
