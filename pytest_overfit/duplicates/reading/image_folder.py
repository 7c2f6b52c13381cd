"""A folder of images as a split: one sample a file, the folder's name as its label."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_overfit.core.errors import CaseError
from pytest_overfit.duplicates.reading.fields import Facts
from pytest_overfit.duplicates.reading.sources import Shifted, Source
from pytest_overfit.duplicates.reading.split import Samples

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


@dataclasses.dataclass(frozen=True)
class Files(Source):
    """Image files, each with its folder's name as label."""

    files: Sequence[Path]
    folder: Path
    #: decoded to pixels, else compared as they are
    decoded: bool

    def __call__(self, places: Sequence[int]) -> Sequence[Any]:
        read = _pixels if self.decoded else Path.read_bytes
        return [(read(self.files[place]), self._label(self.files[place])) for place in places]

    def part(self, start: int, stop: int) -> Source | None:
        return Shifted(dataclasses.replace(self, files=self.files[start:stop]), start)

    def _label(self, file: Path) -> str | None:
        parts = file.relative_to(self.folder).parts
        return parts[0] if len(parts) > 1 else None


def image_folder(name: str, folder: Path, facts: Facts) -> Samples:
    """Every image below the folder, as decoded pixels; without Pillow as bytes of files, with a note."""
    files = sorted(each for each in folder.rglob("*") if each.suffix.lower() in _SUFFIXES and each.is_file())
    if not files:
        raise CaseError(f"{name}={str(folder)!r} has no image files ({', '.join(_SUFFIXES)})")
    decoded = importlib.util.find_spec("PIL") is not None
    how = f"folder of images, {'pixels' if decoded else 'bytes'}"
    split = Samples(name, how, facts, len(files), fetch=Files(files, folder, decoded))
    if not decoded:
        split.notes.append(f"{name}: files are compared byte by byte, because Pillow is not installed")
    return split


def _pixels(file: Path) -> Any:
    from PIL import Image  # type: ignore[import-not-found, unused-ignore]

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK", "YCbCr") else image)
