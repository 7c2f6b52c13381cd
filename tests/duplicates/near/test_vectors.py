"""Near-copies of numeric rows: planted ones are found, clean data give none, whatever the input."""

from __future__ import annotations

import functools
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pytest_overfit.duplicates.near import Near, find_near, sides
from pytest_overfit.duplicates.near import p_values as calibration
from pytest_overfit.duplicates.near.neighbours import Index, _nearest_places, _stable_order
from pytest_overfit.duplicates.near.views import _main_components


def rows(count: int, width: int = 12, seed: int = 0) -> np.ndarray:
    """Clean rows: correlated normal columns of different sizes."""
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(width, width))
    return random.normal(size=(count, width)) @ mix * 10.0 ** np.arange(width).clip(0, 5)


def blobs(count: int, side: int = 20, seed: int = 0, channels: int = 0) -> np.ndarray:
    """Clean pictures: a few soft spots each, away from the border."""
    random = np.random.default_rng(seed)
    vertical, horizontal = np.mgrid[:side, :side]
    pictures = np.zeros((count, side, side))
    for _ in range(5):
        top, left = random.uniform(5, side - 6, (2, count, 1, 1))
        wide, strong = random.uniform(0.8, 1.6, (count, 1, 1)), random.uniform(0.3, 1, (count, 1, 1))
        pictures += strong * np.exp(-((vertical - top) ** 2 + (horizontal - left) ** 2) / (2 * wide**2))
    pictures[pictures < 0.01] = 0
    return np.repeat(pictures[..., None], channels, 3) if channels else pictures


def found(near: Near) -> set[tuple[int, int]]:
    return {(pair.i, pair.j) for pair in near.pairs}


PLANT = tuple((i, 3 * i) for i in range(0, 40, 2))


def planted(change, clean, large):
    small = clean.copy()
    for i, j in PLANT:
        small[i] = change(large[j])
    return small


RANDOM = np.random.default_rng(5)
IMAGE_COPIES = {
    "noise": lambda image: image + RANDOM.normal(0, 0.01, image.shape),
    "brighter": lambda image: image + 0.2,
    "contrast": lambda image: image * 0.5,
    "shifted": lambda image: np.roll(image, (2, -1), (0, 1)),
    "flipped": lambda image: image[:, ::-1],
    "coarse": lambda image: np.round(image * 31) / 31,
}


@pytest.mark.parametrize("change", IMAGE_COPIES.values(), ids=IMAGE_COPIES)
def test_changed_images_are_found_with_their_sources(change) -> None:
    large = blobs(600, seed=1)
    near = find_near(planted(change, blobs(60, seed=2), large), large, kind="image")
    assert near.testable
    assert found(near) == set(PLANT)


@pytest.mark.parametrize("layout", ["last", "first", "uint8"])
def test_images_of_any_layout(layout: str) -> None:
    large = blobs(300, seed=1, channels=3)
    small = planted(lambda image: image[:, ::-1], blobs(60, seed=2, channels=3), large)
    if layout == "first":
        small, large = small.transpose(0, 3, 1, 2), large.transpose(0, 3, 1, 2)
    if layout == "uint8":
        small, large = ((each / 4 * 255).clip(0, 255).astype(np.uint8) for each in (small, large))
    assert found(find_near(small, large, kind="image")) == set(PLANT)


def test_large_images_are_averaged_down() -> None:
    large = np.repeat(np.repeat(blobs(200, seed=1), 5, 1), 5, 2)[:, :97, :]
    small = np.repeat(np.repeat(blobs(60, seed=2), 5, 1), 5, 2)[:, :97, :]
    noisy = planted(lambda image: image + RANDOM.normal(0, 0.05, image.shape), small, large)
    assert found(find_near(noisy, large, kind="image")) == set(PLANT)
    assert not find_near(small, large, kind="image").pairs


def test_rows_with_small_errors_are_found() -> None:
    large = rows(400, seed=1)
    spread = large.std(0)
    near = find_near(
        planted(lambda row: row + RANDOM.normal(0, 1e-3, row.shape) * spread, rows(80, seed=2), large), large
    )
    assert found(near) == set(PLANT)
    assert near.expected == 0
    assert all(pair.p < 1e-4 and pair.likeness < 0.1 for pair in near.pairs)


