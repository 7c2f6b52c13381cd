"""Which frameworks have an adapter, and what an adapter offers beyond a learner and a trainer."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

#: framework module -> adapter; the order matters: with the torch backend a keras.Model *is* an nn.Module
FRAMEWORKS = ("keras", "torch")


def adapter_of(name: str) -> ModuleType:
    """The adapter of a framework, or `step`, the one for everything else."""
    return importlib.import_module(f"pytest_overfit.adapters.{name}")


def part_of(framework: str, name: str) -> ModuleType | None:
    """The module `name` of a framework's adapter; None: it has none, or the framework is a plugin's.

    `regularizers` measures what regularises a learner (`found_in`), `inspector` is an `inspector.Inspector`, `ensemble`
    a `trainer.JointTraining`, `programs` changes one thing in a program (`programs.Program`).
    """
    where = f"{framework}.{name}"
    if framework not in FRAMEWORKS or importlib.util.find_spec(f"pytest_overfit.adapters.{where}") is None:
        return None
    return adapter_of(where)
