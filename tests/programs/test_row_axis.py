"""Batches whose rows lie along another axis than the first, as the case declares: judged like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytest_overfit import Case, CaseError, Verdict, run_probes
from pytest_overfit.data.telling import batch_of
from tests.programs.helpers import adam, generator

Loss = Callable[[Any, Any, Any], Tensor]
ROWS, CLASSES, TIME, WORDS = 12, 3, 7, 20


def series(time: int = TIME, rows: int = ROWS, seed: int = 1) -> Tensor:
    return torch.randn(time, rows, 5, generator=generator(seed))


def kinds(*shape: int, classes: int = CLASSES) -> Tensor:
    return torch.randint(0, classes, shape, generator=generator(2))


LABELS = torch.arange(ROWS) % CLASSES
TOKENS = kinds(9, 10, classes=WORDS)


class Recurrent(nn.Module):
    """Takes time first; `blind`: of nothing but zeros, `mixed`: runs over the rows instead."""

    def __init__(self, cell: Any = nn.GRU, whole: bool = False, outputs: int = CLASSES, fault: str = "") -> None:
        super().__init__()
        self.cells, self.head = cell(5, 32), nn.Linear(32, outputs)
        self.whole, self.fault = whole, fault

    def forward(self, x: Tensor) -> Tensor:
        x = x * 0 if self.fault == "blind" else x.transpose(0, 1) if self.fault == "mixed" else x
        hidden = self.cells(x)[0]
        hidden = hidden.transpose(0, 1) if self.fault == "mixed" else hidden
        return self.head(hidden if self.whole else hidden[-1])  # type: ignore[no-any-return]


class Words(nn.Module):
    """The language model of a tutorial: (time, rows) of tokens in, flat answers out."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.words, self.cells, self.head = nn.Embedding(WORDS, 24), nn.LSTM(24, 48), nn.Linear(48, WORDS)
        self.fault = fault

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.cells(self.words(tokens * 0 if self.fault == "blind" else tokens))[0]
        return self.head(hidden).reshape(-1, WORDS)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """`nn.TransformerEncoder` without `batch_first`."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.into, self.head, self.fault = nn.Linear(5, 32), nn.Linear(32, CLASSES), fault
        self.places = nn.Parameter(0.3 * torch.randn(TIME, 1, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.into(x * 0 if self.fault else x) + self.places))  # type: ignore[no-any-return]


class Pictures(nn.Module):
    """Takes (channels, time, rows)."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.filters, self.head, self.fault = nn.Conv1d(4, 16, 3, padding=1), nn.Linear(16, CLASSES), fault

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(2, 0, 1) * (0 if self.fault else 1)
        return self.head(F.relu(self.filters(x)).mean(-1))  # type: ignore[no-any-return]


def whole(cell: Any = nn.GRU, outputs: int = CLASSES) -> Callable[[str], nn.Module]:
    return lambda fault: Recurrent(cell, True, outputs, fault)


def cross(model: Any, x: Any, y: Any) -> Tensor:
    return F.cross_entropy(model(x), y)


def flat(model: Any, x: Any, y: Any) -> Tensor:
    outputs = model(x)
    return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1))


def by_hand(model: Any, x: Any, y: Any) -> Tensor:
    return -model(x).log_softmax(-1).gather(-1, y[..., None]).mean()


def summed(model: Any, x: Any, y: Any) -> Tensor:
    return F.mse_loss(model(x)[..., 0], y)


def aligned(model: Any, x: Any, y: Any) -> Tensor:
    steps, length = torch.full((ROWS,), len(x)), torch.full((ROWS,), 3)
    return F.ctc_loss(model(x).log_softmax(-1), y, steps, length)


def stepping(loss_of: Loss) -> Callable[[Any, Any, Any], float]:
    def step(model: Any, x: Any, y: Any) -> float:
        optimizer = model.__dict__.setdefault("optimizer", torch.optim.Adam(model.parameters(), lr=1e-2))
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


