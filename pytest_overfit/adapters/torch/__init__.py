"""PyTorch: `nn.Module` models stepped by a plain loop.

PYTEST_DONT_REWRITE
"""

from pytest_overfit.adapters.torch.learner import make_learner, shares_parameters
from pytest_overfit.adapters.torch.state import guard, seed

__all__ = ["guard", "make_learner", "seed", "shares_parameters"]
