"""From what was found in the splits to a verdict, on plain values alone.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_overfit.core.limits import Resolved, names_of, share
from pytest_overfit.core.verdict import Finding, Judgement

#: cross rate over within-rate where copies are the data's own repetition; copies for that to be said
_NATURAL, _ENOUGH = (0.8, 1.25), 20
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
    #: in the series measured; a random split leaves nearly all
    max_windows: float = 0.05
    #: rows whose group stands in an earlier split: a group is split or it is not
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
        for found in self.measured["across"]:
            yield from self._exact(found)
        for found in self.measured["groups"]:
            yield self._share("shared_groups", "max_groups", found, _group_words(found))
        for found in self.measured["time"]:
            yield self._share("time_order", "max_out_of_order", found, _time_words(found))
        yield from map(self._windows, self.measured["windows"])
        yield from map(self._near, self.measured["near"])
        yield from self._doubts()
        yield from self._beside()

    def clean_summary(self) -> str:
        sizes = ", ".join(f"{name} {each['samples']}" for name, each in self.measured["info"]["splits"].items())
        rows = sum(each["rows"] for each in self.measured["across"])
        near = sum(each["rows"] for each in self.measured["near"])
        tested = [each for each in self.measured["near"] if each["testable"]]
        told = "no exact copy" if not rows else f"{rows} exact copies, within max_rate"
        said = (
            f"{near or 'no'} near-cop{'y' if near == 1 or not near else 'ies'}"
            if tested
            else "near-copies not testable"
        )
        return f"{told}, {said} between splits ({sizes})"

    # ------------------------------------------------------------------------------------------------------- findings

    def _exact(self, each: Mapping[str, Any]) -> Iterator[Finding]:
        yield self._share("exact_copies", "max_rate", each, _exact_words(each, self._within(each)))
        if each["conflicts"]:
            has = f"row of {each['of']} has" if each["conflicts"] == 1 else f"rows of {each['of']} have"
            message = f"{each['conflicts']} {has} a copy in {each['in']} with another label"
            yield Finding(name=_named("conflicting_labels", each), value=each["conflicts"], limit=0, relation="<=",
                          source="theory", outcome="failed", message=message)  # fmt: skip

    def _within(self, each: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.measured["within"][each["in"]]
        return found

    def _share(self, name: str, limit: str, each: Mapping[str, Any], message: str) -> Finding:
        value = each["rate"] if "rate" in each else each["rows"] / max(1, each["samples"])
        most = getattr(self.limits.values, limit)
        return Finding(name=_named(name, each), value=value, limit=most, relation="<=",
                       source=self.limits.source(limit), outcome="passed" if value <= most else "failed",
                       message=message, better="lower")  # fmt: skip

    def _windows(self, found: Mapping[str, Any]) -> Finding:
        if not found["testable"]:
            return Finding.note(f"windows: not testable: {found['why']}", _named("windows", found))
        return self._share("windows", "max_windows", found, _window_words(found))

    def _near(self, found: Mapping[str, Any]) -> Finding:
        if not found["testable"]:
            where = f"near-copies of {found['of']} in {found['in']}"
            return Finding.note(f"{where}: not testable: {found['why']}", _named("near_copies", found))
        judged = self._share("near_copies", "max_near", found, _near_words(found))
        passed = found["rows"] and judged.outcome == "passed"
        return dataclasses.replace(judged, outcome="warning") if passed else judged

    def _doubts(self) -> Iterator[Finding]:
        for split, why in self.measured["info"]["doubts"]:
            message = f"cannot tell that {split} is clean: {why}"
            yield Finding(name=f"readable.{split}", value=None, outcome="inconclusive", message=message)

    def _beside(self) -> Iterator[Finding]:
        for name, each in self.measured["within"].items():
            if each["conflicts"]:
                stand = "input stands" if each["conflicts"] == 1 else "inputs stand"
                told = f"{each['conflicts']} {stand} in {name} more than once with different labels"
                yield Finding(name=f"conflicts_within.{name}", value=each["conflicts"], outcome="warning", message=told)
            if each["rows"]:
                about = "about " if each["sampled"] else ""
                where = f"rows of {name} ({each['rate']:.2%}) have a copy in {name}"
                told = f"{about}{each['rows']} of {each['samples']} {where}"
                yield Finding.note(told, f"repeats_within.{name}", each["rate"])
        for code, message in self.measured["info"]["differences"]:
            yield Finding(name=f"{code}_differs", value=None, outcome="warning", message=message)
        for key in self.measured["allowed"]["unused"]:
            told = f"allow= names {key!r}, which is no copy any more: take it off the list"
            yield Finding(name="allow", value=None, outcome="warning", message=told)
        if self.measured["info"]["unverified"]:
            rows = self.measured["info"]["unverified"]
            told = f"{rows} rows could not be read again: compared by 128-bit fingerprints alone"
            yield Finding.note(told, "unverified")
        yield from map(Finding.note, self.measured["info"]["notes"])
        yield from (Finding.note(line, "fact") for line in _examples(self.measured))


def _named(name: str, each: Mapping[str, Any]) -> str:
    """A finding's name says which splits it is about: there is one for each pair of them."""
    return f"{name}.{each['of']}_in_{each['in']}" if "in" in each else f"{name}.{each['after']}_after_{each['before']}"


