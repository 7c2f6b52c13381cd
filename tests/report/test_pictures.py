"""Pictures in reports: pairs of images that are copies, and curves, from plain values to HTML."""

from __future__ import annotations

import base64
import html
import json
import re
import struct
import subprocess
import sys
import zlib
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pytest_overfit import find_duplicates
from pytest_overfit.duplicates.find import Duplicates
from pytest_overfit.duplicates.reading.fields import Facts
from pytest_overfit.duplicates.reading.split import SampleChunk, Samples
from pytest_overfit.duplicates.thumbnails import MOST, SIDE, as_plane, pictures_of, png, side_by_side
from pytest_overfit.report import curves
from pytest_overfit.report.curves import curves_svg
from pytest_overfit.report.pictures import pictures_html

HOLE = [230, 0, 120]


def read_png(data: bytes) -> np.ndarray:
    """The pixels of a PNG file without filters; a wrong signature, length or checksum is an error."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    parts, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        parts[kind], at = body, at + 12 + size
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape((height, width, 3) if colour == 2 else (height, width))


def shown(picture: dict[str, Any]) -> list[np.ndarray]:
    """The images of a picture, of the size that is said."""
    found = [read_png(base64.b64decode(each["png"])) for each in picture["images"]]
    assert [(each["height"], each["width"]) for each in picture["images"]] == [each.shape[:2] for each in found]
    return found


def pair(one: Any, other: Any) -> list[np.ndarray]:
    """Two samples side by side, as a report has them."""
    planes = as_plane(np.asarray(one)), as_plane(np.asarray(other))
    assert planes[0] is not None
    assert planes[1] is not None
    return list(side_by_side(planes[0], planes[1]))


def planted(images: np.ndarray, count: int = 1) -> Duplicates:
    """The last rows of test are the first rows of train."""
    half = len(images) // 2
    test = images[half:].copy()
    test[len(test) - count :] = images[:count]
    return find_duplicates(train=images[:half], test=test, near=False)


def noise(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


# ------------------------------------------------------------------------------------------------------------- reports

CONFTEST = """
from pytest_overfit.duplicates.judgement import SplitDuplicatesLimits, judge_duplicates
from pytest_overfit.duplicates.request import Request
from pytest_overfit.duplicates.search import measure_duplicates


class Copies:
    name = "copies"
    limits = SplitDuplicatesLimits

    def measure(self, bench, limits):
        return measure_duplicates(Request(given={"train": bench.case.train, "test": bench.case.test}, near=False))

    def judge(self, measured, limits):
        return judge_duplicates(measured, limits)


def pytest_overfit_probes():
    return [Copies()]

"""
TESTS = """
from sklearn.datasets import load_digits

digits = load_digits()
x, y = digits.images, digits.target

def case(name, leaked):
    test, labels = x[1000:].copy(), y[1000:].copy()
    if leaked:
        test[[17, 30]], labels[[17, 30]] = x[[203, 5]], y[[203, 5]]
    return Case(name=name, model=object, train=(x[:1000], y[:1000]), test=(test, labels))

@pytest.mark.overfit("copies")
def test_leaked():
    return case("leaked", True)

@pytest.mark.overfit("copies")
def test_clean():
    return case("clean", False)

@pytest.mark.overfit("copies", max_rate=0.5)
def test_allowed():
    return case("allowed", True)
