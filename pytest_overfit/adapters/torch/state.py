"""What torch keeps globally, saved and put back.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


def seed(value: int) -> None:
    """Seed every generator of torch."""
    torch.manual_seed(value)


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Restore generators, default dtype, threads and switches on the way out."""
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    precision = torch.get_float32_matmul_precision()
    anomaly = torch.is_anomaly_enabled()
    # switches gradients on: a test that left them off must not make a model look frozen
    with preserved_generators(), torch.inference_mode(False):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            torch.set_grad_enabled(grad)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_float32_matmul_precision(precision)
            torch.autograd.set_detect_anomaly(anomaly)


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
