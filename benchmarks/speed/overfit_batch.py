"""Time to an answer on "can this model memorise one batch?": by hand, by this plugin, by others.

    pip install -c constraints.txt -e '.[examples]' lightning pytest-torch torchtest2
    OMP_NUM_THREADS=1 python -m benchmarks.speed.overfit_batch              # everything: about 15 minutes
    python -m benchmarks.speed.overfit_batch --only digits                  # programs whose name contains this
    python -m benchmarks.speed.overfit_batch --only one_small_layer --pairs 5
    python -m benchmarks.speed.overfit_batch --cache pairs.jsonl --seconds 240     # in parts: run it again for the rest

Torch programs: an MLP and a CNN on 32 digits, Adam 1e-3, each triple from another random start. *Bare loop*: the
training loop by hand, which makes as many steps as our verdict took from that start. *Steps only*: our learner and the
bare loop, both built before the clock starts, on the same 500 steps; this is what the learner adds to a step. Lightning
trains as many steps as our verdict took. The rivals are timed against our verdict, in their default form and once more
with the program's own optimizer and as many steps as ours may take. Both programs come once more with Adam 1e-2.

Keras programs: four rows, 500 updates, as a tutorial has them. A new model from a new factory each time, tracing
included. Our verdict is the baseline here, so that a ratio is how many times sooner it is there.

Every contender runs in this process, in turn with its baseline: see `pairs.py`. What the rivals answer about healthy
and broken programs is measured by `benchmarks.verdicts.rivals`.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import machine
from benchmarks.speed import pairs
from benchmarks.speed.pairs import Contender, Prepare, whole

#: torch: our steps over the same steps by hand; Keras: `fit(epochs=500)` over our verdict
AT_MOST, AT_LEAST = 1.05, 15.0


OURS, STEPS = "**ours, whole verdict**", "**ours, 500 steps only**"


def _verdict(verdict: Any) -> str:
    return f"{verdict.outcome}, {verdict.steps} steps"


# ------------------------------------------------------------------------------------------------- torch


def torch_contenders(program: Any) -> list[Contender]:
    from benchmarks.verdicts import rivals

    @functools.cache
    def steps_from(seed: int) -> int:
        rivals.start_at(seed)
        return int(rivals.ours(program).steps)

    def by_hand(work: Callable[..., Any], *steps: int) -> Prepare:
        """Work that makes as many steps as our verdict took, which is found out before the clock starts."""
        return lambda: partial(work, program, *(steps or [steps_from(rivals.SEED)]))

    ours, bare = whole(partial(rivals.ours, program)), by_hand(rivals.bare_loop)

    def against_bare(name: str, run: Prepare, says: Callable[[Any], str] = lambda _: "-") -> Contender:
        return Contender(name=name, run=run, baseline=bare, against="bare loop, as many steps", says=says)

    def against_ours(name: str, ask: Callable[[Any], str]) -> Contender:
        return Contender(
            name=name, run=whole(partial(ask, program)), baseline=ours, against="ours, whole verdict", says=str
        )

    return [
        against_bare("bare loop, as many steps", bare),
        against_bare(OURS, ours, _verdict),
        Contender(
            name=STEPS,
            run=our_steps(program, 500),
            baseline=bare_steps(program, 500),
            against="bare loop, 500 steps only",
        ),
        against_bare("bare loop, 500 steps", by_hand(rivals.bare_loop, 500)),
        against_bare("Lightning `overfit_batches=1`, same steps", by_hand(rivals.lightning)),
        against_ours("pytest-torch, default (own Adam 1e-2)", rivals.pytest_torch),
        against_ours("pytest-torch, same optimizer", rivals.pytest_torch_with_the_optimizer),
        against_ours("torchtest2 `check_model`, default", rivals.torchtest2),
        against_ours("torchtest2, `overfit_batch` alone", rivals.torchtest2_overfit_batch),
    ]


def bare_steps(program: Any, steps: int) -> Prepare:
    from benchmarks.verdicts import rivals

    def prepare() -> Callable[[], Any]:
        model, optimizer = rivals.bare_build(program)
        return lambda: rivals.bare_steps(model, optimizer, program, steps)

    return prepare


def our_steps(program: Any, steps: int) -> Prepare:
    from benchmarks.verdicts import rivals

    def prepare() -> Callable[[], Any]:
        learner = rivals.learner_of(rivals.case_of(program))
        return lambda: learner.train(steps) and None

    return prepare


# ------------------------------------------------------------------------------------------------- Keras


def keras_contenders(name: str) -> list[Contender]:
    import keras

    from benchmarks.speed import programs_keras as programs

    def fresh(work: Callable[[], Any]) -> Prepare:
        def prepare() -> Callable[[], Any]:
            keras.utils.clear_session()
            return work

        return prepare

    baseline = fresh(partial(programs.ours, name))

    def against_ours(title: str, work: Callable[[], Any], says: Callable[[Any], str]) -> Contender:
        return Contender(name=title, run=fresh(work), baseline=baseline, against="ours, whole verdict", says=says)

    return [
        against_ours(OURS, partial(programs.ours, name), _verdict),
        against_ours("`model.fit(epochs=500)`", partial(programs.fit, name), "loss {:.3f}".format),
        against_ours("`train_on_batch` 500 times", partial(programs.train_on_batch, name), "loss {:.3f}".format),
    ]


# ------------------------------------------------------------------------------------------------- targets


def targets(title: str, timings: list[pairs.Timing]) -> list[str]:
    """The numbers that were set as targets, met or missed."""
    lines = []
    by_name = {each.contender.name: each for each in timings}
    steps, fit = by_name.get(STEPS), by_name.get("`model.fit(epochs=500)`")
    if steps is not None:
        spread = max(steps.twins[1] - 1, 1 - steps.twins[0], 0)
        met = steps.ratio <= AT_MOST + spread
        lines.append(f"{title}: steps {steps.ratio:.3f}x the bare loop, target at most {AT_MOST} beyond its A/A spread")
        lines[-1] += f" of {spread:.3f}: {'met' if met else 'MISSED'}"
    for name, each in by_name.items():
        if name.startswith(("pytest-torch", "torchtest2")):
            lines.append(f"{title}: {name} takes {each.ratio:.3f} times as long as our verdict, target above 1: ")
            lines[-1] += "met" if each.ratio > 1 else "MISSED"
    if fit is not None:
        met = fit.ratio >= AT_LEAST
        lines.append(f"{title}: `fit` takes {fit.ratio:.1f} times as long as our verdict, target at least {AT_LEAST:g}")
        lines[-1] += f": {'met' if met else 'MISSED'}"
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a part of a program's name")
    parser.add_argument("--pairs", type=int, default=pairs.PAIRS, help="timed triples of each contender")
    parser.add_argument("--cache", type=Path, help="JSON lines, one a triple; triples in it are not timed again")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no triple after this many seconds")
    arguments = parser.parse_args()
    store, until = pairs.Store(arguments.cache), time.perf_counter() + arguments.seconds
    print(machine(), "\n", flush=True)
    lines: list[str] = []

    def timed(title: str, contenders: list[Contender], start_at: Callable[[int], None] = lambda seed: None) -> None:
        timings = pairs.measure(title, contenders, arguments.pairs, store, until, start_at)
        lines.extend(targets(title, timings))
        print(pairs.table(title, timings), "\n", flush=True)

    for program in _torch_programs():
        if arguments.only in program.name:
            timed(program.name, torch_contenders(program), _start_at)
    for name in ("one_small_layer", "three_layers", "three_layers_sgd"):
        if arguments.only in name:
            timed(f"Keras, {name}", keras_contenders(name))
    print("\n".join(lines))


def _start_at(seed: int) -> None:
    from benchmarks.verdicts import rivals

    rivals.start_at(seed)


def _torch_programs() -> tuple[Any, ...]:
    from benchmarks.verdicts import programs

    return *programs.TORCH, *programs.QUICK


if __name__ == "__main__":
    main()
