"""Small pictures of copies for reports, as plain values, made while the samples are at hand.

A picture is a PNG file in base64: one line of HTML shows it, JSON holds it, and it is the shortest form there is (an
8 x 8 digit: 0.3 kB, as SVG rectangles 3.5 kB). It is written here, in a dozen lines of the standard library, so that a
verdict is the same whether an image library is installed or not.

What is an image: height x width, of 4 pixels at least each, alone or with 1 to 4 channels first or last. A clip or
volume, which has one dimension more, is shown by its middle frame. A flat row is never guessed to be one.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_overfit.core.arrays import Array
from pytest_overfit.duplicates.reading.split import Samples
from pytest_overfit.duplicates.values.fingerprints import as_leaf

#: pairs that are shown, and pixels of the longer side of a picture
MOST, SIDE = 5, 96
#: the shortest side, and the most channels, of what is taken for an image; as in the search for near-copies
_LEAST, _CHANNELS = 4, 4
#: pixels a side of which the average is taken; a longer image is thinned out to less than twice that first
_READ = 2 * SIDE
#: colour of pixels that are not a finite number: no grey, and rare in pictures
_HOLE = (230, 0, 120)
#: characters of a label in a caption
_LABEL = 40


def pictures_of(splits: Mapping[str, Samples], pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pictures of the first pairs whose samples are images that can be read again, at most `MOST`.

    An entry is `{"kind": "images", "images": [{"png", "width", "height", "name"}, ...], "caption"}`. Cost: ten samples
    read, some milliseconds, at most 0.4 MB (noise in colour; digits take 0.01).
    """
    found = [_picture(splits, pair) for pair in pairs[:MOST]]
    return [each for each in found if each is not None]


def _picture(splits: Mapping[str, Samples], pair: Mapping[str, Any]) -> dict[str, Any] | None:
    one, other = _samples(splits[pair["split_a"]], pair["i"]), _samples(splits[pair["split_b"]], pair["j"])
    for leaf in one:
        if leaf in other:
            names = f"{pair['split_a']}[{pair['i']}]", f"{pair['split_b']}[{pair['j']}]"
            drawn = side_by_side(one[leaf], other[leaf])
            images = [
                {"png": base64.b64encode(png(each)).decode(), "width": each.shape[1], "height": each.shape[0],
                 "name": name} for each, name in zip(drawn, names, strict=True)
            ]  # fmt: skip
            return {"kind": "images", "images": images, "caption": _caption(pair, names)}
    return None


def _samples(split: Samples, place: int) -> dict[str, Array]:
    """The parts of a sample that are images."""
    try:
        planes = {name: as_plane(as_leaf(leaf)) for name, leaf in (split.sample(place) or {}).items()}
    except Exception:  # the user's container raised, and a verdict stands without its pictures
        return {}
    return {name: plane for name, plane in planes.items() if plane is not None}


def _caption(pair: Mapping[str, Any], names: tuple[str, str]) -> str:
    parts = [f" {'=' if pair['kind'] == 'exact' else '~'} ".join(names)]
    labels = pair["label_a"], pair["label_b"]
    if labels != (None, None):
        parts.append("labels {} and {}".format(*(_cut(str(each)) for each in labels)))
    parts.append(pair["kind"])
    if pair["p"] is not None:
        parts.append(f"p = {pair['p']:.2g}")
    return ", ".join(parts)


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 3]}..."


def as_plane(sample: Any) -> Array | None:
    """An image of any form as height x width x channels (1 or 3), without a copy; None for what is none."""
    if not isinstance(sample, np.ndarray) or sample.dtype.kind not in "biuf" or sample.ndim not in (2, 3, 4):
        return None
    if sample.ndim == 4:  # a clip or volume: frames first, or channels, then frames
        if sample.shape[0] <= _CHANNELS < min(sample.shape[1:]):
            sample = np.moveaxis(sample, 0, -1)
        return as_plane(sample[len(sample) // 2]) if len(sample) else None
    if sample.ndim == 2:
        sample = sample[..., None]
    elif not 1 <= sample.shape[2] <= _CHANNELS:
        sample = np.moveaxis(sample, 0, -1)
    if not 1 <= sample.shape[2] <= _CHANNELS or min(sample.shape[:2]) < _LEAST:
        return None
    plane: Array = sample[..., : 3 if sample.shape[2] >= 3 else 1]  # of two channels the first: they are not colours
    return plane


def side_by_side(one: Array, other: Array) -> tuple[Array, Array]:
    """Two planes as bytes, (height, width) grey or (height, width, 3), no side above `SIDE`.

    The darkest value is black and the brightest white: of both together where they hold the same type of number, so
    that a difference in brightness shows, else of each, so that bytes and the same picture as floats look the same.
    """
    sizes = _size(*one.shape[:2]), _size(*other.shape[:2])
    one, other = _thinned(one), _thinned(other)
    same = one.dtype == other.dtype
    ranges = [_range(one, other)] * 2 if same else [_range(one), _range(other)]
    return _drawn(one, ranges[0], sizes[0]), _drawn(other, ranges[1], sizes[1])


def _thinned(plane: Array) -> Array:
    """Every n-th pixel of a huge image, so that its size costs neither time nor memory."""
    steps = [max(1, side // _READ) for side in plane.shape[:2]]
    return plane[:: steps[0], :: steps[1]]


def _range(*planes: Array) -> tuple[float, float]:
    finite = [values for plane in planes if (values := plane[np.isfinite(plane)]).size]
    if not finite:
        return 0.0, 0.0
    return min(float(values.min()) for values in finite), max(float(values.max()) for values in finite)


def _drawn(plane: Array, span: tuple[float, float], size: tuple[int, int]) -> Array:
    """Stretched to bytes, at the right size, holes marked."""
    low, high = span
    holes = np.logical_not(np.isfinite(plane).all(2, keepdims=True))
    values = np.where(np.isfinite(plane), plane, low).astype(np.float64)
    half = high / 2 - low / 2  # halves, because the range of two huge numbers is infinite
    values = (values / 2 - low / 2) / half if half > 0 else np.full(values.shape, 0.5)
    pixels: Array = np.rint(255 * _resized(values, size)).astype(np.uint8)
    if pixels.shape[2] == 1 and not holes.any():
        return pixels.reshape(size)
    pixels = np.broadcast_to(pixels, (*size, 3)).copy()
    pixels[_resized(holes.astype(np.float64), size)[..., 0] > 0] = _HOLE
    return pixels


def _size(height: int, width: int) -> tuple[int, int]:
    """Enlarged by a whole factor, or made smaller with the sides in proportion."""
    longer = max(height, width)
    if longer <= SIDE:
        return height * (SIDE // longer), width * (SIDE // longer)
    return max(1, round(height * SIDE / longer)), max(1, round(width * SIDE / longer))


def _resized(values: Array, sides: tuple[int, int]) -> Array:
    """Each pixel repeated, or averaged with its neighbours, along both axes."""
    for axis, side in enumerate(sides):
        old = values.shape[axis]
        if side >= old:
            values = values.repeat(side // old, axis)
        else:
            starts = np.arange(side) * old // side
            shape = [-1 if each == axis else 1 for each in range(3)]
            values = np.add.reduceat(values, starts, axis) / np.diff(starts, append=old).reshape(shape)
    return values


def png(pixels: Array) -> bytes:
    """Bytes of (height, width) or (height, width, 3) as a PNG file (ISO/IEC 15948)."""
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height, -1)
    rows = np.zeros((height, 1 + flat.shape[1]), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = flat
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
