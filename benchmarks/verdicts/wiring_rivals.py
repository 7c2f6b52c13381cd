"""Parts cut off, mixed or stepped wrongly: what `wiring`, torchtest2 and pytest-torch say of the same programs.

    pip install -c constraints.txt -e '.[test]' pytest-torch torchtest2
    OMP_NUM_THREADS=1 python -m benchmarks.verdicts.wiring_rivals         # written without a look at the rules
    OMP_NUM_THREADS=1 python -m benchmarks.verdicts.wiring_rivals --all   # and those that `wiring` was made with

A tool that is not installed is left out. How each rival is asked, by default and as its documentation shows:

*torchtest2*: `check_model` with the case's loss, optimizer and frozen parts. A step of the user's own cannot be
given: the model is checked without a loss then.
*pytest-torch*: `check_inference_contract`, `assert_gradients_finite`, `assert_all_params_receive_grad`,
`assert_frozen`, `assert_overfits_one_batch` with the case's optimizer, `assert_mask_invariant` where an input is called
a mask, and `run_training(...).assert_healthy()`; of a step of the user's own the first and the last one, with the
optimizers that it makes.

*Named*: a check that failed or warned asks about this very fault, by a table that gives each check all it may mean.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.machine import machine
from tests.programs.wiring import test_wiring_torch as programs
from tests.programs.wiring.corpus import Corpus, Fields, Wired, said

_NO_GRADIENT = {"cut_gradient", "detached_graph", "non_differentiable", "head_without_loss", "unused_parameters"}
_FINITE = {"nan_parameter", "log_of_zero", "division_by_zero", "sqrt_zero_gradient"}
_START = {"over_confident_start", "too_large_init"}
_ROWS = {"batch_mixing", "softmax_wrong_axis"}
_STILL = {"lr_zero", "lr_too_low", "update_skipped"}
_MEMBERS = {"optimizer_wrong_params", "parameter_twice", "unregistered_parameters"}

#: names of the fault vocabulary that a rival's check may mean
TORCHTEST2 = {
    "gradient_flow": _NO_GRADIENT,
    "gradient_magnitude": _START,
    "optimizer_coverage": _MEMBERS,
    "params_change": _STILL,
    "frozen_params": {"not_frozen"},
    "input_dependency": {"input_unused", "input_ignored", "mask_ignored", "softmax_single_unit"},
    "output_varies": {"input_ignored", "softmax_single_unit"},
    "batch_independence": _ROWS,
    "output_finite": _FINITE,
    "loss": _FINITE,
    "initial_loss": _START,
    "eval_determinism": {"random_in_eval"},
}
PYTEST_TORCH = {
    "gradients_finite": _FINITE,
    "receive_grad": _NO_GRADIENT,
    "frozen": {"not_frozen"},
    "batch_invariance": _ROWS,
    "finite_outputs": _FINITE,
    "no_state_mutation": {"state_carried"},
    "mask_invariant": {"mask_ignored"},
    "coverage": _MEMBERS,
    "finite": _FINITE,
    "skipped": _STILL,
}


@dataclasses.dataclass(frozen=True)
class Answer:
    refused: bool
    warned: bool
    names: frozenset[str]


def ours(fields: Fields) -> Answer:
    found = said(fields)
    return Answer(found.outcome != "passed", bool(found.warnings), frozenset(found.names))


# ------------------------------------------------------------------------------------------------- torchtest2


def torchtest2(fields: Fields) -> Answer:
    import torchtest2 as rival

    model, (x, y) = _model(fields), fields["batch"]()
    optimizer = fields["optimizer"](model.parameters()) if "optimizer" in fields else None
    frozen = [each.removesuffix("*").rstrip(".") for each in fields.get("frozen", ())]
    report = rival.check_model(model, x, y, loss_fn=fields.get("loss"), optimizer=optimizer, frozen=frozen)
    by = {word: {each.name for each in report.results if each.status.name == word} for word in ("FAIL", "WARN")}
    names = [TORCHTEST2.get(each, set()) for each in by["FAIL"] | by["WARN"]]
    return Answer(bool(by["FAIL"]), bool(by["WARN"]), frozenset().union(*names))


def _model(fields: Fields) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = fields["model"]()
    return model


# ------------------------------------------------------------------------------------------------ pytest-torch


def pytest_torch(fields: Fields) -> Answer:
    failed = set()
    for name, ask in _assertions(fields):
        try:
            ask()
        except AssertionError as error:
            failed.add(name or _part_of_health(str(error)))
        except Exception:  # a loop or a batch that it cannot take
            continue
    return Answer(bool(failed), False, frozenset().union(*(PYTEST_TORCH.get(each, set()) for each in failed)))


def _part_of_health(message: str) -> str:
    return "coverage" if message.startswith("Optimizer coverage") else "skipped" if "skip" in message else "finite"


def _assertions(fields: Fields) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each with the name of what it asks; "" where the message says it."""
    import pytest_torch as rival
    from pytest_torch import contract, training, training_loop

    x, y = fields["batch"]()
    model = lambda: _model(fields)  # noqa: E731
    for check in ("finite_outputs", "deterministic", "batch_invariance", "no_state_mutation"):
        yield check, lambda check=check: contract.check_inference_contract(model().eval(), x, checks=[check])
    keys = {("mask" if "mask" in each else "ids") + "_key": each for each in x} if isinstance(x, dict) else {}
    if len(keys) == 2:
        yield "mask_invariant", lambda: rival.assert_mask_invariant(model().eval(), x, **keys)
    if "step" in fields:
        step = lambda setup, batch: fields["step"](setup.model, *batch)  # noqa: E731
        yield (
            "",
            lambda: training_loop.run_training(lambda: _with_its_optimizers(fields), (x, y), step).assert_healthy(),
        )
        return
    loss = lambda outputs: fields["loss"](outputs, y)  # noqa: E731
    of_model = lambda net, batch: fields["loss"](_called(net, batch[0]), batch[1])  # noqa: E731
    setup = lambda: (net := model(), fields["optimizer"](net.parameters()))  # noqa: E731
    yield "gradients_finite", lambda: training.assert_gradients_finite(model(), x, loss)
    yield "receive_grad", lambda: training.assert_all_params_receive_grad(model(), x, loss)
    if fields.get("frozen"):
        optimizer = fields["optimizer"]
        yield "frozen", lambda: training.assert_frozen(model(), x, loss, fields["frozen"], optimizer=optimizer)
    yield "overfit", lambda: training.assert_overfits_one_batch(model(), x, loss, optimizer=fields["optimizer"])
    yield "", lambda: training_loop.run_training(setup, (x, y), loss_fn=of_model).assert_healthy()


