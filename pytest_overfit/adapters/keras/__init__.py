"""The adapter for Keras 3: learners around compiled models. Only this package imports keras and tensorflow."""

from pytest_overfit.adapters.keras.building import noting_parameters, parameters_of
from pytest_overfit.adapters.keras.learner import KerasLearner, make_learner
from pytest_overfit.adapters.keras.state import guard, seed
from pytest_overfit.adapters.keras.trainer import KerasTrainer

make_trainer = KerasTrainer

__all__ = ["KerasLearner", "guard", "make_learner", "make_trainer", "noting_parameters", "parameters_of", "seed"]