def _exact_words(each: Mapping[str, Any], within: Mapping[str, Any]) -> str:
    rows, of, inside = each["rows"], each["of"], each["in"]
    if not rows:
        return f"no row of {of} has an exact copy in {inside}"
    told = f"{rows} of {each['samples']} rows of {of} ({each['rate']:.2%}) have an exact copy in {inside}"
    natural = within["rate"] and _NATURAL[0] <= each["rate"] / within["rate"] <= _NATURAL[1] and rows > _ENOUGH
    if natural:
        told = f"{told}; so do {within['rate']:.2%} of {inside} in {inside}"
        return f"{told}: the data repeat by nature, split by value or by group"
    return f"{told}, a leak" + (f"; {within['rate']:.2%} of {inside} have one in {inside}" if within["rate"] else "")


def _group_words(each: Mapping[str, Any]) -> str:
    if not each["shared"]:
        return f"no group of {each['of']} stands in {each['in']}"
    first = each["examples"][0]["group"]
    told = f"{each['shared']} of {each['groups']} groups of {each['of']} stand in {each['in']} too"
    return f"{told} ({each['rows']} rows; first {first!r})"


def _time_words(each: Mapping[str, Any]) -> str:
    if not each["rows"]:
        return f"every row of {each['after']} is later than {each['before']}"
    gap = f" plus the gap of {each['gap']}" if each["gap"] not in ("0", "0.0") else ""
    turned = "; it lies wholly before: are the splits given in order?" if each["reversed"] else ""
    told = f"{each['rows']} rows of {each['after']} are not later than the last of {each['before']}"
    return f"{told} ({each['last']}){gap}{turned}"


def _window_words(each: Mapping[str, Any]) -> str:
    if not each["rows"]:
        return f"no window of {each['of']} overlaps one of {each['in']}"
    told = f"{each['rows']} of {each['samples']} windows of {each['of']} ({each['rate']:.2%}) overlap windows of"
    return f"{told} {each['in']}: split by time, with a gap"


def _near_words(each: Mapping[str, Any]) -> str:
    if not each["rows"]:
        return f"no row of {each['of']} has a near-copy in {each['in']}"
    told = f"{each['rows']} of {each['samples']} rows of {each['of']} ({each['rate']:.2%}) have a near-copy"
    told = f"{told} in {each['in']}"
    return f"{told}; from how alike rows of {each['in']} are, about {each['expected']:.3g} were to be expected"


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