#: model, loss, batch, and what is declared
PROGRAMS: dict[str, tuple[Callable[[str], nn.Module], Loss, Any, Any]] = {
    "a label a row": (lambda fault: Recurrent(fault=fault), cross, (series(), LABELS), 1),
    "a label a time step": (whole(nn.LSTM), flat, (series(), kinds(TIME, ROWS)), 1),
    "a label a time step, by hand": (whole(), by_hand, (series(), kinds(TIME, ROWS)), 1),
    "as many time steps as rows": (whole(), flat, (series(ROWS), kinds(ROWS, ROWS)), 1),
    "quantities": (whole(outputs=1), summed, (series(), series()[..., 0].cumsum(0)), 1),
    "one-hot labels, rows last": (
        lambda fault: Recurrent(fault=fault),
        lambda m, x, y: F.cross_entropy(m(x), y.T),
        (series(), F.one_hot(LABELS).float().T.contiguous()),
        1,
    ),
    "a language model": (Words, lambda m, x, y: F.cross_entropy(m(x), y.view(-1)), (TOKENS[:-1], TOKENS[1:]), 1),
    "a language model with flat targets": (Words, cross, (TOKENS[:-1], TOKENS[1:].reshape(-1)), {"x": 1}),
    "a whole batch": (
        Words,
        lambda m, b, _: F.cross_entropy(m(b["text"]), b["next"].view(-1)),
        {"text": TOKENS[:-1], "next": TOKENS[1:]},
        {"text": 1, "next": 1},
    ),
    "attention": (Attention, flat, (series(), kinds(TIME, ROWS)), 1),
    "connectionist classification": (
        lambda fault: Recurrent(nn.LSTM, True, CLASSES + 3, fault),
        aligned,
        (series(ROWS), 1 + kinds(ROWS, 3, classes=5)),
        {"x": 1},
    ),
    "rows last": (Pictures, cross, (torch.randn(4, 10, ROWS, generator=generator(7)), LABELS), -1),
}


def verdict(name: str, fault: str = "", probe: str = "overfit_batch", **more: Any) -> Verdict:
    make, loss_of, batch, axis = PROGRAMS[name]
    fields = {"step": stepping(loss_of), "batch": batch, "row_axis": axis, **more}
    case = Case(name="case", model=lambda: make(fault), **fields)
    return run_probes(case, [probe], **({"steps": 200} if probe == "overfit_batch" else {}))[0]


@pytest.mark.parametrize("name", PROGRAMS)
def test_healthy_passes_and_its_blind_twin_does_not(name: str) -> None:
    found = verdict(name)
    assert found.passed, found.summary
    assert found.data["rows"] == (10 if "language" in name or "whole" in name else ROWS)
    blind = verdict(name, "blind")
    assert not blind.passed
    assert blind.outcome == "failed" or "connectionist" in name, blind.summary


@pytest.mark.parametrize("name", ["a label a row", "a label a time step", "as many time steps as rows"])
def test_a_model_that_runs_over_its_rows_fails(name: str) -> None:
    found = verdict(name, "mixed")
    assert found.outcome == "failed", found.summary
    assert "rows are mixed up" in found.summary


def test_rows_that_are_declared_first_are_believed() -> None:
    """The same net, where the first axis holds the rows: it runs over them."""
    assert verdict("a label a time step", row_axis=0).outcome == "failed"


def test_without_a_step() -> None:
    loss = lambda outputs, y: F.cross_entropy(outputs.reshape(-1, CLASSES), y.reshape(-1))  # noqa: E731
    for fault, passes in {"": True, "mixed": False, "blind": False}.items():
        fields = {"loss": loss, "optimizer": adam(1e-2), "step": None}
        assert verdict("a label a time step", fault, **fields).passed is passes


def test_the_wiring_probe_replaces_rows_where_they_lie() -> None:
    loss = lambda outputs, y: F.cross_entropy(outputs.reshape(-1, CLASSES), y.reshape(-1))  # noqa: E731
    fields = {"loss": loss, "optimizer": adam(1e-2), "step": None, "probe": "wiring"}
    assert verdict("a label a time step", **fields).passed
    mixed = verdict("a label a time step", "mixed", **fields)
    assert [each.fault for each in mixed.diagnoses] == ["batch_mixing"]


def test_a_loop_of_no_known_framework() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 6))

    class Linear:
        def __init__(self) -> None:
            self.weights = weights * 0

        def predict(self, x: Any) -> Any:
            assert x.shape[0] == 4
            return (self.weights[:, :, None] * x).sum((0, 1))

    def step(model: Linear, x: Any, y: Any) -> float:
        error = model.predict(x) - y
        model.weights = model.weights - 0.02 * (x * error).sum(-1)
        return float((error**2).mean())

    x = np.random.default_rng(1).normal(size=(4, 6, 10))
    y = (weights[:, :, None] * x).sum((0, 1))
    found = run_probes(Case(name="case", model=Linear, step=step, batch=(x, y), row_axis=-1), ["overfit_batch"])[0]
    assert found.passed, found.summary
    assert found.data["rows"] == 10


def test_whole_splits_are_cut_along_that_axis() -> None:
    x, val = series(6, 200), series(6, 80, seed=2)
    y, val_y = ((each.sum((0, 2)) > 0).long() for each in (x, val))
    fields = {"loss": F.cross_entropy, "optimizer": adam(1e-2), "row_axis": 1, "model": lambda: Recurrent(outputs=2)}
    healthy = Case(name="case", train=(x, y), val=(val, val_y), **fields)
    for found in run_probes(healthy, ["early_accuracy", "split_duplicates"]):
        assert found.passed, found.summary
    shuffled = Case(name="case", train=(x, y[torch.randperm(200, generator=generator(5))]), val=(val, val_y), **fields)
    assert not run_probes(shuffled, ["early_accuracy"])[0].passed
    copied = Case(name="case", train=(x, y), val=(torch.cat([val, x[:, :9]], 1), torch.cat([val_y, y[:9]])), **fields)
    assert run_probes(copied, ["split_duplicates"])[0].outcome == "failed"


