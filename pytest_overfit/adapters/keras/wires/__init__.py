"""A Keras model with its insides open; see `pytest_overfit.adapters.wires`."""

from pytest_overfit.adapters.keras.wires.opened import KerasWires

open_wires = KerasWires

__all__ = ["open_wires"]
