"""What a page quotes, compared with what was printed: the same words, numbers alike, whatever the seconds were."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?!\w)")
#: seconds depend on the machine, the curve on every step; how many layers Keras has made before depends on other tests
_MASKED = [(r"\b\d+\.\d s\b", "seconds"), (r"[▁▂▃▄▅▆▇█]{5,}", "curve"), (r"_\d+(?=/)", ""), (r"={3,}", "==")]
#: another processor adds up in another order: a step sooner or later, other digits; of a model that is stuck, any
_STEPS = re.compile(r"\b(\d+)(?= steps\b)|(?<=\bsteps=)(\d+)")
_ALIKE = 0.3
#: a line of the summary goes on below, indented; pages are narrower than what the tests print
_WRAPPED = re.compile(r"\n {14}(?=\S)")


def sections(page: str) -> list[list[tuple[str, str]]]:
    """The blocks of each section, as language and text; the first section is what comes before the first heading."""
    parts = re.split(r"^## ", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [_BLOCK.findall(part) for part in parts]


def outputs(blocks: Iterable[tuple[str, str]]) -> list[str]:
    """What is quoted: blocks without a language."""
    return [text for language, text in blocks if not language]


def missing(quoted: str, printed: Iterable[str]) -> list[str]:
    """The first quoted line that was not printed, below those before it; nothing if all of them were."""
    rest = iter([_prepared(line) for line in printed])
    for line in _WRAPPED.sub(" ", quoted).splitlines():
        prepared = _prepared(line)
        if prepared.strip(". E") and not any(_same(prepared, each) for each in rest):
            return [line]
    return []


def _prepared(line: str) -> str:
    for pattern, text in _MASKED:
        line = re.sub(pattern, text, line)
    return " ".join(_STEPS.sub(r"\g<0>.0", line).split())


def _same(quoted: str, printed: str) -> bool:
    if quoted.endswith("..."):  # cut to the width of a terminal, in the middle of a word
        words = quoted.removesuffix("...").split()[:-1]
        quoted, printed = " ".join(words), " ".join(printed.split()[: len(words)])
    ours, theirs = _NUMBER.split(quoted), _NUMBER.split(printed)
    return ours[::2] == theirs[::2] and all(map(_alike, ours[1::2], theirs[1::2]))


def _alike(one: str, other: str) -> bool:
    if one.isdecimal() and other.isdecimal():
        return one == other
    a, b = float(one), float(other)
    return abs(a - b) <= _ALIKE * max(1.0, abs(a), abs(b))
