"""A torch program, to be changed and built again; see `pytest_overfit.adapters.programs`."""

from pytest_overfit.adapters.torch.programs.program import TorchProgram

open_program = TorchProgram

__all__ = ["open_program"]
