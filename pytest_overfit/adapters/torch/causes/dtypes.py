"""Numbers of a kind that an operation does not take."""

from __future__ import annotations

import re

from torch import nn

from pytest_overfit.adapters.causes.table import MessageRule, on, shown
from pytest_overfit.adapters.torch.causes.scene import Scene, described, dtype_of
from pytest_overfit.core.verdict import Diagnosis

_FAULT = "dtype_mismatch"

#: places on a device, which have nothing to do with dtypes
_PLACES = re.compile(r"cuda|xla|mps|meta")


def _mixed(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """The layer with its weights' dtype and what it got, else the line."""
    layer = scene.layer
    if layer is None or not layer.given:
        return shown(_FAULT, f"{scene.first_line.rstrip('.')}, in {scene.place}", _line_cure(scene))
    if isinstance(layer.module, (nn.Embedding, nn.EmbeddingBag)):
        evidence = f"{layer.called} takes integers, got {described(layer.given[0])}"
        return shown(_FAULT, evidence, f"write {layer.short}(x.long()), or keep tokens apart from other inputs")
    weight = next((each for each in layer.module.parameters() if each.is_floating_point()), None)
    if weight is None:
        return shown(_FAULT, f"{scene.place}: {scene.first_line}", f"write x.float() before {layer.short}")
    wanted = dtype_of(weight)
    wrong = next((each for each in layer.given if each.dtype != weight.dtype), layer.given[0])
    evidence = f"{layer.called} has weights of dtype {wanted}, got {described(wrong)}"
    return shown(_FAULT, evidence, f"write x.to(torch.{wanted}) before {layer.short}, or make the data so")


def _line_cure(scene: Scene) -> str:
    where = f" in `{scene.line}`" if scene.line else ""
    return f"bring both sides to one dtype{where}, e.g. with .float()"


def _of_device(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    """`Input type` and `weight type` name devices as well."""
    given, weights = match.groups()
    places = [_PLACES.findall(each.lower()) for each in (given, weights)]
    return _mixed(scene, match) if places[0] == places[1] else None


def _not_a_tensor(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    """An array where a layer takes a tensor."""
    evidence = f"{scene.place}: a {match.group(1)} instead of a tensor"
    return shown(_FAULT, evidence, "write torch.as_tensor(x) where the array comes from")


_MIXED = (
    r"(must|to) have the same dtype, but got",
    r"expected scalar type \w+ but found \w+",
    r"Expected object of scalar type \w+ but got scalar type \w+",
    r"Found dtype \w+ but expected \w+",
    r"Expected tensor for argument #\d .* to have .*scalar types?: .*but got",
    r"RNN input dtype \(.*\) does not match weight dtype",
    r"input must have the type torch\.\w+, got type",
    r"mixed dtype \(CPU\)",
    r"[\"']\w+[\"'] not implemented for '(Long|Int|Short|Char|Byte|Bool|Half|BFloat16|Double|Complex\w+)'",
    r"could not infer output dtype\. Input dtype must be either a floating point",
    r"only support(s)? floating point and complex dtypes",
    r"result type \w+ can't be cast to the desired output type",
    r"with (two|a) bool tensors? is not supported",
    r"Boolean inputs not supported for",
    r"Only Tensors of floating point and complex dtype can require gradients",
    r"tensors used as indices must be",
    r"Index put requires the source and destination dtypes match",
    r"Expected query, key, and value to have the same dtype",
    r"is only applicable to index tensor of type LongTensor",
    r"can't convert np\.ndarray of type numpy\.(object_|str_|bytes_)",
)

RULES: tuple[MessageRule[Scene], ...] = (
    on(r"Input type \((.*?)\) and (?:weight|bias) type \((.*?)\) should be the same", _of_device),
    *(on(pattern, _mixed) for pattern in _MIXED),
    on(r"argument '\w+' \(position \d\) must be Tensor, not (numpy\.ndarray|list)", _not_a_tensor),
    on(r"received an invalid combination of arguments - got \((numpy\.ndarray),", _not_a_tensor),
)