def test_series_of_other_scale_and_with_noise_are_found() -> None:
    random = np.random.default_rng(0)
    large, clean = (np.cumsum(random.normal(size=(count, 60)), 1) for count in (500, 60))
    near = find_near(planted(lambda row: 3 * row + 7 + RANDOM.normal(0, 1e-2, 60), clean, large), large, kind="series")
    assert found(near) == set(PLANT)
    assert not find_near(clean, large, kind="series").pairs


@pytest.mark.parametrize("kind", ["image", "vector"])
def test_clean_data_have_none(kind: str) -> None:
    make = blobs if kind == "image" else rows
    near = find_near(make(200, seed=1), make(800, seed=2), kind=kind)
    assert near.testable
    assert near.pairs == ()


def test_known_copies_are_left_out() -> None:
    large, small = rows(400, seed=1), rows(80, seed=2)
    small[[3, 4]] = large[[30, 40]]
    already = np.zeros(80, bool)
    already[3] = True
    assert found(find_near(small, large, already=already)) == {(4, 40)}
    assert find_near(small, large, already=np.ones(80, bool)).why == "no rows to compare"


@pytest.mark.parametrize("copies", [1, 5, 25])
def test_sources_that_the_large_split_repeats_are_found(copies: int) -> None:
    large = rows(600, seed=1)
    spread = large.std(0)
    again = np.concatenate([large[:5]] * copies)
    again = again + RANDOM.normal(0, 1e-4, again.shape) * spread
    small = rows(60, seed=2)
    small[:5] = large[:5] + RANDOM.normal(0, 1e-4, (5, 12)) * spread
    near = find_near(small, np.concatenate([large, again]))
    assert {pair.i for pair in near.pairs} == set(range(5))
    assert all(pair.j == pair.i or (pair.j >= 600 and (pair.j - 600) % 5 == pair.i) for pair in near.pairs)


def test_exact_repetition_in_the_large_split_hides_nothing() -> None:
    large = rows(300, seed=1)
    near = find_near(large[:5] * (1 + 1e-9), np.concatenate([large] * 60))
    assert {pair.i for pair in near.pairs} == set(range(5))
    assert near.info["distinct"] == 300


def test_data_that_repeat_by_nature_expect_as_many_as_are_found() -> None:
    """A quarter of all rows has a near twin, and the cut is random."""
    base = rows(1500, seed=1)
    twins = base[:300] + np.random.default_rng(3).normal(size=(300, 12)) * base.std(0) * 1e-5
    everything = np.random.default_rng(4).permutation(np.concatenate([base, twins]))
    near = find_near(everything[:360], everything[360:])
    assert len(near.pairs) > 60
    assert 0.7 < near.expected / len(near.pairs) < 1.4


@pytest.mark.parametrize("nothing", [np.nan, 0.0, -1.0])
@pytest.mark.parametrize("count", [20, 41, 90])
def test_rows_with_nothing_measured_in_most_columns_are_no_copies(count: int, nothing: float) -> None:
    """They are alike in what nobody measured, and lie as densely in the other three columns as three columns let them.

    Fewer of them than have a common value in the whole, and enough to be all of a row's nearest.
    """
    for seed in range(5):
        random = np.random.default_rng(seed)
        data = random.normal(size=(1_000, 10))
        data[:count, 3:] = nothing
        random.shuffle(data)
        small, large = data[:200], data[200:]
        assert find_near(small, large, seed=seed).pairs == ()
        small[0] = large[0] + 1e-4 * random.normal(size=10)
        assert {pair.i for pair in find_near(small, large, seed=seed).pairs} == {0}


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_some_rows_equal_in_all_but_a_column_are_copies(copies: int) -> None:
    """A row, its number changed, once in the small split and a few times in the large one: that is no kind of rows."""
    large, small = rows(600, seed=1), rows(60, seed=2)
    again = np.concatenate([large[:5]] * (copies - 1) + [large[:0]])
    again[:, 4] += RANDOM.normal(0, 0.01, len(again)) * large[:, 4].std()
    small[:5] = large[:5]
    small[:5, 4] += 0.01 * large[:, 4].std()
    assert {pair.i for pair in find_near(small, np.concatenate([large, again])).pairs} == set(range(5))


