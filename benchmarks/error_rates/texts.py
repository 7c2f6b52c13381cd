"""Near-copies of real texts, ours and SemHash's.

    python -m benchmarks.error_rates.texts [SHOWN]     # SHOWN: print that many of the pairs that are least alike

The texts are paragraphs of docstrings of Python's own standard library: real English, installed everywhere, and nothing
has to be downloaded. They have near-copies of their own (one function described like another), so that not all that is
found beyond the planted copies is false: `unlike` are the pairs with under 70 % of their words alike, by difflib.
SemHash's own encoder is a download. It is given one of ours, a stand-in: counts of letters and of words, weighted by
TF-IDF, on their 256 main components (scikit-learn). With its own encoder its numbers would be others.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import functools
import os
import random
import re
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402

KINDS: dict[str, Callable[[list[str], str, str], str]] = {
    "the same": lambda words, text, other: text,
    "one letter": lambda words, text, other: text[: len(text) // 2] + "x" + text[len(text) // 2 + 1 :],
    "one word replaced": lambda words, text, other: " ".join([*words[:5], other, *words[6:]]),
    "one word left out": lambda words, text, other: " ".join([*words[:5], *words[6:]]),
    "two words swapped": lambda words, text, other: " ".join([*words[:4], words[5], words[4], *words[6:]]),
    "three words before": lambda words, text, other: "As said above: " + text,
    "capitals": lambda words, text, other: text.upper(),
    "a fifth cut off": lambda words, text, other: " ".join(words[: len(words) - len(words) // 5]),
}
#: planted of each kind
EACH = 60


def paragraphs() -> list[str]:
    """Paragraphs of 12 words or more, each once."""
    found: dict[str, str] = {}
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if not {"site-packages", "test", "tests"} & set(path.parts):
            for text in _docstrings(path):
                for part in (" ".join(each.split()) for each in re.split(r"\n\s*\n", text)):
                    if len(part.split()) >= 12 and len(part) < 1_000 and ">>>" not in part:
                        found[part.lower()] = part
    return list(found.values())


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates and files of other encodings
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield ast.get_docstring(node) or ""


def planted() -> tuple[list[str], list[str], dict[str, range]]:
    """Train, test, and which rows of test are copies of which kind; the others are as they stand."""
    texts = paragraphs()
    random.Random(0).shuffle(texts)
    cut = len(texts) // 4
    test, train = texts[:cut], texts[cut:]
    where = {}
    for number, (name, change) in enumerate(KINDS.items()):
        rows = where[name] = range(EACH * number, EACH * (number + 1))
        for row in rows:
            test[row] = change(train[row].split(), train[row], train[-row - 1].split()[0])
    return train, test, where


class Letters:
    """An encoder for SemHash, fitted to texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline, make_union

        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4), sublinear_tf=True, min_df=2)
        words = TfidfVectorizer(sublinear_tf=True, min_df=2)
        self.model = make_pipeline(make_union(letters, words), TruncatedSVD(256, random_state=0)).fit(texts)

    def encode(self, inputs: Sequence[str] | str, **_: Any) -> Any:
        one = isinstance(inputs, str)
        found = self.model.transform([inputs] if one else list(inputs)).astype(np.float32)
        return found[0] if one else found


@functools.cache
def encoder() -> Letters:
    return Letters(planted()[0])


def ours(train: list[str], test: list[str]) -> dict[int, str]:
    from pytest_overfit import find_duplicates

    touched = find_duplicates(train=train, test=test).measured
    return {each["i"]: train[each["j"]] for each in touched["pairs"] if each["split_a"] == "test"}


def semhash(threshold: float) -> Callable[[list[str], list[str]], dict[int, str]]:
    def found(train: list[str], test: list[str]) -> dict[int, str]:
        from semhash import SemHash

        def records(texts: list[str]) -> list[dict[str, str]]:
            return [{"text": text, "row": str(row)} for row, text in enumerate(texts)]

        index = SemHash.from_records(records(train), columns=["text"], model=encoder())
        done = index.deduplicate(records(test), threshold=threshold)
        sources = {int(each.record["row"]): each.duplicates for each in done.filtered}
        return {row: copies[0][0]["text"] if copies else "" for row, copies in sources.items()}

    return found


TOOLS: dict[str, Callable[[list[str], list[str]], dict[int, str]]] = {
    "find_duplicates": ours,
    **{f"SemHash, encoder ours, threshold {each}": semhash(each) for each in (0.8, 0.9, 0.95)},
}


def alike(one: str, other: str) -> float:
    """The share of words that two texts have in common, in order."""
    return difflib.SequenceMatcher(None, one.lower().split(), other.lower().split(), autojunk=False).ratio()


def near_copies(shown: int = 0) -> None:
    """Print a table: what of each kind is found, what else, how long it takes; and the `shown` most unlike."""
    train, test, where = planted()
    encoder()  # fitted before, as a downloaded one is
    print(f"\n### {len(test):,} paragraphs looked up in {len(train):,}, {EACH} planted of each kind\n")
    print(f"| tool | s | {' | '.join(where)} | others | unlike |\n|---|---|{'---|' * len(where)}---|---|")
    for name, tool in TOOLS.items():
        start = time.perf_counter()
        try:
            found = tool(train, test)
        except ImportError as error:
            print(f"| {name} | not measured: {error} |")
            continue
        seconds = time.perf_counter() - start
        hits = [f"{sum(row in found for row in rows) / EACH:.2f}" for rows in where.values()]
        others = [row for row in found if row >= EACH * len(where)]
        unlike = sum(alike(test[row], found[row]) < 0.7 for row in others)
        print(f"| {name} | {seconds:.2f} | {' | '.join(hits)} | {len(others)} | {unlike} |", flush=True)
        for row in sorted(others, key=lambda row: alike(test[row], found[row]))[:shown]:
            print(f"    {test[row]}\n    {found[row]}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shown", nargs="?", type=int, default=0, help="pairs to print, the least alike first")
    near_copies(parser.parse_args().shown)


if __name__ == "__main__":
    main()
