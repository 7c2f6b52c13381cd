"""Does a split give the same samples when it is read twice? If not, copies in it cannot be recognised."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

from pytest_overfit.core.arrays import Array
from pytest_overfit.data.rereading import TWICE, changed_place, spread
from pytest_overfit.duplicates.reading.split import Samples
from pytest_overfit.duplicates.values.fingerprints import Coding


@dataclasses.dataclass
class Steadiness:
    """What reading twice showed."""

    #: False: the same place gave two samples; None: it could not be asked
    steady: bool | None
    why: str = ""
    #: fingerprints that must turn up in a whole pass, if a stream is only in another order
    watched: Any = None


def steadiness(split: Samples, coding: Coding) -> Steadiness:
    """Read some samples twice."""
    if split.memory is not None:
        return Steadiness(True)
    if split.fetch is not None:
        return _by_place(split, coding)
    if not split.again:
        why = "it can be read only once, so random augmentation would go unnoticed; give a function that returns it"
        return Steadiness(None, why)
    return _by_stream(split, coding)


def fingerprint(split: Samples, coding: Coding, place: int) -> bytes:
    """Of one sample as it is read now; empty where it cannot be read."""
    sample = split.sample(place)
    if sample is None:
        return b""
    return coding.encoder(split.name).chunk({name: [leaf] for name, leaf in sample.items()}).tobytes()


def _by_place(split: Samples, coding: Coding) -> Steadiness:
    places = spread(split.length or 1).tolist()
    changed = changed_place(places, lambda place, _: fingerprint(split, coding, place), operator.eq)
    split.errors.clear()
    if changed is None:
        return Steadiness(True)
    why = f"sample {changed}, read twice, was not the same: is it augmented at random, or changed by reading?"
    return Steadiness(False, why)


def _by_stream(split: Samples, coding: Coding) -> Steadiness:
    encoder = coding.encoder(split.name)
    marks = []
    for _ in range(2):
        chunk = split.peek(TWICE)
        if chunk is None:
            return Steadiness(None, "it could be read only once")
        marks.append(encoder.chunk(chunk.leaves)[: 2 * TWICE])
    if marks[0].tobytes() == marks[1].tobytes():
        return Steadiness(True)
    split.keeps_order = False
    return Steadiness(True, "its order changes from one reading to the next", marks[0])


def watched_seen(found: Steadiness, seen: Array | None, cut: bool) -> Steadiness:
    """After a whole pass: a stream that is only shuffled gave all watched samples again."""
    if found.watched is None or seen is None or bool(seen.all()):
        return found
    if cut:
        return Steadiness(None, "its order changes, and only a part of it was read")
    return Steadiness(False, "samples were not the same when they were read again: are they augmented at random?")


def without_transforms(
    splits: Mapping[str, Samples], steady: Mapping[str, Steadiness], coding: Coding
) -> dict[str, Samples] | None:
    """All splits with their transforms taken off, if one of them is random and that makes all of them steady."""
    if all(each.steady is not False for each in steady.values()):
        return None
    found: dict[str, Samples] = {}
    for name, split in splits.items():
        stripped = split.bare() if split.bare is not None else None
        if stripped is None and steady[name].steady is False:
            return None
        found[name] = split if stripped is None else stripped
    try:
        good = all(steadiness(split, Coding({}, coding.text)).steady for split in found.values())
    except Exception:  # its samples are nothing that can be compared
        return None
    return found if good else None
