"""The pages quote what pytest prints: their files are written and run as a reader would."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import keras  # noqa: F401 - what the pages import is loaded once, not in each of pytester's runs
import pytest
import sklearn.datasets  # noqa: F401
import torch  # noqa: F401

sys.path.insert(0, str(Path(__file__).parent))

from quotes import ROOT, missing, outputs, sections


class Reader:
    """A folder in which a page's files are written and run."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester

    def write(self, blocks: Iterable[tuple[str, str]]) -> None:
        """`# name.py` begins a file, `# add to name.py and other.py` goes below those that there are."""
        for language, text in blocks:
            head = text.partition("\n")[0]
            for name in re.findall(r"\w+\.py", head) if language == "python" else ():
                path = self.pytester.path / name
                old = path.read_text() if head.startswith("# add to ") else ""
                path.write_text(old + text)

    def run(self, *arguments: str) -> list[str]:
        options = ("-p", "no:cacheprovider", "-p", "no:randomly")
        return self.pytester.runpytest_inprocess(*options, *arguments).outlines


@pytest.fixture
def reader(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setenv("COLUMNS", "400")
    return Reader(pytester)


def assert_printed(blocks: Iterable[tuple[str, str]], printed: list[str]) -> None:
    quoted = outputs(blocks)
    assert quoted
    wrong = [line for text in quoted for line in missing(text, printed)]
    assert not wrong, "\n".join(["quoted, but not printed:", *wrong, "", "printed:", *printed])


def test_the_first_test_of_the_readme(reader: Reader) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (blocks,) = [part for part in sections("README.md") if outputs(part)]
    ((_, program),) = [block for block in blocks if block[0] == "python"]
    assert program.count("\n") <= 10
    head = "# test_first.py\n"
    reader.write([("python", head + program)])
    passed = re.search(r"passes, and says `(.*?)`", text)
    assert passed
    assert_printed([("", f"ok digits: {passed[1]}")], reader.run("-v"))
    mistaken = program.replace("torch.nn.Linear(64, 10))", "torch.nn.Linear(64, 10), torch.nn.Softmax(dim=1))")
    assert mistaken != program
    reader.write([("python", head + mistaken)])
    assert_printed(blocks, reader.run())


def test_the_tutorials_first_steps(reader: Reader) -> None:
    _, install, learn, mistakes, splits, *_ = sections("docs/tutorial.md")
    reader.write([*install, *learn])
    assert_printed(learn, reader.run("-v"))
    reader.write(mistakes)
    assert_printed(mistakes, reader.run("-k", "softmax"))
    reader.write(splits)
    printed = reader.run("-s", "test_data.py")
    assert_printed(splits, [re.sub(r"^test_data\.py \.+", "", line) for line in printed])  # without pytest's own dots


@pytest.mark.slow
def test_the_tutorials_last_steps(reader: Reader) -> None:
    _, install, learn, _, splits, before, known, numbers, gate, _ = sections("docs/tutorial.md")
    reader.write([*install, *learn, *before])
    assert_printed(before, reader.run("-v", "-k", "before_training"))
    reader.write(numbers)
    assert_printed(numbers, reader.run("-v", "-k", "numbers"))
    reader.write([*splits, *known])
    assert_printed(gate, reader.run())


@pytest.mark.slow
def test_what_a_red_pull_request_shows(reader: Reader) -> None:
    """`examples/start/test_torch.py` without what it declares as known failures."""
    folder = reader.pytester.path / "examples" / "start"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "start" / "test_torch.py", folder)
    chosen = "cnn_with_softmax-overfit_batch or cnn_on_a_leak-split_duplicates"
    printed = reader.run("--runxfail", "--rootdir", str(reader.pytester.path), "examples/start", "-k", chosen)
    (failure, _), (copies,) = _quoted("docs/ci.md"), _quoted("docs/duplicates.md")
    without_mark = [re.sub(r"^E +(pytest_overfit\.ProbeFailed: )?", "", line) for line in printed]
    assert_printed([("", failure)], printed)
    assert_printed([("", copies)], without_mark)


def _quoted(page: str) -> list[str]:
    return [text for blocks in sections(page) for text in outputs(blocks)]


@pytest.mark.parametrize(
    ("quoted", "printed", "same"),
    [
        ("ok  mlp  memorised 32 rows in 43 steps", "ok    mlp   memorised 32 rows in 44 steps", True),
        ("ok  mlp  memorised 32 rows in 43 steps", "ok    mlp   memorised 33 rows in 43 steps", False),
        ("loss ratio 0.026, accuracy 1", "loss ratio 0.031, accuracy 1", True),
        ("loss ratio 0.65", "loss ratio 0.04", False),
        ("the nearest neighbour r...", "the nearest neighbour reaches 0.93", True),
        ("the nearest neighbour r...", "the linear model reaches 0.93", False),
        ("=== overfit ===", "====== wiring ======", False),
        ("=== overfit ===", "====== overfit ======", True),
        ("loss  2.3 █▆▃▂▁▁ 1.5   500 steps, 3.0 s, torch", "loss  2.3 █▆▃▂▁▁▁▁ 1.4   500 steps, 11.2 s, torch", True),
        ("label 0 [b52bd439d84025dd]", "label 0 [b52bd439d84025de]", False),
        ("too near to tell", "too close to call", False),
    ],
)
def test_what_counts_as_the_same(quoted: str, printed: str, same: bool) -> None:
    assert (missing(quoted, ["before", printed, "after"]) == []) == same
