"""What torch keeps globally, saved and put back."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pytest_overfit.adapters.torch import outside
from pytest_overfit.core.state import fair_threads


def seed(value: int) -> None:
    """Seed every generator of torch, also those of devices that are there and have not started."""
    if _device_is_there():
        torch.manual_seed(value)
    else:
        reseed(value)


@functools.cache
def _device_is_there() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def reseed(value: int) -> None:
    """Seed the generators in use.

    `torch.manual_seed` also leaves word, with a formatted stack each, for every kind of device that may start later;
    that costs more than a small net's forward pass.
    """
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(value)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(value)


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Restore generators, default dtype, threads and switches on the way out."""
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    share = fair_threads(threads)
    deterministic = _deterministic()
    precision = torch.get_float32_matmul_precision()
    anomaly = torch.is_anomaly_enabled()
    # switches gradients on: a test that left them off must not make a model look frozen
    with preserved_generators(), torch.inference_mode(False):
        try:
            if share < threads:
                torch.set_num_threads(share)
            yield
        finally:
            outside.give_back()
            torch.set_default_dtype(dtype)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            torch.set_grad_enabled(grad)
            if _deterministic() != deterministic:  # the setter imports the compiler, which takes a second
                torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
            torch.set_float32_matmul_precision(precision)
            torch.autograd.set_detect_anomaly(anomaly)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def generators() -> tuple[object, ...]:
    """Where every generator stands: differs before and after something random was drawn."""
    accelerators = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    accelerators += [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else []
    states = [torch.get_rng_state(), *accelerators]
    numpy_state = np.random.get_state(legacy=False)["state"]
    return (
        random.getstate(),
        numpy_state["key"].tobytes(),
        numpy_state["pos"],
        *(each.numpy().tobytes() for each in states),
    )


@contextlib.contextmanager
def preserved_generators() -> Iterator[None]:
    """Put the CPU's and every started accelerator's generator back."""
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)


@contextlib.contextmanager
def noting_parameters(note: Callable[[object], None]) -> Iterator[None]:
    """Inside, `note` gets every parameter that a module registers; copies and scripted modules register none."""
    with register_module_parameter_registration_hook(lambda module, name, parameter: note(parameter)):
        yield


def parameters_of(model: object) -> list[nn.Parameter]:
    """The parameters by which a module is known to be new; other objects have none."""
    return list(model.parameters()) if isinstance(model, nn.Module) else []