def sparse(count: int, width: int, seed: int, unit: float = 1.0) -> np.ndarray:
    """Numbers of which five in six are zero, driven by a few causes; columns of many units unless `unit` is 1."""
    random = np.random.default_rng(seed)
    causes = random.normal(size=(count, 12)) @ np.random.default_rng(99).normal(size=(12, width))
    data = np.maximum(causes + random.normal(size=causes.shape) - 4, 0)
    return data * unit ** (np.arange(width) % 4)


@pytest.mark.parametrize(("width", "unit"), [(60, 1.0), (60, 10.0), (300, 1.0), (300, 10.0)])
def test_noise_on_tables_with_many_zeros_is_found(width: int, unit: float) -> None:
    """By rank the least number above zero is far from zero, and noise is torn apart: none of these was found."""
    large, clean = sparse(1_500, width, 1, unit), sparse(80, width, 2, unit)
    sizes = large.max(0)
    noisy = planted(lambda row: row + RANDOM.normal(0, 5e-3, row.shape) * sizes, clean, large)
    assert len(found(find_near(noisy, large)) & set(PLANT)) >= 15
    assert found(find_near(noisy, large)) <= set(PLANT)
    assert not find_near(clean, large).pairs


def test_counts_in_proportion_are_no_copies() -> None:
    random = np.random.default_rng(0)
    large, small = random.poisson(0.7, (900, 60)), random.poisson(0.7, (60, 60))
    small[:10] = 3 * large[:10]
    assert not find_near(small, large).pairs


@pytest.mark.parametrize("make", [rows, lambda count, seed: sparse(count, 200, seed)], ids=["dense", "sparse"])
def test_rows_that_are_not_looked_up_in_full_would_not_have_been_found(make, monkeypatch) -> None:
    monkeypatch.setattr(sides, "Index", functools.partial(Index, exact_rows=100))
    large, small = make(2_000, seed=1), make(200, seed=2)
    small[:40] = large[:40] + large.std(0) * RANDOM.normal(size=large[:40].shape) * np.logspace(-4, 0, 40)[:, None]
    quick = find_near(small, large)
    monkeypatch.setattr(Index, "reach", lambda self, queries, ks: None)
    assert found(quick) == found(find_near(small, large))
    assert 10 < len(quick.pairs) < 40


ABSTAINS = {
    "few rows": (rows(20), rows(60)),
    "one row": (rows(1), rows(1)),
    "width one": (rows(50, 1), rows(400, 1)),
    "two columns": (rows(50, 2), rows(400, 2)),
    "all equal": (np.ones((50, 6)), np.ones((400, 6))),
    "constant columns": (np.tile([1.0, 2.0], (50, 1)), np.tile([1.0, 2.0], (400, 1))),
    "no rows": (rows(0), rows(400)),
    "no large rows": (rows(10), rows(0)),
    "no columns": (np.ones((10, 0)), np.ones((300, 0))),
    "bool": (np.random.default_rng(0).random((50, 5)) < 0.5, np.random.default_rng(1).random((400, 5)) < 0.5),
    "wide bool": (np.random.default_rng(0).random((50, 12)) < 0.5, np.random.default_rng(1).random((400, 12)) < 0.5),
    "few values": (np.random.default_rng(0).integers(0, 3, (50, 8)), np.random.default_rng(1).integers(0, 3, (900, 8))),
    "all NaN": (np.full((50, 6), np.nan), np.full((400, 6), np.nan)),
}


@pytest.mark.parametrize(("small", "large"), ABSTAINS.values(), ids=ABSTAINS)
def test_it_abstains_where_nothing_can_be_told(small, large) -> None:
    near = find_near(small, large)
    assert not near.testable
    assert near.why
    assert near.pairs == ()


