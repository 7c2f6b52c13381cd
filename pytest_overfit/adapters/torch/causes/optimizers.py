"""What an optimizer refuses: rates, and parameters that are none of the model's, or none at all."""

from __future__ import annotations

import re

from pytest_overfit.adapters.causes.table import MessageRule, on, shown
from pytest_overfit.adapters.torch.causes.scene import Scene
from pytest_overfit.adapters.torch.wires.parts import unregistered
from pytest_overfit.core.verdict import Diagnosis

_ALL = "write torch.optim.Adam(model.parameters()), or what is yours in place of Adam"

#: names that are listed
_LISTED = 3


def _empty(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """No parameter was given: there is none, or those that are there were not found, or were not given."""
    if scene.model is None:
        return None
    known, hidden = dict(scene.model.named_parameters()), list(unregistered(scene.model))
    if hidden:
        names = ", ".join(hidden[:_LISTED]) + (f" and {len(hidden) - _LISTED} more" if len(hidden) > _LISTED else "")
        evidence = f"the optimizer got no parameter, and {names} are in none of the model's registered parts"
        cure = "keep layers in nn.ModuleList, nn.ModuleDict or nn.Sequential, and tensors in nn.Parameter"
        return shown("unregistered_parameters", evidence, cure)
    if known and not any(each.requires_grad for each in known.values()):
        evidence = f"the optimizer got no parameter: all {len(known)} of the model are frozen"
        return shown("frozen_parameters", evidence, "call requires_grad_(True) on what is to be trained")
    if known:
        evidence = f"the optimizer got no parameter, and the model has {len(known)}"
        return shown("optimizer_wrong_params", evidence, f"{_ALL}; a generator is empty after its first use")
    return None


def _not_leaves(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    cure = f"{_ALL}; what .to(), .cuda() or an operation gave is another tensor: move the model first"
    return shown("optimizer_wrong_params", match.group(), cure)


def _no_tensors(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    return shown("optimizer_wrong_params", f"{match.group()}{scene.text[match.end() :]}".splitlines()[0], _ALL)


def _twice(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    return shown("parameter_twice", match.group(), "leave in one group what is in two, by id() rather than by value")


def _rate(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    rate = match.group(1)
    if not rate.startswith("-"):
        return None
    return shown("lr_negative", f"the learning rate is {rate}", f"write lr={rate.removeprefix('-')}")


def _epsilon(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    return shown("bad_adam_epsilon", f"epsilon is {match.group(1)}", "leave eps= out: its default is 1e-8")


def _dropout(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    """Beyond 1 everything would be dropped; a percentage, most likely."""
    rate = float(match.group(1))
    if rate <= 1:
        return None
    percent = rate / 100 if 2 <= rate < 100 else 0.5
    return shown("excessive_dropout", f"the probability of dropping is {rate:g}", f"write p={percent:g}")


RULES: tuple[MessageRule[Scene], ...] = (
    on(r"optimizer got an empty parameter list", _empty),
    on(r"can't optimize a non-leaf Tensor", _not_leaves),
    on(r"optimizer can only optimize Tensors, but|params argument given to the optimizer should be", _no_tensors),
    on(r"some parameters appear in more than one parameter group", _twice),
    on(r"Invalid learning rate: (-?[\w.+-]+)", _rate),
    on(r"Invalid epsilon value: (-?[\w.+-]+)", _epsilon),
    on(r"dropout probability has to be between 0 and 1, but got (-?[\d.]+)", _dropout),
)
