"""Shared fixtures; `pytester` runs pytest from pytest."""

from __future__ import annotations

import gc
import textwrap
from collections.abc import Generator

import hypothesis  # noqa: F401 - its plugin of pytest would otherwise load it again in each of pytester's runs
import numpy as np  # noqa: F401 - loaded once here: pytester's runs in this process would otherwise load it again
import pytest
import torch._dynamo  # loaded by the first optimizer, and can be loaded only once in a process

# the same for our own modules, so that a class is one class in all of those runs
import pytest_overfit.adapters.dispatch
import pytest_overfit.fixture
import pytest_overfit.probes
import pytest_overfit.probes.overfit_batch
import pytest_overfit.probes.split_duplicates
import pytest_overfit.report.json_file
import pytest_overfit.report.junit
import pytest_overfit.testing
from pytest_overfit.settings import current_settings

pytest_plugins = "pytester"

torch.set_num_threads(1)  # on tensors this small a second thread only waits, and on a busy machine for long


def pytest_collection_finish() -> None:
    """What is loaded by now is not garbage: pytest 8 looks for garbage five times after each of pytester's runs."""
    gc.collect()
    gc.freeze()


#: tests of what is said about why; all others are about verdicts, and to find out why takes longer than they do
REASONS = ("diagnosis", "docs")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Find out why only in tests of it and in pytester's runs; `--overfit-diagnose=always` still does so in all."""
    settings = current_settings()
    before = settings.diagnose
    about_it = item.get_closest_marker("reasons") or any(part in REASONS for part in item.path.parts)
    if before == "auto" and not about_it:
        settings.diagnose = "never"
    try:
        return (yield)
    finally:
        settings.diagnose = before


INI = """
[pytest]
addopts = --strict-markers -p no:cacheprovider -p no:randomly
xfail_strict = true
filterwarnings =
    error
{ini}
"""

#: a learner made of numbers for every case, so that a run costs milliseconds
CONFTEST = """
from pytest_overfit.testing import FakeLearner

def pytest_overfit_make_learner(case, batch, seed):
    return FakeLearner(**case.fit_kwargs)
"""

CASES = """
import math

import numpy as np
import pytest

from pytest_overfit import *
from pytest_overfit.testing import memorising, standing

X, Y = np.arange(48.0).reshape(16, 3), np.arange(16) % 4

def case(name="good", *, limits={}, seed=None, **fake):
    return Case(name=name, model=object, batch=(X, Y), limits=limits, seed=seed, fit_kwargs=fake)

def good(name="good", **more):
    return case(name, **more)

def broken(name="broken", **more):
    return case(name, way=standing, **{"limits": {"steps": 60}, **more})

# a learner that memorises, on two splits: apart, or with four rows in common
def splits(name="splits", copied=False, **fake):
    test = X[:4] if copied else X[:4] + 100
    return Case(name=name, model=object, train=(X, Y), test=(test, Y[:4]), fit_kwargs=fake)

def slow(name="slow", **more):
    return case(name, way=lambda step: step / 3000, **{"limits": {"steps": 500}, **more})
"""


class Project:
    """A user's repository whose cases train fake learners; `run` writes a test file there and runs it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester, self.path = pytester, pytester.path
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(cases=CASES)
        self.ini()

    def ini(self, *lines: str) -> None:
        self.pytester.makeini(INI.format(ini="\n".join(lines)))

    def conftest(self, source: str) -> None:
        self.pytester.makeconftest(CONFTEST + textwrap.dedent(source))

    def write(self, source: str, name: str = "test_it") -> None:
        self.pytester.makepyfile(**{name: "from cases import *\n" + textwrap.dedent(source)})

    def run(self, source: str, *arguments: str) -> pytest.RunResult:
        self.write(source)
        return self.again(*arguments)

    def again(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess(*arguments, no_reraise_ctrlc=True)


BUILT_IN = pytest_overfit.probes.built_in


@pytest.fixture
def every_probe(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process know every probe there is."""
    monkeypatch.setattr(pytest_overfit.probes, "built_in", BUILT_IN)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Runs in this process know two probes, one that trains and one that does not, however many there are."""
    two = {name: pytest_overfit.probes.built_in()[name] for name in ("overfit_batch", "split_duplicates")}
    monkeypatch.setattr(pytest_overfit.probes, "built_in", lambda: two)
    for name in ("CI", "BUILD_NUMBER", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester)
