"""A folder of images as a split: one sample a file, the folder's name as its label.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_overfit.core.errors import CaseError
from pytest_overfit.data.picking import Facts
from pytest_overfit.data.splits import Split

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def image_folder(name: str, folder: Path, facts: Facts) -> Split:
    """Every image below the folder, as decoded pixels; without Pillow as bytes of files, which is said."""
    files = sorted(each for each in folder.rglob("*") if each.suffix.lower() in _SUFFIXES and each.is_file())
    if not files:
        raise CaseError(f"{name}={str(folder)!r} has no image files ({', '.join(_SUFFIXES)})")
    reader, how = _reader()

    def fetch(places: Sequence[int]) -> list[Any]:
        return [(reader(files[place]), _label(files[place], folder)) for place in places]

    split = Split(name, f"folder of images, {how}", facts, len(files), fetch=fetch)
    if how == "bytes":
        split.notes.append(f"{name}: files are compared byte by byte, because Pillow is not installed")
    return split


def _label(file: Path, folder: Path) -> str | None:
    parts = file.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else None


def _reader() -> tuple[Any, str]:
    try:
        from PIL import Image  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return Path.read_bytes, "bytes"

    def pixels(file: Path) -> Any:
        import numpy as np

        with Image.open(file) as image:
            return np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK", "YCbCr") else image)

    return pixels, "pixels"
