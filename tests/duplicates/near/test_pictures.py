"""Pictures laid over each other, and how evenly two differ: what they add is found, what they must not add is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.duplicates.near import Near, find_near
from pytest_overfit.duplicates.near import p_values as calibration
from pytest_overfit.duplicates.near.overlay import evenness, laid_over

SIDE = 20
PLANTED = 20


def strokes(count: int, seed: int) -> np.ndarray:
    """Clean pictures with few degrees of freedom: one soft line each, up to the border and over it."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    angle, bend = random.uniform(-0.5, 0.5, (2, count, 1, 1))
    at, wide, length = (random.uniform(*ends, (count, 1, 1)) for ends in ((-4, 4), (0.6, 1.2), (7, 11)))
    across = right - at - down * np.tan(angle) - bend * down**2 / 10
    return np.exp(-((across / wide) ** 2)) / (1 + np.exp(2 * (np.abs(down) - length)))


def spots(count: int, seed: int) -> np.ndarray:
    """Clean pictures of six soft spots; those near the border are moved over it by two pixels."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[:SIDE, :SIDE]
    pictures = np.zeros((count, SIDE, SIDE))
    for _ in range(6):
        top, left = random.uniform(1, SIDE - 2, (2, count, 1, 1))
        pictures += random.uniform(0.3, 1, (count, 1, 1)) * np.exp(-((down - top) ** 2 + (right - left) ** 2) / 3)
    return pictures


def moved(picture: np.ndarray, down: int, right: int) -> np.ndarray:
    """What leaves the frame is lost, and nothing comes in."""
    wide = np.pad(picture, 2)
    return wide[2 - down : 2 - down + SIDE, 2 - right : 2 - right + SIDE]


def rows_found(near: Near) -> set[int]:
    assert all(pair.j == 3 * pair.i for pair in near.pairs if pair.i < PLANTED)
    return {pair.i for pair in near.pairs}


def test_pictures_that_lost_what_a_shift_moved_out_are_found() -> None:
    random = np.random.default_rng(0)
    large, small = spots(600, 1), spots(80, 2)
    assert not find_near(small, large, kind="image").pairs
    for i in range(PLANTED):
        picture = large[3 * i] if i % 2 else large[3 * i][:, ::-1]
        small[i] = moved(picture, *random.integers(-2, 3, 2))
    near = find_near(small, large, kind="image")
    assert rows_found(near) == set(range(PLANTED))
    assert "aligned" in {pair.view for pair in near.pairs}


def landscape(side: int, seed: int) -> np.ndarray:
    """A large picture without structure of its own: noise whose amplitudes fall with the frequency."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1
    return np.fft.ifft2(np.fft.fft2(random.normal(size=(side, side))) / frequency**1.5).real


