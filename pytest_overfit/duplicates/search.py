"""One run of `find_duplicates`: open, find, compare labels, apply the allow-list; plain values come out.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import time as clock
from collections.abc import Callable
from typing import Any

from pytest_overfit.core.state import preserved_generators
from pytest_overfit.data.rereading import kept_generators, torch_generator
from pytest_overfit.duplicates.alignment import Opened, open_all
from pytest_overfit.duplicates.allow_list import Allowed, allowed_of
from pytest_overfit.duplicates.copies import Copies, find_copies
from pytest_overfit.duplicates.reading.fields import Facts
from pytest_overfit.duplicates.request import Request, shown
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
    from pytest_overfit.duplicates.relations import measure_relations

    start = clock.perf_counter()
    facts = Facts(request.label, request.group, request.time, request.key, request.batched)
    allowed = allowed_of(request.allow, request.given)
    opened = open_all(request.given, facts, request.text, request.max_samples or MAX_SAMPLES, keep)
    copies = find_copies(opened, request.executor, request.progress)
    if request.max_samples is not None:  # whoever says how many are enough has no doubt about the rest
        cut = [name for name, why in copies.doubts if "max_samples=" in why]
        copies.notes += [
            f"{name} goes on: its first {copies.counts[name]} samples were read, by max_samples=" for name in cut
        ]
        copies.doubts = [each for each in copies.doubts if "max_samples=" not in each[1]]
    copies.notes += [
        f"{name} comes in another order at each reading: its places are those of one reading"
        for name, split in opened.splits.items()
        if not split.keeps_order
    ]
    measured = _plain_copies(opened, copies, allowed)
    measured.update(measure_relations(request, opened, copies, measured["touched"], allowed))
    measured["pairs"] += measured.pop("near_pairs")
    measured["allowed"] = {"used": sorted(allowed.used), "unused": allowed.unused()}
    measured["info"] = {
        "splits": {
            name: {
                "samples": _size(opened, copies, name),
                "how": split.how,
                "labels": copies.labels[name] is not None,
                "ordered": split.keeps_order,
            }
            for name, split in opened.splits.items()
        },
        "differences": [list(each) for each in opened.differences],
        "notes": [*opened.notes, *copies.notes],
        "doubts": [list(each) for each in copies.doubts],
        "unverified": copies.unverified,
        "seconds": clock.perf_counter() - start,
    }
    measured["pictures"] = pictures_of(opened.splits, measured["pairs"])
    return measured


def _size(opened: Opened, copies: Copies, name: str) -> int:
    length = opened.splits[name].length
    return copies.counts[name] if length is None else length


def _plain_copies(opened: Opened, copies: Copies, allowed: Allowed) -> dict[str, Any]:
    across, pairs, conflicts = [], [], []
    touched: dict[str, dict[str, set[int]]] = {name: {"exact": set()} for name in opened.splits}
    for (a, b), found in copies.overlaps.items():
        entries = _entries(opened, copies, a, b)
        entries = [each for each in entries if not allowed.takes(b, each["i"], each["fingerprint"], a, each["j"])]
        mine = {each["i"] for each in entries}
        differ = [each for each in entries if each["conflict"]]
        kept_ids = {int(number) for row, number in zip(found.rows_b, found.ids_b, strict=True) if int(row) in mine}
        others = {int(row) for row, number in zip(found.rows_a, found.ids_a, strict=True) if int(number) in kept_ids}
        touched[a]["exact"] |= others
        touched[b]["exact"] |= mine
        count = copies.counts[b]
        across.append(
            {"in": a, "of": b, "rows": len(mine), "rate": len(mine) / max(1, count), "sources": len(others),
             "conflicts": len(differ), "samples": count}
        )  # fmt: skip
        pairs += entries[:LISTED]
        conflicts += differ[:LISTED]
    within = {name: _within(copies, name) for name in opened.splits}
    return {
        "across": across,
        "pairs": pairs,
        "conflicts": conflicts,
        "within": within,
        "expected_rate": next(iter(within.values()))["rate"],
        "touched": {name: {kind: sorted(rows) for kind, rows in kinds.items()} for name, kinds in touched.items()},
    }


def _same_label(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _entries(opened: Opened, copies: Copies, a: str, b: str) -> list[dict[str, Any]]:
    """One entry for each row of the later split: its first copy in the earlier one, and whether labels differ."""
    found = copies.overlaps[a, b]
    rows_of: dict[int, list[int]] = {}
    for row, number in zip(found.rows_a.tolist(), found.ids_a.tolist(), strict=True):
        rows_of.setdefault(number, []).append(row)
    label_a, label_b = copies.labels[a], copies.labels[b]
    compared = label_a is not None and label_b is not None
    first_with: dict[int, dict[Any, int]] = {}
    entries = []
    for row, number in zip(found.rows_b.tolist(), found.ids_b.tolist(), strict=True):
        others = rows_of[number]
        mine = label_b(row) if label_b is not None else None
        labels = first_with.get(number)
        if labels is None:
            labels = first_with[number] = {}
            for other in others:
                labels.setdefault(label_a(other) if label_a is not None else None, other)
        differing = [each for each in labels if compared and not _same_label(each, mine)]
        other = labels[differing[0]] if differing else others[0]
        entries.append(_entry(a, b, row, other, mine, label_a, len(others), bool(differing)))
    entries.sort(key=lambda each: (not each["conflict"], each["i"]))
    _name(opened, entries, b)
    return entries


def _entry(
    a: str, b: str, row: int, other: int, mine: Any, label_a: Any, copies: int, conflict: bool
) -> dict[str, Any]:
    theirs = label_a(other) if label_a is not None else None
    return {
        "kind": "exact", "split_a": b, "i": row, "split_b": a, "j": other, "label_a": shown(mine),
        "label_b": shown(theirs), "copies": copies, "conflict": conflict, "p": None, "view": "", "fingerprint": "",
    }  # fmt: skip


def _name(opened: Opened, entries: list[dict[str, Any]], split: str) -> None:
    """Give copies a name that lasts, where their samples are at hand."""
    source = opened.splits[split]
    if source.memory is not None:
        named = entries[:LISTED]
        names = lasting_names(source.memory.leaves, [each["i"] for each in named])
        for each, name in zip(named, names, strict=True):
            each["fingerprint"] = name
        return
    for each in entries[:NAMED]:
        read = source.sample(each["i"])
        if read is not None and len(read):
            each["fingerprint"] = lasting_name(read.sample(0))


def _within(copies: Copies, name: str) -> dict[str, Any]:
    found, part = copies.repeats[name], copies.part.get(name, 1.0)
    rows, groups = len(found.rows) / part, len(set(found.ids.tolist())) / part
    label, conflicts = copies.labels[name], 0
    if label is not None and part == 1.0:
        seen: dict[int, Any] = {}
        clashing = set()
        for row, number in zip(found.rows.tolist(), found.ids.tolist(), strict=True):
            mine = label(row)
            if not _same_label(seen.setdefault(number, mine), mine):
                clashing.add(number)
        conflicts = len(clashing)
    count = max(1, copies.counts[name])
    return {
        "rows": round(rows), "rate": rows / count, "groups": round(groups), "conflicts": conflicts, "sampled": part < 1,
        "samples": copies.counts[name],
    }  # fmt: skip