"""


@pytest.fixture
def gate(project: Any) -> Any:
    project.pytester.makeconftest(CONFTEST)
    project.write(TESTS)
    return project


def run(gate: Any, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:randomly", *arguments]
    done = subprocess.run(command, cwd=gate.path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [["--self-contained-html"], ["-n", "2"]], ids=["one process", "workers"])
def test_pairs_are_in_the_page_and_in_the_json_and_nowhere_else(gate: Any, options: list[str]) -> None:
    pytest.importorskip("pytest_html")
    if "-n" in options:
        pytest.importorskip("xdist")
    printed = run(gate, "--html=out.html", "--overfit-json=out.json", "--junitxml=out.xml", "-rA", *options)
    page = (gate.path / "out.html").read_text(encoding="utf-8")
    (blob,) = re.findall(r'data-jsonblob="([^"]*)"', page)
    tests = {name.split("::")[1]: each for name, each in json.loads(html.unescape(blob))["tests"].items()}
    document = json.loads((gate.path / "out.json").read_text(encoding="utf-8"))
    forms = {each["case"]: each["data"]["pictures"] for each in document["verdicts"]}
    for name in ("leaked", "allowed"):
        (extra,) = tests[f"test_{name}[copies]"][0]["extras"]
        captions = re.findall("<figcaption>(.*?)</figcaption>", extra["content"])
        drawn = re.findall('src="data:image/png;base64,([^"]*)"', extra["content"])
        assert [html.unescape(each) for each in captions] == [each["caption"] for each in forms[name]]
        assert drawn == [each["png"] for picture in forms[name] for each in picture["images"]]
        assert len(captions) == 2
        assert len(drawn) == 4
    assert "test[17] = train[203], labels 9 and 9, exact" in [each["caption"] for each in forms["leaked"]]
    for one, other in (shown(each) for each in forms["leaked"]):
        assert (one == other).all()
    assert forms["clean"] == []
    assert tests["test_clean[copies]"][0]["extras"] == []
    for text in (printed, (gate.path / "out.xml").read_text(encoding="utf-8")):
        assert "test[17] = train[203]" in text
        assert "png" not in text
        assert forms["leaked"][0]["images"][0]["png"][:40] not in text


CURVES = """
from pytest_overfit.core.verdict import Judgement
from pytest_overfit.duplicates.judgement import SplitDuplicatesLimits

class Curves:
    name = "curves"
    limits = SplitDuplicatesLimits

    def measure(self, bench, limits):
        series = [{"name": "loss", "y": [2.0, 1.0, float("nan"), 0.5]}]
        return {"pictures": [{"kind": "curves", "series": series, "caption": "a < b"}, {"kind": "film"}]}

    def judge(self, measured, limits):
        return Judgement(outcome="failed", summary="no", findings=())

def pytest_overfit_probes():
    return [Curves()]

def pytest_runtest_logreport(report):
    if report.when == "call":
        print("extras:", len(getattr(report, "extras", [])))