@pytest.mark.parametrize(("side", "least"), [(16, 6), (24, 16)])
def test_tiles_of_one_picture_that_overlap_all_but_two_pixels_are_found(side: int, least: int) -> None:
    """What a shift brings in is new. The inside of a tile holds no more than its share of the contrast, often less."""
    picture, random = landscape(25 * side, 1), np.random.default_rng(0)
    corners = random.permutation([(top, left) for top in range(25) for left in range(25)]) * side
    tiles = np.stack([picture[top : top + side, left : left + side] for top, left in corners])
    large, small = tiles[:545].copy(), tiles[545:].copy()
    assert not find_near(small, large, kind="image").pairs
    for i in range(PLANTED):
        top, left = corners[3 * i] + random.choice([-2, -1, 1, 2], 2)
        top, left = np.clip([top, left], 0, 24 * side)
        small[i] = picture[top : top + side, left : left + side]
    assert len(rows_found(find_near(small, large, kind="image"))) >= least


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_on_simple_pictures_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are so alike that the distance alone does not tell a copy with noise: without evenness none is found."""
    random = np.random.default_rng(seed)
    large, small = strokes(1500, 10 + seed), strokes(80, 20 + seed)
    assert not find_near(small, large, kind="image").pairs
    small[:PLANTED] = large[0 : 3 * PLANTED : 3] + random.normal(0, 0.02, (PLANTED, SIDE, SIDE))
    assert rows_found(find_near(small, large, kind="image")) == set(range(PLANTED))
    monkeypatch.setattr(calibration, "_needed", lambda fitted: np.isfinite(fitted.even[1]))
    assert not find_near(small, large, kind="image").pairs


def test_a_picture_that_differs_evenly_from_all_others_is_no_copy() -> None:
    large, small = strokes(1500, 1), strokes(80, 2)
    small[5] = np.random.default_rng(0).random((SIDE, SIDE))
    small[6] = np.linspace(0, 1, SIDE) * np.ones((SIDE, 1))
    assert not find_near(small, large, kind="image").pairs


def test_pictures_of_one_dot_are_no_copies_of_each_other() -> None:
    """All dots have one spectrum, wherever they are."""
    large, small = spots(600, 1), spots(80, 2)
    small[5], large[50] = 0, 0
    small[5, 3, 4], large[50, 11, 9] = 1, 0.2
    assert not find_near(small, large, kind="image").pairs


def test_where_all_pictures_have_noise_evenness_is_not_used() -> None:
    random = np.random.default_rng(0)
    near, even = random.random((2000, 1)) ** 0.2, random.normal(-1.3, 0.2, 2000)
    distances = np.concatenate([near, np.ones((2000, 9))], 1)
    free = np.full(2000, np.inf)
    assert calibration.fit_null(distances, free, 2000, even).even[1] == np.inf
    assert calibration.fit_null(distances, free, 2000, even - 2).even[1] < np.inf
    assert calibration.fit_null(distances, free, 2000, np.zeros(2000)).even[1] == np.inf


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("channels", [0, 3])
def test_moved_pictures_lie_on_their_source(mirrored: bool, channels: int) -> None:
    pictures = spots(30, 3)
    steps = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    copies = np.stack([moved(pictures[1][:, ::-1] if mirrored else pictures[1], *step) for step in steps])
    beside = np.concatenate([np.stack([pictures[1], pictures[7 + each % 9]]) for each in range(len(steps))])
    if channels:
        copies, beside = (np.repeat(each[..., None], channels, 3) for each in (copies, beside))
    distances = laid_over(copies, beside)
    assert distances.shape == (25, 2)
    assert distances[:, 0] == pytest.approx(0, abs=2e-3)
    assert (distances[:, 1] > 0.2).all()


def test_pictures_with_nothing_inside_are_not_compared_there() -> None:
    """Two pictures whose insides share one faint dot, and whose borders differ."""
    pictures = np.zeros((2, SIDE, SIDE))
    pictures[:, 9, 9] = 0.1
    pictures[0, 0], pictures[1, :, 0] = 1, 1
    assert laid_over(pictures[:1], pictures[1:]) == pytest.approx(2**0.5)
    assert laid_over(np.zeros((1, 8, 8)), np.zeros((3, 8, 8))) == pytest.approx(2**0.5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), size=st.floats(1e-6, 0.3), gain=st.floats(0.1, 10), lift=st.floats(-1, 1))
def test_the_evenness_of_noise_is_that_of_noise(seed: int, size: float, gain: float, lift: float) -> None:
    pictures = spots(4, seed).astype(np.float32).astype(np.float64)
    noisy = pictures + size * np.random.default_rng(seed).normal(size=pictures.shape)
    assert evenness(gain * noisy + lift, pictures) == pytest.approx(calibration.OF_NOISE, abs=0.7)


def test_the_evenness_of_one_spot_and_of_nothing_is_the_least() -> None:
    pictures = spots(3, 1)
    assert evenness(pictures, pictures) == pytest.approx(-np.log(SIDE * SIDE))
    dotted = pictures.copy()
    dotted[:, 4, 5] += 0.5
    assert (evenness(dotted, pictures) < -np.log(20)).all()
