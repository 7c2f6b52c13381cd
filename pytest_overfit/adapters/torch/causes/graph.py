"""What backward refuses: a graph that is cut, gone, written over, or wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import nn

from pytest_overfit.adapters.causes.table import MessageRule, likely, on, shown
from pytest_overfit.adapters.torch.causes.scene import Scene
from pytest_overfit.core.verdict import Diagnosis

_CUTS = "detach(), .data, .item(), numpy(), argmax, or torch.no_grad()"

#: gradients that are not numbers, by the operation that makes them so
_NOT_A_NUMBER = {
    "Sqrt": ("sqrt_zero_gradient", "write torch.sqrt(x + 1e-8)"),
    "Pow": ("sqrt_zero_gradient", "add 1e-8 to what is raised to a power below 1"),
    "LinalgVectorNorm": ("sqrt_zero_gradient", "write torch.sqrt((x ** 2).sum() + 1e-8) for the norm"),
    "Log": ("log_of_zero", "write torch.log(x.clamp_min(1e-8)), or log_softmax in place of log(softmax)"),
    "Div": ("division_by_zero", "write x / (y + 1e-8)"),
}


def _again(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """A second backward pass through one graph: a state that holds it is named."""
    held = dict(_held(scene.model)) if scene.model is not None else {}
    kept = " that was kept, and whose weights have changed since" if "retain_graph" in scene.line else ""
    first = f"backward passed a second time through a graph{kept or ' that the first had freed'}"
    if held:
        name = next(iter(held))
        cure = f"detach it between steps: self.{name} = self.{name}.detach()"
        return shown("hidden_state_not_detached", f"{first}; {name} of the model still holds that graph", cure)
    cure = "detach the state that goes from step to step (h = h.detach()), or call loss.backward() once a step"
    return shown("hidden_state_not_detached", first, cure)


def _held(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Attributes and buffers of the model that were computed with a gradient."""
    for path, module in model.named_modules():
        for name, value in [*vars(module).items(), *module.named_buffers(recurse=False)]:
            parts = value if isinstance(value, (tuple, list)) else [value]
            if any(isinstance(each, torch.Tensor) and each.grad_fn is not None for each in parts):
                yield (f"{path}.{name}" if path else name), value


def _no_gradient(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """Backward of a loss that is a function of no parameter."""
    parameters = list(scene.model.parameters()) if scene.model is not None else []
    if parameters and not any(each.requires_grad for each in parameters):
        evidence = f"the loss has no gradient, and all {len(parameters)} parameters are frozen"
        return shown("frozen_parameters", evidence, "call requires_grad_(True) on what is to be trained")
    where = f" in `{scene.line}`" if scene.line else ""
    evidence = f"the loss has no gradient{where}, so it is a function of no trainable parameter"
    return shown("detached_graph", evidence, f"take out what cuts the graph: {_CUTS}")


def _number(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    """Backward of what is no longer a tensor."""
    evidence = f"backward was called on a {match.group(1)}: the graph ended before"
    return shown("detached_graph", evidence, "call backward on the tensor, before .item(), float() or numpy()")


def _to_numpy(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """Leaving torch inside what is trained; in a score it is a matter of course."""
    if not scene.trains:
        return None
    evidence = f"{scene.place} leaves torch by numpy, which has no gradient"
    cure = f"write torch's own function in `{scene.line}`; detach() there would cut the parameters off the loss"
    return shown("detached_graph", evidence, cure)


def _inplace(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    """A write over what backward needs; by the optimizer, where the model goes on from the last step's graph."""
    if "retain_graph" in scene.line and scene.model is not None and dict(_held(scene.model)):
        return _again(scene, match)
    made = re.search(r"which is output \d+ of (\w+?)(Backward\d*)?,", scene.text)
    what = f": the result of {made.group(1)} was written over before backward used it" if made else ""
    cure = "write x = x + y in place of x += y, relu(x) in place of relu_(x) and inplace=True; or clone() first"
    return shown("inplace_modification", f"{match.group().rstrip('.')}{what}", cure)


def _invalid(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """A distribution's parameters are not numbers: those of the inputs, or of the weights."""
    if "nan" not in scene.text:
        return None
    given = scene.calls[0][1] if scene.calls else ()
    missing = sum(int(each.isnan().sum()) for each in given if each.is_floating_point())
    if missing:
        evidence = f"{missing} numbers of the model's inputs are NaN, and so are the parameters of a distribution"
        return shown("nan_in_input", evidence, "fill or drop missing values before the batch is made")
    weights = [] if scene.model is None else list(scene.model.named_parameters())
    bad = [name for name, each in weights if not bool(each.isfinite().all())]
    if not bad:
        return None
    evidence = f"{bad[0]} is not finite, and so are the parameters of a distribution"
    return shown("nan_parameter", evidence, "look there for a rate too high, a division by 0, or an overflow")


def _not_scalar(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    where = f", in `{scene.line}`" if scene.line else ""
    return shown("wrong_reduction", f"{match.group()}{where}", "end the loss with .mean(), or reduction='mean'")


def _own_backward(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    cure = "return from backward one gradient for each input of forward, each of its input's shape"
    return shown("wrong_backward", match.group(), cure)


def _anomaly(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    """Anomaly detection names the first operation whose gradient is not a number."""
    fault, cure = _NOT_A_NUMBER.get(match.group(1), ("", ""))
    return likely(fault, match.group().rstrip("."), cure) if fault else None


_WRITTEN = (
    r"one of the variables needed for gradient computation has been modified by an inplace operation",
    r"a( view of a)? leaf Variable that requires grad is being used in an in-place operation",
    r"Output \d+ of \w+ is a view and is being modified inplace",
)

RULES: tuple[MessageRule[Scene], ...] = (
    *(on(pattern, _inplace) for pattern in _WRITTEN),
    on(r"Trying to backward through the graph a second time", _again),
    on(r"does not require grad and does not have a grad_fn", _no_gradient),
    on(r"'(float|int|numpy\.\w+)' object has no attribute 'backward'", _number),
    on(r"Can't call numpy\(\) on Tensor that requires grad", _to_numpy),
    on(r"to satisfy the constraint .*, but found invalid values", _invalid),
    on(r"grad can be implicitly created only for scalar outputs", _not_scalar),
    on(r"[Ff]unction \w+ returned an (invalid gradient at index|incorrect number of gradients).*", _own_backward),
    on(r"Function '(\w+?)Backward\d*' returned nan values in its \d+\w* output\.?", _anomaly),
)