def _called(net: torch.nn.Module, x: Any) -> Any:
    return net(**x) if isinstance(x, dict) else net(*x) if isinstance(x, tuple) else net(x)


def _with_its_optimizers(fields: Fields) -> Any:
    """The model, and the optimizers that a first call of the step was seen to use."""
    from pytest_torch import training_loop

    model, found = _model(fields), {}
    with contextlib.closing(_Removed(register_optimizer_step_post_hook(lambda o, *_: found.setdefault(id(o), o)))):
        for _ in range(8):
            fields["step"](model, *fields["batch"]())
    return training_loop.TrainingSetup(model=model, optimizers=list(found.values()))


@dataclasses.dataclass
class _Removed:
    handle: Any

    def close(self) -> None:
        self.handle.remove()


# ------------------------------------------------------------------------------------------------------- table


@dataclasses.dataclass
class Tally:
    """What one tool said, counted."""

    faults: int = 0
    refused: int = 0
    seen: int = 0
    named: int = 0
    healthy: int = 0
    false_refused: int = 0
    false_seen: int = 0
    unanswered: int = 0
    seconds: float = 0.0

    def count(self, wired: Wired, broken: bool, answer: Answer | None) -> None:
        self.unanswered += answer is None
        answer = answer or Answer(False, False, frozenset())
        seen = answer.refused or answer.warned
        if broken:
            self.faults, self.refused, self.seen = self.faults + 1, self.refused + answer.refused, self.seen + seen
            self.named += seen and bool(answer.names & set(wired.names))
        else:
            self.healthy, self.false_refused = self.healthy + 1, self.false_refused + answer.refused
            self.false_seen += seen


TOOLS: dict[str, tuple[str, Callable[[Fields], Answer]]] = {
    "pytest-overfit, `wiring`": ("pytest_overfit", ours),
    "torchtest2, `check_model`": ("torchtest2", torchtest2),
    "pytest-torch": ("pytest_torch", pytest_torch),
}


def asked(corpus: Corpus, only: Iterable[str]) -> dict[str, Tally]:
    """Every program, each tool in turn."""
    installed = {name: ask for name, (module, ask) in TOOLS.items() if importlib.util.find_spec(module)}
    tallies = {name: Tally() for name in installed}
    for program, wired in corpus.items():
        if only and not any(part in program for part in only):
            continue
        for broken in (True, False) if wired.names else (False,):
            for name, ask in installed.items():
                start = time.perf_counter()
                answer = answer_of(ask, wired.make(broken))
                tallies[name].seconds += time.perf_counter() - start
                tallies[name].count(wired, broken, answer)
    return tallies


def answer_of(ask: Callable[[Fields], Answer], fields: Fields) -> Answer | None:
    """None: the tool cannot take the program, and says nothing of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ask(fields)
    except Exception:
        return None


def table(tallies: dict[str, Tally]) -> str:
    first = next(iter(tallies.values()))
    columns = (
        "tool",
        f"of {first.faults} faults refused",
        "refused or warned",
        "reason named",
        f"of {first.healthy} healthy refused",
        "refused or warned",
        "without an answer",
        "time, as a multiple of ours",
    )
    lines = [f"| {' | '.join(columns)} |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, each in tallies.items():
        numbers = (each.refused, each.seen, each.named, each.false_refused, each.false_seen, each.unanswered)
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} | {each.seconds / first.seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="also the programs that `wiring` was made with")
    parser.add_argument("--only", nargs="+", default=[], help="parts of names")
    arguments = parser.parse_args()
    missing = [name for name, (module, _) in TOOLS.items() if not importlib.util.find_spec(module)]
    if missing:
        print(f"left out, not installed: {', '.join(missing)}; pip install pytest-torch torchtest2\n")
    corpus = Corpus.of([programs.UNSEEN, *([programs.PROGRAMS] if arguments.all else [])])
    print(machine(), "\n")
    print(table(asked(corpus, arguments.only)))


if __name__ == "__main__":
    main()
