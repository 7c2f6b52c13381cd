"""Which fault a crash of PyTorch shows: planted crashes, texts of other versions, and crashes that show none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_overfit.adapters.causes import cause_of
from pytest_overfit.adapters.causes.table import Crash
from pytest_overfit.core.verdict import Diagnosis
from tests.adapters.causes.torch_crashes import CRASHES, UNKNOWN

CALL = "Case 'net': a training step"


def diagnosis(run: Callable[[], Any], call: str = CALL) -> Diagnosis | None:
    """What is said of what the program raises."""
    with pytest.raises(Exception) as raised:
        run()
    return cause_of(Crash(raised.value, call))


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_has_its_fault_by_name_with_what_was_measured(name: str) -> None:
    crash = CRASHES[name]
    found = diagnosis(crash.run)
    assert found is not None
    assert (found.fault, crash.evidence in found.evidence, crash.cure in found.cure) == (crash.fault, True, True), found


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_crash_that_does_not_show_its_cause_has_none(name: str) -> None:
    assert diagnosis(UNKNOWN[name]) is None


#: messages as older and newer versions, other devices and compilers have them
TEXTS = {
    "size mismatch, m1: [8 x 60], m2: [64 x 10] at TH/generic/THTensorMath.cpp:41": "shape_mismatch",
    "mat1 dim 1 must match mat2 dim 0": "",
    (
        "Dynamo failed to run FX node with fake tensors: call_module fc(*(FakeTensor(..., size=(8, 60)),), "
        "**{}): got RuntimeError('mat1 and mat2 shapes cannot be multiplied (8x60 and 64x10)')"
    ): "shape_mismatch",
    "Expected 4-dimensional input for 4-dimensional weight [4, 3, 3, 3], but got 2-dimensional input": "shape_mismatch",
    (
        "Given groups=1, weight of size 4 3 3 3, expected input[8, 1, 28, 28] to have 3 channels, but got 1 "
        "channels instead"
    ): "shape_mismatch",
    "LSTM: Expected input to be 2-D or 3-D but received 4-D tensor": "shape_mismatch",
    "Expected hidden[0] size (1, 8, 5), got [1, 3, 5]": "shape_mismatch",
    "The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1": "shape_mismatch",
    "Expected object of scalar type Float but got scalar type Long for argument #2 'mat1'": "dtype_mismatch",
    "expected scalar type Float but found Double": "dtype_mismatch",
    "Input type (torch.DoubleTensor) and weight type (torch.FloatTensor) should be the same": "dtype_mismatch",
    "Input type (torch.FloatTensor) and weight type (torch.cuda.FloatTensor) should be the same": "",
    "Input type (double) and bias type (float) should be the same": "dtype_mismatch",
    "\"addmm_impl_cpu_\" not implemented for 'Half'": "dtype_mismatch",
    "'log_softmax_lastdim_kernel_impl' not implemented for 'Long'": "dtype_mismatch",
    "self and mat2 must have the same dtype, but got Double and Float": "dtype_mismatch",
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!": "",
    "CUDA error: device-side assert triggered": "",
    "CUDA out of memory. Tried to allocate 2.00 GiB": "",
    "Target 12 is out of bounds.": "label_out_of_range",
    (
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        "[torch.FloatTensor [3]], which is output 0 of ExpBackward, is at version 1; expected version 0 "
        "instead."
    ): "inplace_modification",
    (
        "Trying to backward through the graph a second time, but the buffers have already been freed. "
        "Specify retain_graph=True when calling backward the first time."
    ): "hidden_state_not_detached",
    "element 0 of tensors does not require grad and does not have a grad_fn": "detached_graph",
    "Invalid learning rate: -1e-05": "lr_negative",
    "Invalid learning rate: nan": "",
}


@pytest.mark.parametrize(("text", "fault"), TEXTS.items())
def test_a_message_alone_is_enough(text: str, fault: str) -> None:
    found = cause_of(Crash(RuntimeError(text), CALL))
    assert (found.fault if found else "") == fault


def test_numpy_in_a_score_is_no_fault_of_the_graph() -> None:
    run = lambda: torch.ones(3, requires_grad=True).numpy()  # noqa: E731
    assert diagnosis(run, "Case 'net': score") is None
    assert diagnosis(run, "Case 'net': the loss") is not None


def test_the_first_row_of_a_table_that_has_an_answer_counts() -> None:
    """A loss that broadcasts names units; the same message out of a layer's line names the line."""
    message = "The size of tensor a (10) must match the size of tensor b (3) at non-singleton dimension 1"
    inside = diagnosis(lambda: torch.nn.functional.l1_loss(torch.ones(2, 10), torch.ones(2, 3)))
    alone = diagnosis(lambda: torch.ones(2, 10) + torch.ones(2, 3))
    assert inside is not None
    assert alone is not None
    assert (inside.fault, alone.fault) == ("wrong_output_units", "shape_mismatch")
    assert message in alone.evidence


def test_a_message_that_breaks_the_table_is_left_alone() -> None:
    """What is raised while a cause is looked for never hides what the user's code raised."""

    class Unprintable(RuntimeError):
        def __str__(self) -> str:
            raise ValueError("no text")

    assert cause_of(Crash(RuntimeError(""), CALL)) is None
    with pytest.raises(ValueError, match="no text"):
        str(Unprintable())
