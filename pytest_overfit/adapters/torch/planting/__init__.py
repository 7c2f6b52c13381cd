"""What can be planted in a torch case; see `pytest_overfit.adapters.planting`."""

from pytest_overfit.adapters.torch.planting import forward, losses, updates, weights

PLANTS = {**forward.PLANTS, **weights.PLANTS, **updates.PLANTS, **losses.PLANTS}

__all__ = ["PLANTS"]
