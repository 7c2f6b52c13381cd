"""PyTorch: `nn.Module` models stepped by a plain loop."""

from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.state import guard, noting_parameters, parameters_of, seed
from pytest_overfit.adapters.torch.trainer import TorchTrainer

make_learner, make_trainer = TorchLearner, TorchTrainer

__all__ = ["guard", "make_learner", "make_trainer", "noting_parameters", "parameters_of", "seed"]
