"""From what was found in the splits to a verdict, on plain values alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytest_overfit.core.limits import Resolved, names_of, share
from pytest_overfit.core.verdict import Cause, Finding, FindingOutcome, Judgement
from pytest_overfit.duplicates.natural import repeats, repeats_with_other_labels

#: what is not a clean split even within its limit, and is reported
_WARNED = ("near_copies", "windows")
#: examples shown: pairs of rows; windows, and groups, of each pair of splits
_PAIRS, _OTHERS = 5, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitDuplicatesLimits:
    """Limits of `split_duplicates`, each a share of the later split's rows."""

    #: rows with an exact copy in an earlier split. 0: every copy is proved by comparison, so one is a fact and no
    #: estimate; a tool that lets 5 % pass lets an accuracy pass that is too high by up to 5 points
    max_rate: float = 0.0
    #: rows with a near-copy. Clean data give about 0.05 of them a run by chance, so a handful is a warning; 1 % of a
    #: test set moves an accuracy by up to a point
    max_near: float = 0.01
    #: windows that overlap a window of an earlier split. A cut in time without a gap leaves those at the cut, below 1 %
    #: in the long series measured, and a warning; a random split leaves nearly all
    max_windows: float = 0.05
    #: rows whose group also occurs in an earlier split: a group is split or it is not
    max_groups: float = 0.0
    #: rows that are not later than what was learnt from
    max_out_of_order: float = 0.0

    def __post_init__(self) -> None:
        share(self, *names_of(type(self)), zero=True)


def judge_duplicates(measured: Mapping[str, Any], limits: Resolved[SplitDuplicatesLimits]) -> Judgement:
    """Judge one measurement; what failed comes first in the summary."""
    judge = _Judge(measured, limits)
    return Judgement.of(judge.findings(), judge.clean_summary)


class _Judge:
    def __init__(self, measured: Mapping[str, Any], limits: Resolved[SplitDuplicatesLimits]) -> None:
        self.measured, self.limits = measured, limits

    def findings(self) -> Iterator[Finding]:
        for kind, (name, limit, words) in _RELATIONS.items():
            for found in self.measured[kind]:
                yield self._relation(name, limit, found, words)
                if found.get("conflicts"):
                    yield _conflict(found, self.measured["within"][found["in"]])
        yield from self._doubts()
        yield from self._remarks()

    def clean_summary(self) -> str:
        sizes = ", ".join(f"{name} {split['samples']}" for name, split in self.measured["info"]["splits"].items())
        rows, near = (sum(found["rows"] for found in self.measured[kind]) for kind in ("across", "near"))
        exact = "no exact copy" if not rows else f"{rows} exact copies, within max_rate"
        close = f"{near or 'no'} near-cop{'y' if near == 1 or not near else 'ies'}"
        if not any(found["testable"] for found in self.measured["near"]):
            close = "near-copies not testable"
        return f"{exact}, {close} between splits ({sizes})"

    # ------------------------------------------------------------------------------------------------------- findings

    def _relation(self, name: str, limit: str, found: Mapping[str, Any], words: Callable[[Any], str]) -> Finding:
        """What was found of one kind between two splits, a share of the later one's rows."""
        if not found.get("testable", True):
            what = name.replace("_", "-")
            where = f"{what} of {found['of']} in {found['in']}"
            return Finding.note(f"{where}: not testable: {found['why']}", _named(name, found))
        value = found["rate"] if "rate" in found else found["rows"] / max(1, found["samples"])
        most = getattr(self.limits.values, limit)
        few: FindingOutcome = "warning" if name in _WARNED and found["rows"] else "passed"
        within = self.measured["within"][found["in"]] if "in" in found else {}
        return Finding(name=_named(name, found), value=value, limit=most, relation="<=",
                       source=self.limits.source(limit), outcome=few if value <= most else "failed",
                       message=words({**found, "within": within}), better="lower",
                       cause=_leak(name, found, value > most))  # fmt: skip

    def _doubts(self) -> Iterator[Finding]:
        for split, why in self.measured["info"]["doubts"]:
            message = f"cannot tell that {split} is clean: {why}"
            yield Finding(name=f"readable.{split}", value=None, outcome="inconclusive", message=message)

    def _remarks(self) -> Iterator[Finding]:
        for name, within in self.measured["within"].items():
            if within["conflicts"]:
                occur = "input occurs" if within["conflicts"] == 1 else "inputs occur"
                text = f"{within['conflicts']} {occur} in {name} more than once with different labels"
                yield _warning(f"conflicts_within.{name}", text, within["conflicts"])
            if within["rows"]:
                about = "about " if within["sampled"] else ""
                where = f"rows of {name} ({within['rate']:.2%}) have a copy in {name}"
                text = f"{about}{within['rows']} of {within['samples']} {where}"
                yield Finding.note(text, f"repeats_within.{name}", within["rate"])
        info = self.measured["info"]
        yield from (_warning(f"{code}_differs", message) for code, message in info["differences"])
        yield from (_warning(name, message) for name, message in info["missing"])
        for key in self.measured["allowed"]["unused"]:
            yield _warning("allow", f"allow= names {key!r}, which is no longer a copy: take it off the list")
        if info["unverified"]:
            text = f"{info['unverified']} rows could not be read again: compared by 128-bit fingerprints alone"
            yield Finding.note(text, "unverified")
        yield from map(Finding.note, info["notes"])
        yield from (Finding.note(example, "fact") for example in _examples(self.measured))


