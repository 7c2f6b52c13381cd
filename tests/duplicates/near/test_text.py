"""Near-copies of texts: edited ones are found, other texts are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit.duplicates.near import find_near_text
from pytest_overfit.duplicates.near.text import _folded, _hashes, _jaccard


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of 40 words, each word with its natural frequency."""
    random = np.random.default_rng(99)
    words = ["".join(random.choice(list("abcdefghijklmnop"), random.integers(2, 9))) for _ in range(2_000)]
    random = np.random.default_rng(seed)
    return [" ".join(words[k] for k in random.zipf(1.3, 40) % 2_000) for _ in range(count)]


EDITS: dict[str, Callable[[str], str]] = {
    "a letter": lambda text: text[:50] + "ß" + text[51:],
    "a word dropped": lambda text: " ".join(text.split()[:10] + text.split()[11:]),
    "two words swapped": lambda text: " ".join([*text.split()[:5], *text.split()[6:4:-1], *text.split()[7:]]),
    "something before": lambda text: "Re: " + text,
    "case and white space": lambda text: "\t" + text.upper().replace(" ", "\n "),
    "full-width letters": lambda text: "".join(chr(ord(each) + 0xFEE0) if each != " " else each for each in text),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edited_texts_are_found_with_their_sources(edit: Callable[[str], str]) -> None:
    large, small = texts(800, seed=1), texts(60, seed=2)
    assert not find_near_text(small, large).pairs
    for i in range(0, 40, 2):
        small[i] = edit(large[3 * i])
    near = find_near_text(small, large)
    assert {(pair.i, pair.j) for pair in near.pairs} == {(i, 3 * i) for i in range(0, 40, 2)}
    assert near.expected == 0
    assert all(pair.p < 0.01 and pair.likeness >= 0.8 for pair in near.pairs)


def test_half_alike_is_a_note() -> None:
    large, small = texts(300, seed=1), texts(20, seed=2)
    small[4] = large[8][: len(large[8]) * 3 // 4] + " " + small[4][: len(large[8]) // 6]
    near = find_near_text(small, large)
    assert near.pairs == ()
    assert near.info["notes"] == 1


def test_texts_from_a_template_expect_as_many_as_are_found() -> None:
    rows = [
        f"The train from platform {n} to the city centre will leave today at {n % 24} o'clock as planned."
        for n in range(500)
    ]
    near = find_near_text(rows[:100], rows[100:])
    assert len(near.pairs) > 50
    assert 0.8 < near.expected / len(near.pairs) < 1.25
    assert near.pairs[-1].p > 0.05


def test_known_copies_are_left_out() -> None:
    large = texts(200, seed=1)
    near = find_near_text(large[:3] + texts(5, seed=2), large, already=np.array([True, True, False] + [False] * 5))
    assert [(pair.i, pair.j) for pair in near.pairs] == [(2, 2)]


@pytest.mark.parametrize("small", [[], [""], ["short"], ["\ud800 lone"], [b"bytes"]])
def test_it_abstains_on_texts_too_short_to_be_near(small: list[str]) -> None:
    near = find_near_text(small, texts(50))
    assert not near.testable
    assert "shingles" in near.why


def test_odd_texts_do_no_harm() -> None:
    odd = [
        "a" * 500,
        "\ud800" * 50,
        "🙂" * 60,
        "\0" * 40,
        " ".join("x" * 200),
        b"caf\xc3\xa9 and more of it, much more of it".decode(),
    ]
    near = find_near_text(odd, [*texts(100), *odd])
    assert {pair.i for pair in near.pairs} >= {4, 5}
    assert all(pair.j == 100 + pair.i for pair in near.pairs)
    assert find_near_text(texts(5), []).pairs == ()


@settings(max_examples=50, deadline=None)
@given(one=st.text(min_size=5, max_size=60), other=st.text(min_size=5, max_size=60))
def test_the_similarity_is_jaccards(one: str, other: str) -> None:
    one, other = _folded(one), _folded(other)
    sets = [{text[at : at + 5] for at in range(len(text) - 4)} for text in (one, other)]
    wanted = len(sets[0] & sets[1]) / len(sets[0] | sets[1]) if all(sets) else 0.0
    assert _jaccard(np.unique(_hashes(one)), np.unique(_hashes(other))) == pytest.approx(wanted)
