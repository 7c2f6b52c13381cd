"""Sizes that do not fit together: in a layer, or in a line of the user's own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from torch import nn

from pytest_overfit.adapters.causes.table import MessageRule, likely, on, shown
from pytest_overfit.adapters.torch.causes.scene import RefusedCall, Scene, shape_of
from pytest_overfit.core.verdict import Diagnosis

_FAULT = "shape_mismatch"


def mismatch(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """The layer with what it takes and what it got, else the line with its sizes."""
    layer = scene.layer
    if layer is None or not layer.given:
        return _of_line(scene)
    takes, cure = _taken(layer)
    if not takes:
        return shown(_FAULT, f"{scene.place}: {scene.first_line}", f"change what reaches {layer.short}, or its sizes")
    return shown(_FAULT, f"{layer.called} takes {takes}, got {shape_of(layer.given[0])}", cure)


def _of_line(scene: Scene) -> Diagnosis | None:
    """Sizes of a line that is not a layer's; outside of the training, of whatever failed there."""
    evidence = f"{scene.first_line.rstrip('.')}, in {scene.place}"
    return shown(_FAULT, evidence, _line_cure(scene))


def _line_cure(scene: Scene) -> str:
    if re.search(r"\.(view|reshape)\(\s*-1\s*,", scene.line):
        return "keep the rows first, x.flatten(1), and give the next layer as many features as that leaves"
    if re.search(r"\.(view|reshape|unflatten)\(", scene.line):
        return f"let the sizes in `{scene.line}` multiply to the numbers that are there, or write x.flatten(1)"
    if scene.line:
        return f"change one of the sizes in `{scene.line}`, or what its operands are made of"
    return "change one of the two sizes that the message names"


def _taken(layer: RefusedCall) -> tuple[str, str]:
    """What a layer takes, in words, and what to write; "" where this kind is not known."""
    for kinds, answer in _LAYERS:
        if isinstance(layer.module, kinds):
            return answer(layer)
    return "", ""


def _wanted(layer: RefusedCall, attribute: str, axis: int) -> tuple[int, int | None, tuple[int, ...]]:
    """The declared size, the size that came on this axis, and the whole shape."""
    shape = tuple(layer.given[0].shape)
    there = shape[axis] if -len(shape) <= axis < len(shape) else None
    return int(getattr(layer.module, attribute)), there, shape


def _last_axis(layer: RefusedCall, attribute: str) -> tuple[str, str]:
    size, there, shape = _wanted(layer, attribute, -1)
    if there == size or (len(shape) > 3 and not isinstance(layer.module, nn.Linear)):
        return "", ""
    takes, per_row = f"{size} features in the last axis", math.prod(shape[1:])
    if len(shape) > 2 and per_row == size:
        return takes, f"flatten the rows before {layer.short}: x = x.flatten(1)"
    other = f"x.transpose({shape.index(size, 1)}, -1) where these are the features, or " if size in shape[1:-1] else ""
    spatial = isinstance(layer.module, nn.Linear) and len(shape) == 4
    width = per_row if spatial else there
    first = "flatten the rows (x.flatten(1)) and " if spatial else ""
    return takes, f"{other}{first}write {attribute}={width} in {layer.short}, or let what comes before it give {size}"


def _channels(layer: RefusedCall, attribute: str) -> tuple[str, str]:
    size, there, shape = _wanted(layer, attribute, 1)
    axes = _axes(layer.module)
    if there == size and len(shape) in (0, axes or len(shape)):
        return "", ""
    takes = f"{size} channels in axis 1" + (f" of {axes} axes" if axes else "")
    if axes and len(shape) == axes - 1 and size == 1:
        return takes, f"add the axis of channels before {layer.short}: x.unsqueeze(1)"
    if axes and len(shape) != axes:
        lacking = f"{axes} axes, (rows, channels, ...)"
        return takes, f"give {layer.short} {lacking}, or write {_kind_for(layer, len(shape))}"
    if len(shape) > 2 and shape[-1] == size:
        order = ", ".join(map(str, (0, len(shape) - 1, *range(1, len(shape) - 1))))
        return takes, f"put channels first before {layer.short}: x.permute({order})"
    return takes, f"write {attribute}={there} in {layer.short}, or let what comes before it give {size} channels"


def _axes(module: nn.Module) -> int:
    """Axes that a convolution or a normalisation takes; 0: any."""
    found = re.search(r"(\d)d\Z", type(module).__name__)
    return int(found.group(1)) + 2 if found and found.group(1) != "1" else 0


def _kind_for(layer: RefusedCall, axes: int) -> str:
    if axes == 2 and layer.kind.startswith("Conv"):
        return "Linear in its place"
    stem = re.sub(r"\dd\Z", "", layer.kind)
    return f"{stem}{max(1, axes - 2)}d in its place" if axes > 1 else "another layer in its place"


def _normalised(layer: RefusedCall) -> tuple[str, str]:
    shape, wanted = tuple(layer.given[0].shape), tuple(getattr(layer.module, "normalized_shape", ()))
    there = shape[-len(wanted) :] if len(wanted) <= len(shape) else shape
    return f"the last axes to be {wanted}", f"write normalized_shape={there} in {layer.short}"


def _tokens(layer: RefusedCall) -> tuple[str, str]:
    size, given = int(getattr(layer.module, "num_embeddings")), layer.given[0]  # noqa: B009 - of two kinds
    takes = f"indices from 0 to {size - 1}, got {int(given.min())} to {int(given.max())}"
    low = int(given.min()) < 0
    cure = "number the entries from 0" if low else f"write num_embeddings={int(given.max()) + 1} or more"
    return takes, f"{cure} in {layer.short}, or map what is unknown to an index that it has"


