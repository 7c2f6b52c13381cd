"""Seeds for a run, and the promise that everything global is afterwards as it was before."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

#: the legacy generators (numpy, torch and tensorflow among them) take 32 bits
_MASK = 0xFFFFFFFF

Guard = Callable[[], AbstractContextManager[None]]


def derived_seed(case: str, probe: str, seed: int) -> int:
    """The seed of one probe on one case: depends on names and the user's seed, never on the order of tests."""
    return (zlib.crc32(f"{case}:{probe}".encode()) ^ seed) & _MASK


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch of a run: two runs draw alike in every epoch, whatever they drew in the one before."""
    return zlib.crc32(f"{seed}:{epoch}".encode()) & _MASK


def fair_threads(threads: int) -> int:
    """How many of a framework's threads one of pytest-xdist's workers should use.

    Each worker would start as many as there are cores, and they then wait for each other: two workers on two cores
    were measured at seven times the time of one. An explicit OMP_NUM_THREADS is the user's word.
    """
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    if "OMP_NUM_THREADS" in os.environ or not workers.isdecimal() or int(workers) < 2:
        return threads
    return min(threads, max(1, (os.cpu_count() or 1) // int(workers)))


def seed_standard_library(seed: int) -> None:
    """Seed `random`, and numpy's legacy generator where numpy is loaded."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed & _MASK)


@contextlib.contextmanager
def preserved(guards: Sequence[Guard] = ()) -> Iterator[None]:
    """Restore RNG states and environment variables on the way out, also after an exception or Ctrl-C.

    `guards` add what a framework keeps globally.
    """
    with contextlib.ExitStack() as stack:
        for guard in (preserved_generators, _preserved_numpy_errors, _preserved_environment, *guards):
            stack.enter_context(guard())
        yield


@contextlib.contextmanager
def preserved_generators() -> Iterator[None]:
    """Restore Python's generator and numpy's legacy one; cheap enough to stand around every reading."""
    state = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)


@contextlib.contextmanager
def _preserved_numpy_errors() -> Iterator[None]:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        yield
        return
    errors = numpy.geterr()
    try:
        yield
    finally:
        numpy.seterr(**errors)


@contextlib.contextmanager
def _preserved_environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