"""


def draws_curves(project: Any, *options: str) -> str:
    project.pytester.makeconftest(CURVES)
    project.write("@pytest.mark.overfit('curves')\ndef test_it():\n    return good()\n")
    result = project.again("-s", *options)
    result.assert_outcomes(failed=1)
    return str(result.stdout)


def test_curves_of_any_probe_are_in_the_page(project: Any) -> None:
    pytest.importorskip("pytest_html")
    assert "extras: 1" in draws_curves(project, "--html=out.html")
    page = html.unescape((project.path / "out.html").read_text(encoding="utf-8")).replace('\\"', '"')
    (drawn,) = re.findall('src="data:image/svg\\+xml;base64,([^"]*)"', page)
    assert ElementTree.fromstring(base64.b64decode(drawn)).tag.endswith("svg")
    assert "<figcaption>a &lt; b</figcaption>" in page
    assert html.escape("(a picture that cannot be drawn: KeyError: 'film')") in page


@pytest.mark.parametrize("options", [[], ["-p", "no:html"]], ids=["no page", "no pytest-html"])
def test_nothing_is_attached_where_no_page_is_written(project: Any, options: list[str]) -> None:
    assert "extras: 0" in draws_curves(project, *options)


# ----------------------------------------------------------------------------------------------- which samples have one


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((28, 28), (84, 84)),
        ((28, 28, 1), (84, 84)),
        ((1, 28, 28), (84, 84)),
        ((20, 30, 3), (60, 90, 3)),
        ((3, 20, 30), (60, 90, 3)),
        ((20, 30, 4), (60, 90, 3)),
        ((20, 30, 2), (60, 90)),
        ((4, 4), (96, 96)),
        ((64, 40), (64, 40)),
        ((200, 100), (96, 48)),
        ((4, 4000), (1, 96)),
        ((9, 20, 30, 3), (60, 90, 3)),
        ((9, 3, 20, 30), (60, 90, 3)),
        ((3, 9, 20, 30), (60, 90, 3)),
        ((1, 9, 20, 30), (60, 90)),
    ],
)
def test_images_of_any_layout(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    (picture,) = planted(noise(12, *shape)).measured["pictures"]
    one, other = shown(picture)
    assert one.shape == size
    assert (one == other).all()
    assert picture["caption"] == "test[5] = train[0], exact"
    assert [each["name"] for each in picture["images"]] == ["test[5]", "train[0]"]


@pytest.mark.parametrize("shape", [(), (784,), (3, 50), (50, 3), (50, 2), (20, 12, 20), (2, 2, 2, 2), (5, 4, 4, 4, 4)])
def test_other_rows_have_none(shape: tuple[int, ...]) -> None:
    found = planted(noise(12, *shape, dtype=np.float64) if shape else np.arange(12.0))
    assert found.outcome == "failed"
    assert found.measured["pictures"] == []


def test_texts_have_none() -> None:
    found = find_duplicates(train=["a", "b", "c"], test=["c", "d"])
    assert found.outcome == "failed"
    assert found.measured["pictures"] == []


def test_the_part_that_is_an_image_is_shown() -> None:
    split = {"age": np.arange(6.0), "scan": noise(6, 8, 8), "text": list("abcdef")}
    (picture, *_) = find_duplicates(train=split, test=split).measured["pictures"]
    assert shown(picture)[0].shape == (96, 96)


def test_near_copies_say_that_they_are() -> None:
    random = np.random.default_rng(0)
    images = random.normal(size=(800, 12, 12))
    images[700] = images[3] + random.normal(0, 0.01, (12, 12))
    found = find_duplicates(train=images[:600], test=images[600:])
    captions = [each["caption"] for each in found.measured["pictures"]]
    assert [re.sub(r"p = \S+$", "p", each) for each in captions] == ["test[100] ~ train[3], near, p"]


class Gone(list[Any]):
    """A column in memory of which one row is not."""

    def __getitem__(self, place: Any) -> Any:
        if place == 1:
            raise OSError("the disk is gone")
        return super().__getitem__(place)


@pytest.mark.parametrize("what", ["raises", "nothing", "in memory"])
def test_a_sample_that_cannot_be_read_again_has_none(what: str) -> None:
    images = Gone(noise(3, 8, 8))

    def fetch(places: Any) -> Any:
        return [] if what == "nothing" and 1 in places else [images[place] for place in places]

    split = Samples("test", "dataset", Facts(None, None, None, None, None), 3, fetch=fetch)
    if what == "in memory":
        split.memory = SampleChunk(np.arange(3), {"": images})
    pairs = [
        {"kind": "exact", "split_a": "test", "i": row, "split_b": "train", "j": row, "label_a": None, "label_b": None,
         "p": None} for row in range(3)
    ]  # fmt: skip
    found = pictures_of({"train": split, "test": split}, pairs)
    assert [each["caption"] for each in found] == ["test[0] = train[0], exact", "test[2] = train[2], exact"]


def test_a_stream_has_none() -> None:
    images = noise(30, 8, 8)
    found = find_duplicates(train=lambda: (each for each in images[:20]), test=lambda: (each for each in images[15:]))
    assert found.outcome == "failed"
    assert found.measured["pictures"] == []


def test_their_size_is_bounded() -> None:
    labels = ["x" * 1000] * 80
    images = noise(80, 150, 150, 3)
    found = find_duplicates(train=(images[:60], labels[:60]), test=(images[20:], labels[20:]), near=False)
    pictures = found.measured["pictures"]
    assert len(found.pairs) == 40
    assert len(pictures) == MOST
    assert len(json.dumps(pictures)) < 400_000  # noise is the worst there is
    assert all(len(each["caption"]) < 150 for each in pictures)


# -------------------------------------------------------------------------------------------------------------- pixels


def test_each_pixel_is_enlarged_by_a_whole_factor() -> None:
    image = noise(8, 8)
    image[0, 0], image[0, 1] = 0, 255
    drawn, _ = pair(image, image)
    assert (drawn == np.kron(image, np.ones((12, 12), np.uint8))).all()


def test_a_huge_image_is_averaged() -> None:
    image = np.zeros((3000, 2000))
    image[:, 1000:] = 1
    drawn, _ = pair(image, image)
    assert drawn.shape == (96, 64)
    assert (drawn[:, :32] == 0).all()
    assert (drawn[:, 32:] == 255).all()
    board = np.indices((90, 192)).sum(0) % 2  # averaged to grey: nothing is left out
    drawn, _ = pair(board, board)
    assert (drawn == 128).all()


@pytest.mark.parametrize(
    "values",
    [
        [-7.5, 0.0, 7.5],
        [1e-300, 5.0, 10.0],
        [0.0, 8.0, 16.0],
        [-1.7e308, 0.0, 1.7e308],
        np.array([0, 127.5, 255], np.float16),
        np.array([-(2**62), 0, 2**62]),
    ],
)
def test_any_range_is_stretched(values: Any) -> None:
    image = np.resize(np.asarray(values), (6, 6))
    drawn, _ = pair(image, image)
    assert drawn[0, [0, 16, 32]].tolist() == [0, 128, 255]


def test_booleans() -> None:
    image = np.eye(8, dtype=bool)
    (one, _), *_ = (
        shown(each) for each in planted(np.stack([np.roll(image, k, 0) for k in range(8)])).measured["pictures"]
    )
    assert set(one.ravel().tolist()) == {0, 255}


def test_a_constant_image_is_grey() -> None:
    for value in (0.0, 3.5, 255):
        one, other = pair(np.full((8, 8), value), np.full((8, 8), value))
        assert (one == 128).all()
        assert (other == 128).all()


def test_holes_are_marked() -> None:
    image = np.arange(64.0).reshape(8, 8)
    image[0, 0], image[3, 3], image[5, 6] = np.nan, np.inf, -np.inf
    drawn, _ = pair(image, image)
    assert drawn.shape == (96, 96, 3)
    marked = (drawn == HOLE).all(2)[::12, ::12]
    assert np.argwhere(marked).tolist() == [[0, 0], [3, 3], [5, 6]]
    assert drawn[95, 95].tolist() == [255, 255, 255]
    everything, _ = pair(np.full((8, 8), np.nan), np.full((8, 8), np.nan))
    assert (everything == HOLE).all()


def test_one_hole_in_a_large_image_is_not_averaged_away() -> None:
    image = np.random.default_rng(0).random((192, 192, 3))
    image[90, 90, 1] = np.nan
    drawn, _ = pair(image, image)
    assert (drawn == HOLE).all(2).sum() == 1


def test_a_difference_in_brightness_shows_and_one_in_type_does_not() -> None:
    image = noise(8, 8).astype(np.uint8) // 2
    image[0, 0] = 0
    dark, bright = pair(image, image + 100)
    assert bright.astype(int).mean() > dark.astype(int).mean() + 50
    one, other = pair(image, image / 255)
    assert abs(one.astype(int) - other).max() <= 1


@given(
    st.sampled_from([np.bool_, np.uint8, np.int64, np.float16, np.float32, np.float64]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=1, max_dims=4, max_side=9))
    ),
    st.integers(1, 40),
)
@settings(deadline=None, max_examples=150)
def test_any_array_is_drawn_or_is_no_image(sample: np.ndarray, times: int) -> None:
    sample = sample.repeat(times, 0)
    before = sample.tobytes()
    plane = as_plane(sample)
    if plane is None:
        return
    one, other = side_by_side(plane, plane)
    assert one.dtype == np.uint8
    assert (one == other).all()
    assert min(one.shape[:2]) >= 1
    assert SIDE // 2 < max(one.shape[:2]) <= SIDE
    assert (read_png(png(one)) == one).all()
    assert sample.tobytes() == before


@pytest.mark.parametrize("shape", [(5, 7), (7, 5, 3)])
def test_a_png_is_what_other_programs_read(shape: tuple[int, ...]) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    image = noise(*shape)
    read = tensorflow.io.decode_png(png(image)).numpy()
    assert (read == image.reshape(*image.shape[:2], -1)).all()


# ----------------------------------------------------------------------------------------------------------- notebooks


def test_a_notebook_shows_text_and_pairs() -> None:
    images = noise(40, 8, 8)
    labels = ["<script>alert(1)</script>"] * 40
    found = find_duplicates(train=(images[:30], labels[:30]), test=(images[25:], labels[25:]))
    page = found._repr_html_()
    assert html.escape(str(found)) in page
    assert page.count("<img ") == 2 * MOST
    assert "labels &lt;script&gt;alert(1)&lt;/script&gt; and" in page
    assert "<script" not in page
    assert Duplicates(json.loads(found.to_json()))._repr_html_() == page
    closed = re.sub("(<img [^>]*)>", r"\1/>", page)
    ElementTree.fromstring(f"<div>{closed}</div>")  # every other element is closed


def test_a_notebook_of_clean_splits_has_no_picture() -> None:
    images = noise(40, 8, 8)
    page = find_duplicates(train=images[:30], test=images[30:])._repr_html_()
    assert page.startswith("<pre>passed: ")
    assert "<img" not in page


@pytest.mark.parametrize(
    "picture",
    [
        {"kind": "film", "caption": "<b>"},
        {"caption": "<b>"},
        {"kind": "images", "caption": "<b>"},
        {"kind": "images", "images": [{"png": "", "width": "<b>", "height": 1, "name": ""}], "caption": "<b>"},
        {"kind": "curves", "series": [{"name": "a", "y": [1, 2], "x": [1]}], "caption": "<b>"},
        {"kind": ["unhashable"], "caption": "<b>"},
    ],
)
def test_a_picture_that_cannot_be_drawn_says_so_and_the_others_are(picture: dict[str, Any]) -> None:
    good = {"kind": "curves", "series": [{"name": "a", "y": [1, 2]}], "caption": "good"}
    page = pictures_html([picture, good])
    assert "(a picture that cannot be drawn: " in page
    assert "<figcaption>&lt;b&gt;</figcaption>" in page
    assert "<b>" not in page
    assert page.count("<img") == 1


def test_nothing_given_gets_out_of_its_place() -> None:
    evil = '"><script>alert(1)</script>'
    images = [{"png": evil, "width": 1, "height": 1, "name": evil}]
    curve = {"kind": "curves", "title": evil, "series": [{"name": evil, "y": [1]}], "caption": evil}
    assert "<script" not in pictures_html([{"kind": "images", "images": images, "caption": evil}, curve])


# -------------------------------------------------------------------------------------------------------------- curves

SVG = "{http://www.w3.org/2000/svg}"


def chart(*series: dict[str, Any], title: str = "", x_label: str = "", y_label: str = "") -> ElementTree.Element:
    return ElementTree.fromstring(curves_svg(series, title, x_label, y_label))


def lines(drawn: ElementTree.Element) -> list[list[tuple[float, float]]]:
    """The points of each drawn stretch of a curve."""
    paths = [each.get("d", "") for each in drawn.iter(f"{SVG}path") if each.get("stroke-width") == "1.8"]
    return [[(float(x), float(y)) for x, y in map(str.split, each[1:].split("L"))] for each in paths]


def bands(drawn: ElementTree.Element) -> list[str]:
    return [each.get("d", "") for each in drawn.iter(f"{SVG}path") if each.get("fill-opacity")]


def texts(drawn: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in drawn.iter(f"{SVG}text")]


def test_a_chart_has_curves_bands_ticks_and_a_legend() -> None:
    one = {
        "name": "with dropout",
        "x": [1, 2, 3],
        "y": [0.5, 0.7, 0.9],
        "low": [0.4, 0.6, 0.8],
        "high": [0.6, 0.8, 1.0],
    }
    drawn = chart(one, {"name": "without", "y": [0.5, 0.6]}, title="Score", x_label="epoch", y_label="accuracy")
    assert len(lines(drawn)) == 2
    assert len(bands(drawn)) == 1
    first = lines(drawn)[0]
    assert [x for x, _ in first] == sorted(x for x, _ in first)
    assert [y for _, y in first] == sorted((y for _, y in first), reverse=True)  # up is less
    assert {"with dropout", "without", "Score", "epoch", "accuracy", "0", "3", "0.4", "0.6", "0.8", "1"} <= {
        *texts(drawn)
    }
    epochs = texts(chart({"name": "a", "y": [10, 20, 30]}))
    assert {"0", "1", "2"} <= {*epochs}
    assert "0.5" not in epochs  # where every x is whole there is nothing between


def test_points_stand_where_the_ticks_say() -> None:
    drawn = chart({"name": "a", "y": [0, 1, 4]})
    ((low, _, high),) = lines(drawn)
    ticks = {
        each.text: float(each.get("y", "nan")) - 4
        for each in drawn.iter(f"{SVG}text")
        if each.get("text-anchor") == "end"
    }
    assert low[1] == pytest.approx(ticks["0"], abs=0.11)
    assert high[1] == pytest.approx(ticks["4"], abs=0.11)


def test_what_is_not_finite_is_a_gap() -> None:
    drawn = chart({"name": "a", "y": [1, 2, "nan", 3, float("inf"), 4, 5, None, 6]})
    assert [len(each) for each in lines(drawn)] == [2, 2]
    assert len(list(drawn.iter(f"{SVG}circle"))) == 2  # a point alone can be seen
    assert "nothing finite to draw" in texts(chart({"name": "a", "y": ["nan"]}))
    assert "nothing finite to draw" in texts(chart())


def test_a_spike_is_not_thinned_away() -> None:
    y = [1.0] * 100_000
    y[61_234], y[20_001] = 9.0, -5.0
    text = curves_svg([{"name": "a", "y": y, "low": y, "high": y}])
    assert len(text) < 30_000
    ((*points,),) = lines(ElementTree.fromstring(text))
    heights = sorted(y for _, y in points)
    assert heights[0] < heights[1] - 50
    assert heights[-1] > heights[-2] + 50


def test_colours_stand_out_from_white_and_from_black() -> None:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for colour in (*curves.COLOURS, curves.GREY):  # 3 is what WCAG 2 asks of graphics
        for page in ("#ffffff", "#1e1e1e", "#000000"):
            dark, bright = sorted((light(colour), light(page)))
            assert (bright + 0.05) / (dark + 0.05) >= 3.5, (colour, page)


def test_curves_are_told_apart_by_colour_and_then_by_dashes() -> None:
    drawn = chart(*({"name": str(place), "y": [place, place]} for place in range(12)))
    looks = [
        (each.get("stroke"), each.get("stroke-dasharray"))
        for each in drawn.iter(f"{SVG}path")
        if each.get("stroke-width") == "1.8"
    ]
    assert len(set(looks)) == 12


@pytest.mark.parametrize(
    "values", [[0.0, 5e-324, 1e-323], [1e-300, 1e-300], [1.0, 1.0 + 1e-15], [1.7e308, -1.7e308], [1.79e308] * 2]
)
def test_a_range_that_cannot_be_divided_or_counted(values: list[float]) -> None:
    (points,) = lines(chart({"name": "a", "x": values, "y": values}))
    assert len(points) == len(values)


@given(
    st.lists(st.lists(st.tuples(*[st.floats() | st.integers(-(10**6), 10**6)] * 4), max_size=8), max_size=3),
    st.text(max_size=80),
)
@settings(deadline=None, max_examples=300)
def test_any_numbers_make_a_chart(series: list[list[tuple[float, float, float, float]]], text: str) -> None:
    given_ = [
        dict(zip(("x", "y", "low", "high"), map(list, zip(*each, strict=True)), strict=True)) for each in series if each
    ]
    drawn = chart(*({"name": text, **each} for each in given_), title=text, x_label=text, y_label=text)
    width, height = (float(drawn.get(each, "nan")) for each in ("width", "height"))
    for path in drawn.iter(f"{SVG}path"):
        numbers = re.findall(r"-?[\d.]+|nan|inf", path.get("d", ""))
        assert all(-0.1 <= float(each) <= max(width, height) for each in numbers), path.get("d")
    ticks = [each.text for each in drawn.iter(f"{SVG}text") if each.get("text-anchor") == "end"]
    assert len(set(ticks)) == len(ticks) <= 12