_LAYERS: tuple[tuple[tuple[type[nn.Module], ...], Callable[[RefusedCall], tuple[str, str]]], ...] = (
    ((nn.Linear,), lambda layer: _last_axis(layer, "in_features")),
    ((nn.RNNBase, nn.RNNCellBase), lambda layer: _last_axis(layer, "input_size")),
    ((nn.MultiheadAttention,), lambda layer: _last_axis(layer, "embed_dim")),
    ((nn.modules.conv._ConvNd,), lambda layer: _channels(layer, "in_channels")),
    ((nn.modules.batchnorm._NormBase,), lambda layer: _channels(layer, "num_features")),
    ((nn.GroupNorm,), lambda layer: _channels(layer, "num_channels")),
    ((nn.LayerNorm,), _normalised),
)


def _embedded(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """Entries beyond a layer's table: its size does not fit what it is given."""
    layer = scene.layer
    if layer is None or not isinstance(layer.module, (nn.Embedding, nn.EmbeddingBag)) or not layer.given:
        return None
    takes, cure = _tokens(layer)
    return shown(_FAULT, f"{layer.called} takes {takes}", cure)


def _too_small(scene: Scene, _: re.Match[str]) -> Diagnosis | None:
    """A window larger than what is left of the input."""
    name = scene.layer.short if scene.layer else f"`{scene.line}`"
    cure = f"give larger inputs, or take out a pooling or a stride before {name}, or write padding= there"
    return shown(_FAULT, f"{scene.place}: {scene.first_line}", cure)


def _batch_second(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    """A state for other rows than the input has."""
    name = scene.layer.short if scene.layer else "the layer"
    cure = (
        f"make the state for as many rows as the input of {name} has, or write batch_first=True where rows come first"
    )
    return shown(_FAULT, f"{scene.place}: {match.group()}", cure)


def _collated(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    """Samples of different sizes cannot be one batch."""
    cure = "bring all samples to one size (pad, crop, resize) before they are stacked, or give a collate_fn= that does"
    return shown(_FAULT, match.group(), cure)


def _loaded(_: Scene, match: re.Match[str]) -> Diagnosis | None:
    """A file of weights of another architecture."""
    return shown(_FAULT, match.group().rstrip("."), "build the model with the sizes that the file was saved with")


def _axis(scene: Scene, match: re.Match[str]) -> Diagnosis | None:
    """An axis that a tensor does not have; the message leaves open which of the two is wrong."""
    if not scene.trains:
        return None
    return likely(_FAULT, f"{match.group()}, in {scene.place}", f"change the axis, or the sizes, in `{scene.line}`")


#: messages of sizes that do not fit, of any operation
_SIZES = (
    r"mat1 and mat2 shapes cannot be multiplied",
    r"size mismatch, (m1|got input)",
    r"weight of size .* expected input",
    r"Expected \d-dimensional input for \d-dimensional weight",
    r"Expected \d?D? ?.*input to conv\w*, but got input of size",
    r"expected \d+D.* input \(got \d+D input\)",
    r"expected input's size at dim=1 to match num_features",
    r"running_mean should contain \d+ elements not \d+",
    r"Given normalized_shape=",
    r"weight to be a vector of size equal to the number of channels",
    r"input\.size\(-1\) must be equal to input_size",
    r"input has inconsistent input_size",
    r"(RNN|LSTM|GRU|RNNCell|LSTMCell|GRUCell): Expected input to be",
    r"was expecting embedding dimension of",
    r"key shape .* does not match value shape",
    r"(feature|batch) number of src and tgt must be equal",
    r"Expected key_padded_mask\.shape",
    r"(The|the) shape of the (2D|3D) attn_mask is",
    r"Sizes of tensors must match except in dimension",
    r"Tensors must have same number of dimensions",
    r"shape '\[.*\]' is invalid for input of size",
    r"The size of tensor a \(\d+\) must match the size of tensor b",
    r"Expected size for first two dimensions of batch2",
    r"batch[12] must be a 3D tensor",
    r"inconsistent tensor size, expected tensor",
    r"(mat1|mat2|self|vec|tensor) must be a (matrix|vector|2-D|1-D)",
    r"einsum\(\):? .*(does not broadcast|does not match the number of dimensions)",
    r"expanded size of the tensor \(\d+\) must match",
    r"number of sizes provided .* must be greater or equal to the number of dimensions",
    r"The shape of the mask .* does not match",
    r"unflatten: Provided sizes",
    r"number of dimensions in the tensor input does not match the length",
    r"split_with_sizes expects split_sizes to sum",
    r"input\d size does not match weight size",
    r"Mismatch of parameter numbers and input channel size",
    r"pixel_(un)?shuffle expects",
    r"Only 3D, 4D and 5D input Tensors supported",
    r"non-empty .*tensor expected for input",
    r"Expected (3D|2D|4D|5D).* tensor, but got",
    r"weight tensor should be defined either for all",
    r"Shape mismatch: |shape mismatch: (value|indexing) tensor",
)

RULES: tuple[MessageRule[Scene], ...] = (
    *(on(pattern, mismatch) for pattern in _SIZES),
    on(r"size mismatch for [\w.]+: copying a param with shape .*", _loaded),
    on(r"index out of range in self|Index \d+ of input takes value", _embedded),
    on(r"Kernel size can't be greater|Output size is too small|Padding size should be less", _too_small),
    on(r"Expected (hidden|hidden\[\d\]) size .*, got .*|For (un)?batched .* hx .* should also be.*", _batch_second),
    on(r"stack expects each tensor to be equal size, but got .*", _collated),
    on(r"Dimension out of range \(expected to be in range of .*?\)", _axis),
)
