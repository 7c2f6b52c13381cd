"""Split duplicates: is the test set really unseen? `find_duplicates` and what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.core.foreign import brief, describe
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Judgement, to_plain
from pytest_overfit.duplicates.judgement import SplitDuplicatesLimits, judge_duplicates
from pytest_overfit.duplicates.request import Request
from pytest_overfit.duplicates.search import measure_duplicates
from pytest_overfit.report.progress import shown

SPLITS = ("train", "val", "test")


def find_duplicates(
    *,
    train: Any = None,
    val: Any = None,
    test: Any = None,
    label: Any = None,
    group: Any = None,
    time: Any = None,
    gap: Any = 0,
    key: Any = None,
    features: Any = None,
    near: str | bool = "auto",
    windows: str | bool = "auto",
    text: str = "exact",
    max_rate: float = 0.0,
    allow: Any = (),
    executor: Any = None,
    max_samples: int | None = None,
    batched: bool | None = None,
    seed: int = 0,
) -> Duplicates:
    """Copies between and within the splits: exact, near, in overlapping windows, through groups, against time.

    `train`, `val`, `test`: any container, or a function that returns one. `label`, `group`, `time`: a column's or
    key's name, a function of a sample, or a dict with one array a split. `key`: what a sample is recognised by, a
    function of a sample or names of columns; default: the whole input. `features`: a dict with one array of embeddings
    a split, for near-copies. `near`, `windows`: "auto", or False to leave them out. `text="normalized"` folds Unicode
    form, case and white space. `allow`: `{"test:17": "reason"}`, or a copy's fingerprint instead of its place.
    `executor`: anything with `.map`, as of `concurrent.futures` or Dask's `Client.get_executor()`: the largest split is
    read in parts, in other threads, processes or machines (docs/scale.md); the answer is the same.

    On a terminal a line on standard error tells how far it is, once it has lasted two seconds.

    Raises `CaseError` for data that cannot be compared. Cost, in memory: about three reads of the data.
    """
    given = {name: each for name, each in zip(SPLITS, (train, val, test), strict=True) if each is not None}
    if len(given) < 2:
        raise CaseError(
            f"find_duplicates got {next(iter(given), 'no split')}{'= alone' if given else ''}; expected two splits or "
            "more; write find_duplicates(train=..., test=...)"
        )
    if not isinstance(max_rate, (int, float)) or isinstance(max_rate, bool) or not 0 <= max_rate < 1:
        raise CaseError(f"max_rate: expected a number of 0 or more and below 1, got {brief(max_rate)}")
    with shown("find_duplicates") as progress:
        request = Request(
            given=given, label=label, group=group, time=time, gap=gap, key=key, features=features, near=near,
            windows=windows, text=text, allow=allow, executor=executor, max_samples=max_samples, batched=batched,
            seed=seed, progress=progress,
        )  # fmt: skip
        return Duplicates(measure_duplicates(request), float(max_rate))


class Duplicates:
    """What `find_duplicates` found. Made of plain values: `Duplicates(verdict.data)` reads a probe's verdict."""

    def __init__(self, measured: Mapping[str, Any], max_rate: float = 0.0) -> None:
        self.measured, self.max_rate = measured, max_rate

    @property
    def judgement(self) -> Judgement:
        """Outcome, summary and findings under the default limits and `max_rate`."""
        limits = SplitDuplicatesLimits(max_rate=self.max_rate)
        return judge_duplicates(self.measured, Resolved(limits, {"max_rate": "call"} if self.max_rate else {}))

    @property
    def outcome(self) -> str:
        return self.judgement.outcome

    @property
    def ok(self) -> bool:
        """True if the splits are clean, and that can be believed."""
        return self.outcome == "passed"

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """One entry for each row of a later split with a copy in an earlier one, the most certain first.

        Keys: kind, split_a, i, split_b, j, label_a, label_b, copies, p, fingerprint.
        """
        return list(self.measured["pairs"])

    @property
    def rates(self) -> dict[str, float]:
        """Share of rows with a copy elsewhere, e.g. `{"test in train": 0.02}`."""
        return {f"{each['of']} in {each['in']}": each["rate"] for each in self.measured["across"]}

    @property
    def rate(self) -> float:
        """The highest of `rates`."""
        return max(self.rates.values(), default=0.0)

    @property
    def expected_rate(self) -> float:
        """Share of the first split's rows that have another copy in the same split: how much the data repeat."""
        return float(self.measured["expected_rate"])

    @property
    def conflicts(self) -> list[dict[str, Any]]:
        """Pairs of the same input with another label."""
        return list(self.measured["conflicts"])

    @property
    def within(self) -> dict[str, dict[str, Any]]:
        """Repeats within each split: rows, rate, groups, conflicts."""
        return dict(self.measured["within"])

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Groups that occur in two splits."""
        return list(self.measured["groups"])

    @property
    def time(self) -> list[dict[str, Any]]:
        """Rows that are not later than what was learnt from."""
        return list(self.measured["time"])

    @property
    def windows(self) -> list[dict[str, Any]]:
        """Windows that overlap windows of another split."""
        return list(self.measured["windows"])

    @property
    def near(self) -> list[dict[str, Any]]:
        """What the search for near-copies did: testable or why not, rows found, share."""
        return list(self.measured["near"])

    @property
    def info(self) -> dict[str, Any]:
        """How each split was read, differences, notes, doubts, seconds."""
        return dict(self.measured["info"])

    def clean(self, split: str, near: bool = True) -> list[int]:
        """Places of the rows of a split to keep: those without a copy in any other split.

        Rows on the allow-list stay. `near=False` leaves near-copies and overlapping windows in. Raises `CaseError` for
        rows to drop from a split that comes in another order at each reading, where places mean nothing.
        """
        known = self.measured["touched"]
        if split not in known:
            raise CaseError(f"clean({brief(split)}): there is no such split{did_you_mean(split, known)}")
        kinds = ("exact", "near", "window") if near else ("exact",)
        bad = {row for kind in kinds for row in known[split].get(kind, ())}
        if bad and not self.measured["info"]["splits"][split].get("ordered", True):
            raise CaseError(
                f"clean({brief(split)}): {split} comes in another order at each reading, so places mean nothing; "
                "give the "
                "data as they are before they are shuffled"
            )
        return [row for row in range(self.measured["info"]["splits"][split]["samples"]) if row not in bad]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values, with outcome and summary."""
        judgement = self.judgement
        plain = to_plain({"outcome": judgement.outcome, "summary": judgement.summary, **self.measured})
        if not isinstance(plain, dict):  # pragma: no cover
            raise TypeError(f"the plain form is a dict, not {describe(plain)}")
        return plain

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    def __str__(self) -> str:
        judgement = self.judgement
        lines = [f"{judgement.outcome}: {judgement.summary}"]
        marks = {"passed": "ok", "failed": "FAIL", "inconclusive": "?", "warning": "warn", "note": ""}
        shown = [
            (marks[each.outcome], "" if each.name == "fact" else f"{each.name}: ", each) for each in judgement.findings
        ]
        lines += [f"  {mark:5}{name}{each.message}" for mark, name, each in shown]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """For notebooks: the text, and pictures of the first pairs where the samples are images."""
        from pytest_overfit.report.pictures import pictures_html

        return f"<pre>{escape(str(self))}</pre>{pictures_html(self.measured.get('pictures', ()))}"

    def __repr__(self) -> str:
        return f"Duplicates({self.judgement.outcome}: {self.judgement.summary})"
