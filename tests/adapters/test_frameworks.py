"""What an adapter offers is asked of its modules: no framework is named where its parts are used."""

from __future__ import annotations

import types
from typing import Any

import pytest

from pytest_overfit.adapters.dispatch import JointTrainingByFramework, regularizers_of
from pytest_overfit.adapters.frameworks import part_of
from pytest_overfit.adapters.inspector import inspector_for


@pytest.mark.parametrize("framework", ["step", "lightning", "", "torch.ensemble"])
def test_what_is_no_framework_of_ours_has_no_parts(framework: str) -> None:
    learner: Any = types.SimpleNamespace(framework=framework)
    assert part_of(framework, "inspector") is None
    assert inspector_for(learner) is None
    assert regularizers_of(learner).remarks
    assert not JointTrainingByFramework().may_join(learner, 10, 1000)
    assert JointTrainingByFramework().train([learner], 1, lambda member: None) is None


def test_torch_has_all_parts() -> None:
    pytest.importorskip("torch")
    for name, functions in {"inspector": ["gradient_norms"], "ensemble": ["may_join", "train"]}.items():
        part = part_of("torch", name)
        assert part is not None
        assert all(callable(getattr(part, function)) for function in functions)


def test_keras_trains_one_after_the_other() -> None:
    pytest.importorskip("keras")
    keras_trainer: Any = types.SimpleNamespace(framework="keras")
    assert part_of("keras", "inspector") is not None
    assert part_of("keras", "ensemble") is None
    assert not JointTrainingByFramework().may_join(keras_trainer, 10, 1000)
