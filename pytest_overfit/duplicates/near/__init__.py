"""Near-copies, shared windows, shared groups and broken time order between two splits."""

from pytest_overfit.duplicates.near.groups import shared_groups
from pytest_overfit.duplicates.near.results import Groups, Near, NearPair, Order, SharedGroup, WindowPair, Windows
from pytest_overfit.duplicates.near.search import find_near
from pytest_overfit.duplicates.near.text import find_near_text
from pytest_overfit.duplicates.near.time_order import out_of_order
from pytest_overfit.duplicates.near.windows import find_windows

__all__ = [
    "Groups",
    "Near",
    "NearPair",
    "Order",
    "SharedGroup",
    "WindowPair",
    "Windows",
    "find_near",
    "find_near_text",
    "find_windows",
    "out_of_order",
    "shared_groups",
]
