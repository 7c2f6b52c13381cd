"""What an error shows of its cause: on the error, in the terminal, in JSON and in JUnit; a healthy case shows none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pytest_overfit import Case, CaseError, run_probes
from pytest_overfit.core.diagnosed import diagnosed, with_causes
from tests.adapters.causes.torch_crashes import Keeps, chain

linear = nn.Linear
X, Y = torch.linspace(-1, 1, 8 * 6).reshape(8, 6), torch.arange(8) % 3


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def mlp(units: int = 3) -> nn.Module:
    return chain(first=linear(6, 16), act=nn.ReLU(), last=linear(16, units))


def case(**changed: Any) -> Case:
    fields = {"name": "net", "model": mlp, "loss": F.cross_entropy, "optimizer": adam, "batch": (X, Y)}
    return Case(**{**fields, **changed})


def first_raised(given: Case, probe: str = "overfit_batch") -> CaseError:
    with pytest.raises(CaseError) as raised:
        run_probes(given, [probe], steps=20) if probe == "overfit_batch" else run_probes(given, [probe])
    return raised.value


def two_backwards(model: nn.Module, x: Any, y: Any) -> torch.Tensor:
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    loss.backward()
    return loss


def recurrent(model: nn.Module, x: Any, y: Any) -> torch.Tensor:
    del y
    loss = model(x).square().mean()
    loss.backward()
    return loss


def later_label() -> Any:
    """Labels that fit in the first batch, and not in the second."""
    return [(X, Y), (X, Y + 4)]


class ListOfLayers(nn.Module):
    """Its layers are in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [linear(6, 8), linear(8, 3)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[1](self.layers[0](x).relu())


class SwitchesOff(nn.Module):
    """Its last layer's result is written over."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x).sigmoid()
        x *= 2
        return x


#: what is wrong -> the case, the faults that its error names, and words of the message
FAULTY: dict[str, tuple[Callable[[], Case], list[str], str]] = {
    "layers": (
        lambda: case(model=lambda: chain(first=linear(6, 16), last=linear(8, 3))),
        ["shape_mismatch"],
        "(layer last (Linear) takes 8 features in the last axis, got (8, 16)); cure: write in_features=16 in last",
    ),
    "dtype": (lambda: case(model=lambda: mlp().double()), ["dtype_mismatch"], "cause: dtype_mismatch"),
    "labels": (
        lambda: case(batch=(X, Y + 1)),
        ["label_out_of_range", "label_off_by_one"],
        "cause: label_off_by_one (labels go from 1 to 3 for 3 units); cure: write y - 1",
    ),
    "units": (
        lambda: case(model=lambda: mlp(2)),
        ["label_out_of_range", "wrong_output_units"],
        "cure: give the last layer 3 units",
    ),
    "labels as floats": (lambda: case(batch=(X, Y.float())), ["dtype_mismatch"], "write y.long()"),
    "quantities": (lambda: case(batch=(X, X[:, 0])), ["wrong_loss"], "cure: write mse_loss"),
    "binary integers": (
        lambda: case(model=lambda: mlp(1), loss=F.binary_cross_entropy_with_logits, batch=(X, Y[:, None] % 2)),
        ["dtype_mismatch"],
        "write y.float()",
    ),
    "binary scores": (
        lambda: case(model=lambda: mlp(1), loss=F.binary_cross_entropy, batch=(X, Y[:, None] % 2.0)),
        ["missing_sigmoid"],
        "binary_cross_entropy_with_logits",
    ),
    "width": (
        lambda: case(loss=F.mse_loss, batch=(X, X[:, :2])),
        ["wrong_output_units"],
        "(mse_loss got outputs (8, 3) and targets (8, 2) float32: 3 units for 2 numbers a row); cure: write out_feat",
    ),
    "no reduction": (lambda: case(loss=nn.CrossEntropyLoss(reduction="none")), ["wrong_reduction"], ".mean()"),
    "a number": (lambda: case(loss=lambda out, y: F.cross_entropy(out, y).item()), ["detached_graph"], ".item()"),
    "cut": (lambda: case(loss=lambda out, y: F.cross_entropy(out.detach(), y)), ["detached_graph"], "cuts the graph"),
    "frozen": (lambda: case(model=lambda: mlp().requires_grad_(False)), ["frozen_parameters"], "requires_grad_(True)"),
    "rate": (
        lambda: case(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=-0.1)),
        ["lr_negative"],
        "cause: lr_negative (the learning rate is -0.1); cure: write lr=0.1",
    ),
    "a column for a row": (
        lambda: case(model=lambda: mlp(1), loss=F.mse_loss, batch=(X, X[:, 0])),
        ["target_broadcast"],
        "outputs.squeeze(1)",
    ),
    "nothing to optimize": (
        lambda: case(model=ListOfLayers), ["unregistered_parameters"], "cause: unregistered_parameters (the optimizer"
    ),
    "written over": (lambda: case(model=SwitchesOff), ["inplace_modification"], "the result of Sigmoid"),
    "second backward": (
        lambda: case(step=two_backwards, loss=None), ["hidden_state_not_detached"], "loss.backward() once a step"
    ),
    "kept state": (
        lambda: case(model=Keeps, step=recurrent, loss=None, batch=(torch.linspace(-1, 1, 48).reshape(8, 3, 2), Y)),
        ["hidden_state_not_detached"],
        "self.state = self.state.detach()",
    ),
    "objects": (lambda: case(batch=(np.array([[None, 1]] * 8, object), Y)), ["dtype_mismatch"], "astype('float32')"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTY)
def test_an_error_names_the_fault_that_it_shows(name: str) -> None:
    make, faults, words = FAULTY[name]
    error = first_raised(make())
    assert [each.fault for each in error.diagnoses] == faults, error
    assert words in str(error)
    assert str(error).count("cause: ") == len(faults)
    for found in error.diagnoses:
        assert found.evidence
        assert found.cure
        assert not found.evidence.startswith("Case ")


@pytest.mark.parametrize("name", FAULTY)
def test_a_diagnosis_of_an_error_stands_on_its_first_probe_alike(name: str) -> None:
    """Whatever probe makes the learner, the same fault is named."""
    make, faults, _ = FAULTY[name]
    if name in ("second backward", "kept state", "written over"):
        pytest.skip("probes that make no step see none of it")
    assert [each.fault for each in first_raised(make(), "inert_regularizer").diagnoses] == faults


def test_a_healthy_case_has_no_diagnosis() -> None:
    (verdict,) = run_probes(case(), ["overfit_batch"])
    assert (verdict.outcome, verdict.diagnoses) == ("passed", ())


@pytest.mark.parametrize(
    "given",
    [
        lambda: case(model=lambda: None),
        lambda: case(model=lambda: 1 + None),  # type: ignore[operator]
        lambda: case(loss=None),
        lambda: case(optimizer=None),
        lambda: case(limits={"overfit_batch": {"stepps": 3}}),
        lambda: case(batch=(X[:0], Y[:0])),
        lambda: case(batch=(X, Y[:5])),
    ],
)
def test_a_misuse_names_no_fault(given: Callable[[], Case]) -> None:
    error = first_raised(given())
    assert error.diagnoses == ()
    assert "cause:" not in str(error)


def test_a_cause_is_written_once_and_a_cure_that_is_said_already_is_not() -> None:
    error = diagnosed(CaseError("Case 'a': labels are odd; write y - 1"), "label_off_by_one", "write y - 1")
    with_causes(error)
    with_causes(error)
    assert str(error) == "Case 'a': labels are odd; write y - 1\n  cause: label_off_by_one"
    assert error.diagnoses[0].evidence == "labels are odd"


SOURCE = """
import torch, torch.nn.functional as F
from torch import nn
from pytest_overfit import Case

def make():
    return nn.Sequential(nn.Linear(6, 16), nn.Linear(8, 3))

def test_it(overfit):
    overfit.batch(Case(name="net", model=make, loss=F.cross_entropy, batch=(torch.ones(8, 6), torch.arange(8) % 3),
                       optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)))
