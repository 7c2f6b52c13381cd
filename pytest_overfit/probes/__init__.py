"""The probes, found by name: a module here that does not begin with `_` and has a `PROBE` is a probe.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_overfit.probes.base import Probe


@functools.cache
def built_in() -> dict[str, Probe]:
    """Name -> probe, in the order of the names; a new probe is one new module."""
    names = sorted(each.name for each in pkgutil.iter_modules(__path__) if each.name != "base")
    modules = (importlib.import_module(f"{__name__}.{name}") for name in names if not name.startswith("_"))
    found = [module.PROBE for module in modules]
    return {probe.name: probe for probe in found}


def known(extra: Iterable[Probe] = ()) -> dict[str, Probe]:
    """The built-in probes and those that plugins add; a plugin's probe replaces a built-in one of its name."""
    return built_in() | {probe.name: probe for probe in extra}
