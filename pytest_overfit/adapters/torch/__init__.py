"""PyTorch: `nn.Module` models stepped by a plain loop.

PYTEST_DONT_REWRITE
"""

from pytest_overfit.adapters.torch.learner import make_learner
from pytest_overfit.adapters.torch.state import guard, seed, shares_parameters, watched_build

__all__ = ["guard", "make_learner", "seed", "shares_parameters", "watched_build"]