@pytest.mark.parametrize(
    "images", [np.zeros((300, 8, 8)), np.ones((300, 8, 8, 3)), np.full((300, 1, 1), 3), blobs(300)[:, :1]]
)
def test_flat_and_tiny_images_do_no_harm(images) -> None:
    assert find_near(images[:20], images[20:], kind="image", already=np.ones(20, bool)).pairs == ()
    assert not find_near(images[:0], images, kind="image").testable


@pytest.mark.parametrize("bad", ["holes", "huge", "infinite", "constant column", "float16", "int64", "wide", "complex"])
def test_odd_numbers_change_nothing(bad: str) -> None:
    large, small = rows(400, seed=1), rows(80, seed=2)
    small[5] = large[50]
    for each in (large, small):
        if bad == "holes":
            each[np.random.default_rng(7).random(each.shape) < 0.02] = np.nan
        if bad == "huge":
            each *= 1e300
            each[1 if each is large else 0, 3] = np.finfo(float).max
        if bad == "infinite":
            each[3, 2] = np.inf
        if bad == "constant column":
            each[:, 4] = 7
    small[5] = large[50]
    change = {
        "float16": lambda each: (each / 1e5).astype(np.float16),
        "int64": lambda each: (each * 1000).astype(np.int64),
        "wide": lambda each: np.tile(each, 200),
        "complex": lambda each: each + 1j * each[:, ::-1],
    }.get(bad, lambda each: each)
    near = find_near(change(small), change(large))
    assert near.testable, near.why
    assert found(near) == {(5, 50)}


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"rows of one shape, got \(12,\) and \(3,\)"):
        find_near(rows(10), rows(10, 3))
    with pytest.raises(TypeError, match="expected numbers"):
        find_near(np.array([["a"]]), np.array([["b"]]))


FAST = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@FAST
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    large, small = rows(250, seed=seed + 1), rows(40, seed=seed + 2)
    small[:6] = large[:6] * (1 + 1e-7)
    there, here = random.permutation(250), random.permutation(40)
    plain, mixed = find_near(small, large), find_near(small[here], large[there])
    assert {(int(here[i]), int(there[j])) for i, j in found(mixed)} == found(plain)
    assert found(plain) >= {(i, i) for i in range(6)}


@FAST
@given(seed=st.integers(0, 10_000), power=st.integers(-30, 30), kind=st.sampled_from(["vector", "image", "series"]))
def test_scaling_all_data_leaves_p_unchanged(seed: int, power: int, kind: str) -> None:
    make = blobs if kind == "image" else rows
    large, small = make(150, seed=seed + 1), make(30, seed=seed + 2)
    small[:6] = large[:6] + 1e-4 * np.random.default_rng(seed).normal(size=large[:6].shape) * large.std(0)
    plain, scaled = (find_near(small * each, large * each, kind=kind) for each in (1.0, 2.0**power))
    assert found(plain) == found(scaled)
    assert [pair.p for pair in plain.pairs] == pytest.approx([pair.p for pair in scaled.pairs], rel=1e-3)


@pytest.mark.slow
def test_the_rate_of_false_alarms_on_independent_data() -> None:
    """440 runs on fresh data of eleven kinds; at most 0.05 a run at the upper 95 % bound means at most 14 alarms."""
    alarms = runs = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        for name, large in clean_data(random).items():
            cut = len(large) // 5
            near = find_near(large[:cut], large[cut:], kind="vector", seed=seed)
            runs += 1
            alarms += bool(near.pairs)
            assert name
    assert runs == 440
    assert alarms <= 14


