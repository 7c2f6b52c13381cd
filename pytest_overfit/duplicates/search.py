"""One run of `find_duplicates`: open, find, compare labels, apply the allow-list; plain values come out."""

from __future__ import annotations

import contextlib
import itertools
import time as clock
from collections.abc import Callable
from typing import Any

from pytest_overfit.core.state import preserved_generators
from pytest_overfit.data.rereading import kept_generators, torch_generator
from pytest_overfit.duplicates.alignment import Opened, open_all
from pytest_overfit.duplicates.allow_list import allowed_of
from pytest_overfit.duplicates.copies import Copies, find_copies
from pytest_overfit.duplicates.presence import missing_facts
from pytest_overfit.duplicates.reading.fields import Facts
from pytest_overfit.duplicates.relations import Search, relate
from pytest_overfit.duplicates.request import Request
from pytest_overfit.duplicates.rescaling import add_rescaled
from pytest_overfit.duplicates.thumbnails import pictures_of
from pytest_overfit.duplicates.values.lasting_names import lasting_name, lasting_names

#: samples read of what has no length, where max_samples= is not given
MAX_SAMPLES = 1_000_000
#: pairs listed, and pairs whose samples are read again to name them
LISTED, NAMED = 10_000, 100


def measure_duplicates(request: Request) -> dict[str, Any]:
    """Everything a judgement needs, as plain values. Generators are afterwards where they were."""
    with contextlib.ExitStack() as stack:

        def keep(source: Any) -> None:
            stack.enter_context(kept_generators(source))

        stack.enter_context(preserved_generators())
        keep(torch_generator())
        return _measured(request, keep)


def _measured(request: Request, keep: Callable[[Any], None]) -> dict[str, Any]:
    start = clock.perf_counter()
    facts = Facts(request.label, request.group, request.time, request.key, request.batched)
    allowed = allowed_of(request.allow, request.given)
    opened = open_all(request.given, facts, request.text, request.max_samples or MAX_SAMPLES, keep)
    copies = find_copies(opened, request.executor, request.progress)
    _remark(request, opened, copies)
    missing = missing_facts(request, opened, copies)
    search = Search(request, opened, copies, allowed, add_rescaled(request, opened, copies))
    for a, b in copies.overlaps:
        _exact(search, a, b)
    for a, b in itertools.combinations(opened.splits, 2):
        relate(search, a, b)
    within = {name: _within(copies, name) for name in opened.splits}
    return {
        **search.found,
        "within": within,
        "expected_rate": next(iter(within.values()))["rate"],
        "touched": {
            name: {kind: sorted(rows) for kind, rows in kinds.items()} for name, kinds in search.touched.items()
        },
        "allowed": {"used": sorted(allowed.used), "unused": allowed.unused()},
        "info": {**_info(opened, copies, clock.perf_counter() - start), "missing": missing},
        "pictures": pictures_of(opened.splits, search.found["pairs"]),
    }


def _remark(request: Request, opened: Opened, copies: Copies) -> None:
    """Notes on how the splits were read; whoever says how many samples are enough has no doubt about the rest."""
    if request.max_samples is not None:
        cut = [name for name, why in copies.doubts if "max_samples=" in why]
        copies.notes += [
            f"{name} goes on: its first {copies.counts[name]} samples were read, by max_samples=" for name in cut
        ]
        copies.doubts = [doubt for doubt in copies.doubts if "max_samples=" not in doubt[1]]
    copies.notes += [
        f"{name} comes in another order at each reading: its places are those of one reading"
        for name, split in opened.splits.items()
        if not split.keeps_order
    ]


def _info(opened: Opened, copies: Copies, seconds: float) -> dict[str, Any]:
    return {
        "splits": {
            name: {
                "samples": copies.counts[name] if split.length is None else split.length,
                "how": split.how,
                "labels": copies.labels[name] is not None,
                "ordered": split.keeps_order,
            }
            for name, split in opened.splits.items()
        },
        "differences": [list(difference) for difference in opened.differences],
        "notes": [*opened.notes, *copies.notes],
        "doubts": [list(doubt) for doubt in copies.doubts],
        "unverified": copies.unverified,
        "seconds": seconds,
    }