def test_the_user_gets_the_batch_as_it_was_given() -> None:
    case = Case(name="case", model=Recurrent, step=stepping(cross), batch=(series(), LABELS), row_axis=1)
    found = batch_of(case)
    assert found.rows == ROWS
    assert found.x.shape == (ROWS, TIME, 5)
    assert torch.equal(found.plain().x, series())
    assert found.plain().x.is_contiguous()
    assert torch.equal(found.blinded().plain().x, series()[:, :1].expand(TIME, ROWS, 5))
    assert torch.equal(found.inputs_of([3, 1]), series()[:, [3, 1]])


def test_targets_that_differ_along_the_second_axis_only_say_what_to_declare() -> None:
    """A label a row, written at each time step: rows that came first would all be alike."""
    batch = (series(), LABELS.expand(TIME, ROWS).contiguous())
    found = verdict("a label a time step", batch=batch, row_axis=None)
    assert found.outcome == "inconclusive"
    assert "declare row_axis=1" in found.summary
    assert verdict("a label a time step", batch=batch).passed
    assert "row_axis" not in verdict("a label a row", batch=(series(), LABELS * 0)).summary


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (True, "expected the number of an axis"),
        ("time", "expected the number of an axis"),
        ({"x": "1"}, "expected the number of an axis"),
        (5, "no array of the batch has that axis, got shapes (7, 12, 5), (12,)"),
        ({"inputs": 1}, "the batch has no part 'inputs'"),
        ({"y": 1}, "y has no axis 1, got shape (12,)"),
        ({"x": 0, "y": 0}, "expected as many rows in every part, got 7 and 12"),
    ],
)
def test_a_declaration_that_does_not_fit_is_an_error(given: Any, words: str) -> None:
    with pytest.raises(CaseError) as raised:
        verdict("a label a row", row_axis=given)
    assert words in str(raised.value)
    assert "row_axis" in str(raised.value)


def test_lengths_that_differ_name_the_declaration() -> None:
    fields = {"loss": F.cross_entropy, "optimizer": adam(), "step": None}
    with pytest.raises(CaseError, match="row_axis=1"):
        verdict("a label a row", row_axis=None, **fields)
    with pytest.raises(CaseError, match="of different length: 12 rows of x, 7 of y"):
        verdict("a label a row", row_axis=1, batch=(series(), LABELS[:7]), **fields)


# ------------------------------------------------------------ undeclared, beside a loss


def flat_outputs(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1))


def beside_a_loss(model: Callable[[], nn.Module], loss: Any, batch: Any, **declared: Any) -> Verdict:
    case = Case(name="case", model=model, loss=loss, optimizer=adam(1e-2), batch=batch, **declared)
    return run_probes(case, ["overfit_batch"])[0]


@pytest.mark.parametrize(
    ("model", "loss", "batch"),
    [
        (Recurrent, F.cross_entropy, (series(ROWS), LABELS)),
        (lambda: Recurrent(whole=True), flat_outputs, (series(), kinds(TIME, ROWS))),
        (Attention, flat_outputs, (series(), kinds(TIME, ROWS))),
        (
            lambda: Recurrent(whole=True, outputs=1),
            lambda outputs, y: F.mse_loss(outputs[..., 0], y),
            (series(), series()[..., 0].cumsum(0)),
        ),
    ],
)
def test_what_may_be_rows_along_the_second_axis_is_never_refuted(
    model: Callable[[], nn.Module], loss: Any, batch: Any
) -> None:
    """Undeclared, a net over time looks as one that mixes its rows does."""
    found = beside_a_loss(model, loss, batch)
    assert found.outcome == "inconclusive", found.summary
    assert "declare row_axis=1; if they come first, row_axis=0" in found.summary


@pytest.mark.parametrize("axis", [0, 1])
def test_the_declaration_decides_it(axis: int) -> None:
    found = beside_a_loss(lambda: Recurrent(whole=True), flat_outputs, (series(), kinds(TIME, ROWS)), row_axis=axis)
    assert found.outcome == ("passed" if axis else "failed"), found.summary


@pytest.mark.parametrize("forgotten", [True, False])
def test_a_forgotten_batch_first_is_refuted_where_each_row_has_one_label(forgotten: bool) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.head = nn.GRU(5, 32, batch_first=not forgotten), nn.Linear(32, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cells(x)[0][:, -1])  # type: ignore[no-any-return]

    found = beside_a_loss(Last, F.cross_entropy, (series().transpose(0, 1).contiguous(), LABELS))
    assert found.outcome == ("failed" if forgotten else "passed"), found.summary