def _conflict(found: Mapping[str, Any], within: Mapping[str, Any]) -> Finding:
    """Copies with another label: a fault, unless the earlier split repeats itself with other labels as often."""
    has = f"row of {found['of']} has" if found["conflicts"] == 1 else f"rows of {found['of']} have"
    message = f"{found['conflicts']} {has} a copy in {found['in']} with another label"
    if repeats_with_other_labels(found, within):
        message = f"{message}; so have {within['clashing']} of {within['rows']} rows that {found['in']} repeats"
        return _warning(_named("conflicting_labels", found), message, found["conflicts"])
    cure = f"settle the labels of these inputs, and keep each input in one split: clean({found['of']!r})"
    return Finding(name=_named("conflicting_labels", found), value=found["conflicts"], limit=0, relation="<=",
                   source="theory", outcome="failed", message=message,
                   cause=Cause("conflicting_labels", cure))  # fmt: skip


def _leak(name: str, found: Mapping[str, Any], beyond: bool) -> Cause | None:
    """What the splits share is a leak; a few near-copies within their limit occur by chance."""
    if not found.get("rows") or (name == "near_copies" and not beyond):
        return None
    later = found.get("of") or found.get("after")
    return Cause("split_leak", _SPLIT_CURES[name].format(later=later), "likely" if name == "near_copies" else "shown")


def _warning(name: str, message: str, value: float | None = None) -> Finding:
    return Finding(name=name, value=value, outcome="warning", message=message)


def _named(name: str, found: Mapping[str, Any]) -> str:
    """A finding's name says which splits it is about: there is one for each pair of them."""
    where = "{of}_in_{in}" if "in" in found else "{after}_after_{before}"
    return f"{name}.{where.format_map(found)}"


def _exact_words(found: Mapping[str, Any]) -> str:
    within = found["within"]
    if not found["rows"]:
        return "no row of {of} has an exact copy in {in}".format_map(found)
    text = "{rows} of {samples} rows of {of} ({rate:.2%}) have an exact copy in {in}".format_map(found)
    again = f"{within['rate']:.2%} of {found['in']}"
    if repeats(found, within):
        return f"{text}; so do {again} in {found['in']}: the data repeat by nature: split by value or by group"
    return f"{text}, a leak" + (f"; {again} have one in {found['in']}" if within["rows"] else "")


def _group_words(found: Mapping[str, Any]) -> str:
    if not found["shared"]:
        return "no group of {of} occurs in {in}".format_map(found)
    text = "{shared} of {groups} groups of {of} also occur in {in} ({rows} rows; first ".format_map(found)
    return f"{text}{found['examples'][0]['group']!r})"


