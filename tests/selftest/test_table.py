"""The table of a self-test, from plain values alone."""

from __future__ import annotations

import json
from typing import Any

from pytest_overfit import SelfTest
from pytest_overfit.selftest.table import of_columns


def said(mark: str, *names: str) -> dict[str, Any]:
    return {"mark": mark, "names": list(names), "first": f"line of {mark}"}


def column(probe: str, refused: str = "", **planted: dict[str, Any]) -> dict[str, Any]:
    return {
        "case": "net",
        "probe": probe,
        "refused": refused,
        "planted": planted,
        "not_planted": dict.fromkeys(["double_sigmoid", "missing_sigmoid"], "no yes and no"),
    }


def table() -> SelfTest:
    (found,) = of_columns(
        [
            column("wiring", lr_zero=said("named", "lr_zero"), dead_relu=said("missed"), split_leak=said("")),
            column("overfit_batch", lr_zero=said("caught"), dead_relu=said("missed"), split_leak=said("")),
            column("early", lr_zero=said("missed"), dead_relu=said("missed"), batch_mixing=said("caught", "zero_init")),
            column("other", refused="loss ratio 0.4"),
        ]
    )
    return found


def test_the_best_of_a_faults_probes_counts() -> None:
    found = table()
    assert {fault: found.mark(fault) for fault in found.answers} == {
        "lr_zero": "named",
        "dead_relu": "missed",
        "split_leak": "",
        "batch_mixing": "caught",
    }
    assert found.judged == ["lr_zero", "dead_relu", "batch_mixing"]  # nobody was asked about the leak
    assert found.missed == ["dead_relu"]
    assert found.caught == 2 / 3
    assert found.named == 1 / 3


def test_a_warning_with_the_right_name_is_as_good_as_a_refusal() -> None:
    (found,) = of_columns([column("wiring", lr_zero=said("warned", "lr_zero"), dead_relu=said("missed"))])
    assert (found.caught, found.named) == (0.5, 0.5)


def test_the_text_has_shares_a_line_a_fault_and_reasons() -> None:
    lines = str(table()).splitlines()
    assert lines[0] == "net: 3 faults planted, 2 caught (67%), 1 by name (33%); 2 could not be planted"
    assert lines[1].startswith(
        "  other refuses the case as it is, so that it tells nothing of planted faults: loss ratio"
    )
    cells = [line.split() for line in lines[2:6]]
    assert cells == [
        ["fault", "wiring", "overfit_batch", "early"],
        ["lr_zero", "named", "caught", "missed"],
        ["dead_relu", "missed", "missed", "missed"],
        ["batch_mixing", "-", "-", "caught"],
    ]
    assert len({line.index(cell) for line, cell in zip(lines[2:5], ("wiring", "named", "missed"), strict=True)}) == 1
    assert lines[6] == "  missed by every probe: dead_relu"
    assert lines[-2:] == ["  not planted:", "    double_sigmoid, missing_sigmoid: no yes and no"]


def test_a_table_of_nothing_has_a_line() -> None:
    (found,) = of_columns([column("wiring")])
    assert str(found).splitlines()[0] == "net: nothing was asked; 2 faults could not be planted"
    assert (found.caught, found.named) == (0.0, 0.0)


def test_the_plain_form_is_strict_json() -> None:
    form = json.loads(json.dumps(table().to_dict(), allow_nan=False))
    assert form["faults"]["batch_mixing"] == {"early": said("caught", "zero_init")}
    assert form["not_planted"] == dict.fromkeys(["double_sigmoid", "missing_sigmoid"], "no yes and no")
    assert form["refused"] == {"other": "loss ratio 0.4"}


def test_of_two_columns_of_one_probe_the_later_counts() -> None:
    first, second = column("wiring", lr_zero=said("missed")), column("wiring", lr_zero=said("named"))
    (found,) = of_columns([first, second])
    assert found.probes == ("wiring",)
    assert found.mark("lr_zero") == "named"