"""


def test_terminal_json_and_junit_show_the_cause_of_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SOURCE)
    result = pytester.runpytest_inprocess("--overfit-json=out.json", "--junitxml=out.xml", "-p", "no:randomly")
    result.assert_outcomes(failed=1)
    line = "cause: shape_mismatch (layer 1 (Linear) takes 8 features in the last axis, got (8, 16)); cure: write"
    result.stdout.fnmatch_lines([f"*{line} in_features=16 in 1*"])
    # once in the failure itself; pytest repeats a message in its own summary, whole where CI is set
    assert sum("cause: shape_mismatch" in each for each in result.outlines if each.startswith("E ")) == 1
    (error,) = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))["errors"]
    (found,) = error["diagnoses"]
    assert (found["fault"], found["confidence"]) == ("shape_mismatch", "shown")
    assert found["evidence"] == "layer 1 (Linear) takes 8 features in the last axis, got (8, 16)"
    tree = ElementTree.parse(pytester.path / "out.xml")
    told = {each.get("name"): each.get("value") for each in tree.iter("property")}
    assert told["overfit.net.overfit_batch.error"] == "ProgramError"
    assert told["overfit.net.overfit_batch.diagnosis"] == "shape_mismatch"
    (failure,) = tree.iter("failure")
    assert line in str(failure.text)
