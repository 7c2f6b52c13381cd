"""Is the evaluation data unseen: does no sample of a split also occur in another one?"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pytest_overfit.adapters.dispatch import seed_everything
from pytest_overfit.core.case import Case
from pytest_overfit.core.errors import CaseError, ProgramError
from pytest_overfit.core.figures import thousandths
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.options_of_case import yes_or_no
from pytest_overfit.core.verdict import BaselineNumber, Finding, Judgement, Verdict
from pytest_overfit.data.row_axis import samples_first
from pytest_overfit.duplicates.find import SPLITS
from pytest_overfit.duplicates.judgement import SplitDuplicatesLimits, judge_duplicates
from pytest_overfit.duplicates.request import Request
from pytest_overfit.duplicates.search import measure_duplicates
from pytest_overfit.probes.base import Bench, Probe, of_findings
from pytest_overfit.probes.split_duplicates.score_without_copies import cost_of_copies

#: pairs listed in a verdict, of each kind and two splits; all are counted, and all places are in `clean`
LISTED = 1_000

#: facts that a case may give in `options["split_duplicates"]`; the probe itself gives the others
OPTIONS = (
    *(each.name for each in dataclasses.fields(Request) if each.name not in ("given", "seed", "progress")),
    "score",
)


class SplitDuplicates(Probe):
    """Compares the case's splits (`train`, `val`, `test`) sample by sample.

    *Measured*: rows of one split that have an equal in another (compared number by number; -0.0 is 0.0, NaN is NaN),
    copies with another label, near-copies by a p-value that the training data calibrate, overlapping windows of a
    series, and, where the case names them, groups in two splits and rows out of time order.
    Where copies are found, and the case's model can be trained, also the score on the split with and without them.
    *Passing* means: none of these beyond its limit, in splits that could be read whole and twice the same.

    Facts are given as `options={"split_duplicates": {"group": "patient"}}`, by the names of `find_duplicates`'
    arguments. `Duplicates(verdict.data)` is a view of what was found: pairs (the first 1,000 of a kind), rates,
    `clean("test")`.

    *Cannot see*: copies that were cropped or rotated, paraphrases (give `features=`), near-copies in data of fewer than
    about three dimensions: then near-copies are "not testable", a note inside `passed`. Copies that the data repeat by
    nature are named so, and still fail. *Cost*: in memory about three reads of the data, else one pass over each split
    and the near search, a few seconds for 60,000 by 10,000 images; where copies are found, a training run of at most
    4,000 updates, which `options={"split_duplicates": {"score": False}}` leaves out.
    """

    name = "split_duplicates"
    limits = SplitDuplicatesLimits
    cost = 20
    options = OPTIONS
    default = True

    def needs(self, case: Case) -> str | None:
        """Two splits to compare."""
        given = [name for name in SPLITS if getattr(case, name) is not None]
        if len(given) > 1:
            return None
        only = next(iter(given), "batch")
        return f"the case has {only}= alone, and copies are looked for between two of train, val and test"

    def measure(self, bench: Bench, limits: SplitDuplicatesLimits) -> dict[str, Any]:  # noqa: ARG002 - nothing is cut short
        """Read the splits and return plain values."""
        case = bench.case
        where = f"Case {case.name!r}:"
        scored = yes_or_no(case, self.name, "score", default=True)
        options = {name: value for name, value in case.options.get(self.name, {}).items() if name != "score"}
        given = {
            name: samples_first(getattr(case, name), case, name) for name in SPLITS if getattr(case, name) is not None
        }
        seed_everything(bench.seed)  # once: data that are drawn at random must not be drawn twice the same
        try:
            measured = measure_duplicates(Request(given=given, seed=bench.seed, progress=bench.progress, **options))
        except CaseError as error:
            hint = "" if isinstance(error, ProgramError) else _placed(str(error), "; ")
            error.args = (f"{where} {error}{hint}",)
            raise
        del measured["info"]["seconds"]  # a verdict has its own, and its data are the same each time
        measured["score"] = _score(bench, measured) if scored else None
        return {**measured, **{name: _first(measured[name]) for name in ("pairs", "conflicts")}}

    def judge(self, measured: Mapping[str, Any], limits: Resolved[SplitDuplicatesLimits]) -> Judgement:
        """Decide from the measured values alone."""
        found = judge_duplicates(measured, limits)
        return dataclasses.replace(found, findings=(*found.findings, *_ways_on(measured, found)))

    def numbers(self, verdict: Verdict) -> Iterator[BaselineNumber]:
        """Also how many copies there are of each kind, for each two splits."""
        for kind, pairs in (("exact", "across"), ("near", "near")):
            for found in verdict.data.get(pairs, ()):
                if found.get("testable", True):
                    name = f"{kind}_copies_count.{found['in']}.{found['of']}"
                    yield BaselineNumber(name, found["rows"], "lower")
        yield from of_findings(verdict)


def _score(bench: Bench, measured: Mapping[str, Any]) -> Any:
    """The score with and without rows that have a copy, on the last split that has one of train; None: none has."""
    leaky = {each["split_a"] for each in measured["pairs"] if each["split_b"] == "train"}
    name = next((each for each in reversed(SPLITS) if each in leaky), None)
    if name is None:
        return None
    copied = {row for rows in measured["touched"][name].values() for row in rows}
    numbered = measured["info"]["splits"][name]
    return cost_of_copies(bench.case, name, copied, numbered, lambda: bench.make_trainer(bench.seed))


def _first(pairs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The most certain pairs of each kind and two splits: a verdict travels between processes and into files."""
    seen: Counter[tuple[str, str, str]] = Counter()
    kept = []
    for pair in pairs:
        key = pair["kind"], pair["split_a"], pair["split_b"]
        seen[key] += 1
        if seen[key] <= LISTED:
            kept.append(pair)
    return kept