def _exact(search: Search, a: str, b: str) -> None:
    """Exact copies of rows of `b` in `a`, those on the allow-list left out."""
    found, count = search.copies.overlaps[a, b], search.copies.counts[b]
    pairs = [
        pair
        for pair in _pairs(search, a, b)
        if not search.allowed.takes(b, pair["i"], pair["fingerprint"], a, pair["j"])
    ]
    mine = {pair["i"] for pair in pairs}
    kept_ids = {int(number) for row, number in zip(found.rows_b, found.ids_b, strict=True) if int(row) in mine}
    others = {int(row) for row, number in zip(found.rows_a, found.ids_a, strict=True) if int(number) in kept_ids}
    differ = [pair for pair in pairs if pair["conflict"]]
    search.touch(a, "exact", others)
    search.touch(b, "exact", mine)
    search.found["pairs"] += pairs[:LISTED]
    search.found["conflicts"] += differ[:LISTED]
    search.add(
        "across", a, b, rows=len(mine), rate=len(mine) / max(1, count), sources=len(others), conflicts=len(differ),
        samples=count,
    )  # fmt: skip


def _same_label(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _pairs(search: Search, a: str, b: str) -> list[dict[str, Any]]:
    """One pair for each row of the later split: its first copy in the earlier one, and whether labels differ."""
    found = search.copies.overlaps[a, b]
    label_a, label_b = search.copies.labels[a], search.copies.labels[b]
    rows_of: dict[int, list[int]] = {}
    # by number of equal rows: the first row of `a` with each label; one that is not compared counts as none
    first_with: dict[int, dict[Any, int]] = {}
    for row, number in zip(found.rows_a.tolist(), found.ids_a.tolist(), strict=True):
        rows_of.setdefault(number, []).append(row)
        label = label_a(row) if label_a is not None and label_b is not None else None
        first_with.setdefault(number, {}).setdefault(label, row)
    pairs = []
    for row, number in zip(found.rows_b.tolist(), found.ids_b.tolist(), strict=True):
        others = rows_of[number]
        mine = label_b(row) if label_a is not None and label_b is not None else None
        differing = [other for label, other in first_with[number].items() if not _same_label(label, mine)]
        other = differing[0] if differing else others[0]
        pairs.append(search.pair("exact", b, row, a, other, copies=len(others), conflict=bool(differing)))
    pairs.sort(key=lambda pair: (not pair["conflict"], pair["i"]))
    _name(search.opened, pairs, b)
    return pairs


def _name(opened: Opened, pairs: list[dict[str, Any]], split: str) -> None:
    """Give copies a name that lasts, where their samples are at hand."""
    source = opened.splits[split]
    if source.memory is not None:
        named = pairs[:LISTED]
        names = lasting_names(source.memory.leaves, [pair["i"] for pair in named])
        for pair, name in zip(named, names, strict=True):
            pair["fingerprint"] = name
        return
    for pair in pairs[:NAMED]:
        sample = source.sample(pair["i"])
        if sample is not None:
            pair["fingerprint"] = lasting_name(sample)


def _within(copies: Copies, name: str) -> dict[str, Any]:
    found, part = copies.repeats[name], copies.part.get(name, 1.0)
    rows, groups = len(found.rows) / part, len(set(found.ids.tolist())) / part
    label, clashing = copies.labels[name], set()
    if label is not None and part == 1.0:
        seen: dict[int, Any] = {}
        for row, number in zip(found.rows.tolist(), found.ids.tolist(), strict=True):
            mine = label(row)
            if not _same_label(seen.setdefault(number, mine), mine):
                clashing.add(number)
    count = max(1, copies.counts[name])
    return {
        "rows": round(rows), "rate": rows / count, "groups": round(groups), "conflicts": len(clashing),
        "sampled": part < 1, "samples": copies.counts[name],
        "clashing": sum(number in clashing for number in found.ids.tolist()),
    }  # fmt: skip
