"""What can be planted in a Keras case; see `pytest_overfit.adapters.planting`."""

from pytest_overfit.adapters.keras.planting import forward, training, weights

PLANTS = {**forward.PLANTS, **weights.PLANTS, **training.PLANTS}

__all__ = ["PLANTS"]