def _time_words(found: Mapping[str, Any]) -> str:
    if not found["rows"]:
        return "every row of {after} is later than {before}".format_map(found)
    gap = f" plus the gap of {found['gap']}" if found["gap"] not in ("0", "0.0") else ""
    turned = "; it lies wholly before: are the splits given in order?" if found["reversed"] else ""
    text = "{rows} rows of {after} are not later than the last of {before} ({last})".format_map(found)
    return f"{text}{gap}{turned}"


def _window_words(found: Mapping[str, Any]) -> str:
    if not found["rows"]:
        return "no window of {of} overlaps one of {in}".format_map(found)
    text = "{rows} of {samples} windows of {of} ({rate:.2%}) overlap windows of {in}".format_map(found)
    return f"{text}: split by time, with a gap"


def _near_words(found: Mapping[str, Any]) -> str:
    if not found["rows"]:
        return "no row of {of} has a near-copy in {in}".format_map(found)
    text = "{rows} of {samples} rows of {of} ({rate:.2%}) have a near-copy in {in}".format_map(found)
    return text + "; from how alike rows of {in} are, about {expected:.3g} are expected".format_map(found)


#: finding -> what to change
_SPLIT_CURES = {
    "exact_copies": "drop the rows that are copies: Duplicates(verdict.data).clean({later!r}) names those to keep",
    "near_copies": "drop the rows that are near-copies: Duplicates(verdict.data).clean({later!r}) names those to keep",
    "shared_groups": "cut by group, and not by row: sklearn.model_selection.GroupShuffleSplit",
    "time_order": "cut {later} off by time: train before the cut, {later} after it",
    "windows": "cut the series by time before windows are made of it, with a gap as long as a window",
}

#: kind of relation -> name of its finding, its limit, and how it is reported
_RELATIONS: dict[str, tuple[str, str, Callable[[Any], str]]] = {
    "across": ("exact_copies", "max_rate", _exact_words),
    "groups": ("shared_groups", "max_groups", _group_words),
    "time": ("time_order", "max_out_of_order", _time_words),
    "windows": ("windows", "max_windows", _window_words),
    "near": ("near_copies", "max_near", _near_words),
}


def _examples(measured: Mapping[str, Any]) -> Iterator[str]:
    """The most certain ones of each kind, by their places."""
    yield from (_pair_line(each) for each in measured["pairs"][:_PAIRS])
    for found in measured["windows"]:
        for i, j, offset, overlap in found.get("examples", ())[:_OTHERS]:
            yield f"window: {found['of']}[{i}] and {found['in']}[{j}] share {overlap} numbers, shifted by {abs(offset)}"
    for found in measured["groups"]:
        for each in found.get("examples", ())[:_OTHERS]:
            places = ", ".join(f"{split}{each[split]}" for split in (found["of"], found["in"]))
            yield f"group {each['group']!r}: first of its rows {places}"


def _pair_line(pair: Mapping[str, Any]) -> str:
    sign = "=" if pair["kind"] == "exact" else "~"
    more = f", {pair['copies']} times there" if pair.get("copies", 1) > 1 else ""
    seen = f", seen as {pair['view']}" if pair.get("view") else ""
    p = f", p = {pair['p']:.2g}" if pair["p"] is not None else ""
    mark = f" [{pair['fingerprint']}]" if pair.get("fingerprint") else ""
    where = f"{pair['split_a']}[{pair['i']}] {sign} {pair['split_b']}[{pair['j']}]"
    return f"{pair['kind']}: {where}{_label_words(pair)}{more}{seen}{p}{mark}"


def _label_words(pair: Mapping[str, Any]) -> str:
    one, other = pair["label_a"], pair["label_b"]
    if one is None and other is None:
        return ""
    if one is None or other is None:
        return f", label {other!r} in {pair['split_b']}" if one is None else f", label {one!r} in {pair['split_a']}"
    return f", label {one!r}" if one == other else f", labels {one!r} and {other!r}"