def _placed(message: str, before: str = "") -> str:
    """Where the options that a message speaks of are written, in a case."""
    named = [name for name in OPTIONS if re.search(rf"\b{name}=", message)]
    if not named:
        return ""
    places = ", ".join(f"{name!r}: ..." for name in named)
    return f"{before}in a Case: options={{'split_duplicates': {{{places}}}}}"


def _ways_on(measured: Mapping[str, Any], found: Judgement) -> Iterator[Finding]:
    """What to do about a verdict that did not pass."""
    ordered = [name for name, each in measured["info"]["splits"].items() if each.get("ordered", True)]
    touched = [name for name in ordered if any(measured["touched"][name].values())]
    yield from _score_words(measured.get("score"))
    pair = next(iter(measured["pairs"]), None)
    if found.outcome == "failed" and touched:
        call = f"clean({touched[-1]!r})"
        yield Finding.note(f"rows to keep: Duplicates(verdict.data).{call}, or find_duplicates(...).{call}")
    if found.outcome == "failed" and pair is not None and pair["split_a"] in ordered:
        place = f"{pair['split_a']}:{pair['i']}"
        yield Finding.note(
            f"a copy that is meant: options={{'split_duplicates': {{'allow': {{{place!r}: 'the reason'}}}}}}"
        )
    hint = _placed(found.summary) if found.outcome == "inconclusive" else ""
    if hint:
        yield Finding.note(hint)


def _score_words(score: Any) -> Iterator[Finding]:
    if isinstance(score, str):
        yield Finding.note(f"score with and without the copies: not measured: {score}")
    elif score:
        whole, clean = thousandths(score["whole"]), thousandths(score["clean"])
        parts = f"{whole}, without the {score['rows']} rows that have a copy {clean}"
        text = f"{score['split']} {score['metric']} {parts}, on these {thousandths(score['copied'])}"
        text = f"{text} ({score['epochs']} epochs on train as it is, one seed)"
        yield Finding(name="score", value=score["whole"] - score["clean"], message=text)


PROBE = SplitDuplicates()
