"""The probes, found by name: a module here that does not begin with `_` and has a `PROBE` is a probe."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable

from pytest_overfit.probes.base import Probe, completed


@functools.cache
def built_in() -> dict[str, Probe]:
    """Name -> probe, the cheapest first; a new probe is one new module."""
    names = (each.name for each in pkgutil.iter_modules(__path__) if each.name != "base")
    modules = (importlib.import_module(f"{__name__}.{name}") for name in names if not name.startswith("_"))
    return _in_order(module.PROBE for module in modules)


def known(extra: Iterable[Probe] = ()) -> dict[str, Probe]:
    """The built-in probes and those of plugins, in order; a plugin's probe replaces a built-in one of its name."""
    return _in_order((*built_in().values(), *map(completed, extra)))


def _in_order(probes: Iterable[Probe]) -> dict[str, Probe]:
    """By cost, then by name; the last of a name counts."""
    by_name = {probe.name: probe for probe in probes}
    return {probe.name: probe for probe in sorted(by_name.values(), key=lambda probe: (probe.cost, probe.name))}
