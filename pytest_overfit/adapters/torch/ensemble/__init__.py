"""Many seeds of one small model trained at once, with the numbers of training one after the other.

Its two functions are a `pytest_overfit.adapters.trainer.JointTraining`.
"""

from pytest_overfit.adapters.torch.ensemble.eligible import may_join
from pytest_overfit.adapters.torch.ensemble.group import train

__all__ = ["may_join", "train"]