def clean_data(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Independent rows of many shapes; none has a copy."""
    count = int(random.integers(300, 1500))
    normal = random.normal(size=(count, 20))
    centres = random.normal(size=(8, 10)) * 5
    return {
        "normal": normal,
        "uniform": random.random((count, 6)),
        "heavy tails": random.standard_t(1.5, (count, 8)),
        "lognormal": np.exp(2 * normal[:, :6]),
        "clusters of different size": centres[random.integers(0, 8, count)]
        + random.normal(size=(count, 10)) * 10.0 ** -random.integers(0, 3, (count, 1)),
        "two dimensions mixed": np.where(random.random((count, 1)) < 0.3, normal[:, :1] * np.arange(1, 21), normal)
        + 0.01 * random.normal(size=(count, 20)),
        "curved": np.stack([np.sin(normal[:, :4].sum(1) * k) for k in range(1, 11)], 1) + 0.1 * normal[:, :10],
        "rounded": np.round(normal[:, :10], 1),
        "counts": random.poisson(20, (count, 15)),
        "mostly zero": np.where(random.random((count, 20)) < 0.7, 0, normal),
        "some measured in part": np.where(
            (np.arange(count)[:, None] % 25 == 0) & (np.arange(10) > 2), np.nan, normal[:, :10]
        ),
    }


def test_the_formula_holds_where_its_assumption_does() -> None:
    """Uniform points on a torus of five dimensions: p is uniform, the dimension is five and the tail has rate one."""
    random = np.random.default_rng(0)
    points = random.random((6_000, 5))
    wrapped = np.concatenate([np.cos(2 * np.pi * points), np.sin(2 * np.pi * points)], 1)
    distances, _ = Index(wrapped).search(wrapped[:3_000], calibration.FARTHEST, np.arange(3_000))
    for k in calibration.NEIGHBOURS:
        assert calibration._dimension(calibration._ratio(distances, k), k) == pytest.approx(5, abs=0.35)
    fit = calibration.fit_null(distances, np.full(3_000, 10.0), 6_000)
    assert 0.75 < fit.rate <= 1
    assert fit.testable


def test_lists_find_what_the_exact_search_finds() -> None:
    large = rows(3_000, seed=1) / rows(3_000, seed=1).std(0)
    queries = large[::30] + 1e-3
    exact, lists = Index(large), Index(large, exact_rows=10)
    assert lists.centres is not None
    (one, first), (other, second) = exact.search(queries, 5), lists.search(queries, 5)
    assert (first[:, 0] == second[:, 0]).all()
    np.testing.assert_allclose(one[:, 0], other[:, 0], rtol=1e-3, atol=1e-6)
    assert (first[:, 4] == second[:, 4]).mean() > 0.5
    _, own = lists.search(large[:50], 1, np.arange(50))
    assert (own[:, 0] != np.arange(50)).all()


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 9)),
        elements=st.sampled_from([-2.0, -0.5, 0.25, 1.0, 3.0]),
    ),
    st.integers(1, 9),
)
def test_equally_near_rows_stay_in_their_order(away: np.ndarray, count: int) -> None:
    order = np.argsort(away, axis=1, kind="stable")
    assert _stable_order(away).tolist() == order.tolist()
    count = min(count, away.shape[1])
    assert _nearest_places(away.copy(), count).tolist() == order[:, :count].tolist()


def test_fewer_rows_than_neighbours_are_padded() -> None:
    distances, found_rows = Index(rows(3)).search(rows(2, seed=3), 5)
    assert np.isinf(distances[:, 3:]).all()
    assert (found_rows[:, 3:] == -1).all()


def test_memory_is_bounded_by_blocks() -> None:
    large = np.random.default_rng(0).integers(0, 255, (12_000, 28, 28), dtype=np.uint8)
    tracemalloc.start()
    near = find_near(large[:500], large[500:], kind="image")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert near.pairs == ()
    assert peak < 120 << 20  # the same rows as float64 are 75 MB; two views are 6 MB each


@pytest.mark.parametrize("count", [3, 60, 135, 384, 385])
def test_main_components_of_few_wide_rows_are_those_of_all_eigenvectors(count: int) -> None:
    """Fewer rows than components keep every distance; what is left of the basis is orthonormal all the same."""
    wide = np.random.default_rng(count).normal(size=(count, 3072)) * np.geomspace(1, 0.01, 3072)
    centred = (wide - wide.mean(0)).astype(np.float32)
    basis = _main_components(centred, 128)
    assert basis.shape == (3072, 128)
    assert np.abs(basis.T @ basis - np.eye(128)).max() < 1e-4
    kept, most = (float((each**2).sum()) for each in (centred @ basis, np.linalg.svd(centred, compute_uv=False)[:128]))
    assert kept >= 0.98 * most  # iteration, of many rows, comes near it
    assert count >= 385 or kept >= 0.9999 * most
