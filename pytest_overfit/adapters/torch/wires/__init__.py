"""A torch model with its insides open; see `pytest_overfit.adapters.wires`."""

from pytest_overfit.adapters.torch.wires.opened import TorchWires

open_wires = TorchWires

__all__ = ["open_wires"]
