"""A Keras program with one thing changed; see `pytest_overfit.adapters.programs`."""

from pytest_overfit.adapters.keras.programs.program import KerasProgram

open_program = KerasProgram

__all__ = ["KerasProgram", "open_program"]
