"""Real healthy architectures: is any of them refuted, and what does the answer cost?

    pip install -c constraints.txt -e '.[examples]' timm transformers torchvision
    OMP_NUM_THREADS=2 python -m benchmarks.verdicts.zoo --cache zoo.jsonl            # all of them: about 25 minutes
    OMP_NUM_THREADS=2 python -m benchmarks.verdicts.zoo --cache zoo.jsonl --torch    # or --keras
    OMP_NUM_THREADS=2 python -m benchmarks.verdicts.zoo --cache zoo.jsonl --only timm.mobile
    python -m benchmarks.verdicts.zoo --cache zoo.jsonl --table                      # what is cached; nothing is run

Each row is a model of a real library or tutorial with the optimizer, the loss and the kind of input that its own
configuration or tutorial has, untrained, under the default limits. All are healthy: a `failed` is a false alarm, and an
`inconclusive` needs a reason that its author would accept.

*Ours*: `run_probes`, from building the model to the verdict. *Bare loop*: the model built once, and as many steps by
hand as the verdict took; for Keras, `train_on_batch` as often. Both in this process, after two steps of warming up.
Rows of less than two seconds are timed three times in turn, and the medians taken. `A/A` is the bare loop's slowest
time over its fastest in such a row.

Rows in the cache are not run again, so that a run can be stopped and resumed, or made in parts.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.machine import machine

if TYPE_CHECKING:
    from benchmarks.verdicts.zoo_models.base import Architecture

#: seconds; quicker rows are timed `REPEATS` times
QUICK = 2.0
REPEATS = 3
#: the targets
MOST_INCONCLUSIVE, SLOWEST = 2, 3.0


def torch_architectures() -> Iterator[Architecture]:
    from benchmarks.verdicts import torchvision_import
    from benchmarks.verdicts.zoo_models import language, signals, text, tutorials, vision

    torchvision_import.declare_operators()
    for module in (tutorials, text, signals, language, vision):
        yield from module.architectures()


def keras_architectures() -> Iterator[Architecture]:
    from benchmarks.verdicts.zoo_models import keras_models

    yield from keras_models.architectures()


# ------------------------------------------------------------------------------------------------- by hand


def bare_torch(row: Architecture, steps: int) -> list[float]:
    """Build once, make the steps, return the losses."""
    import torch

    torch.manual_seed(0)
    x, y = row.batch()
    model = row.model().train()
    if row.step is not None:
        return [float(row.step(model, x, y).detach()) for _ in range(steps)]
    optimizer = row.optimizer(model.parameters()) if row.optimizer else None
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = model(**x) if isinstance(x, dict) else model(*x) if isinstance(x, tuple) else model(x)
        loss = outputs.loss if row.loss is None else row.loss(outputs, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist() if losses else []


def bare_keras(row: Architecture, steps: int) -> list[float]:
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    x, y = row.batch()
    model = row.model()
    losses = [model.train_on_batch(x, y) for _ in range(steps)]
    return [float(each[0] if isinstance(each, (list, tuple)) else each) for each in losses]


# ------------------------------------------------------------------------------------------------- one row


def warm_up(row: Architecture) -> None:
    """The first call of each framework loads libraries, which is not timed."""
    from pytest_overfit import run_probes

    run_probes(row.case(), ["overfit_batch"], steps=5)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.perf_counter()
    answer = work()
    return time.perf_counter() - start, answer


def one_row(row: Architecture) -> dict[str, Any]:
    """Verdict and times of one architecture; an exception is a row too."""
    try:
        return _one_row(row)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return {"name": row.name, "outcome": "error", "reason": f"{type(error).__name__}: {error}"[:300]}


def _one_row(row: Architecture) -> dict[str, Any]:
    from pytest_overfit import run_probes

    bare = bare_keras if row.keras else bare_torch
    bare(row, 2)
    case = row.case()
    ask = lambda: run_probes(case, ["overfit_batch"])[0]  # noqa: E731
    seconds, verdict = timed(ask)
    steps = verdict.steps
    ours, hand = [seconds], [timed(lambda: bare(row, steps))[0]]
    while seconds < QUICK and len(ours) < REPEATS:
        ours.append(timed(ask)[0])
        hand.append(timed(lambda: bare(row, steps))[0])
    return {
        "name": row.name,
        "outcome": verdict.outcome,
        "steps": steps,
        "ours": statistics.median(ours),
        "bare": statistics.median(hand),
        "twins": max(hand) / min(hand),
        "times": len(hand),
        "reason": verdict.summary,
        "findings": [
            f"{each.name}: {each.message}" for each in verdict.findings if each.outcome not in ("passed", "note")
        ],
    }


# ------------------------------------------------------------------------------------------------- table


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row an architecture, then what did not pass and why, then the summary."""
    lines = [
        "| architecture | outcome | steps | ours s | bare loop s | ratio | A/A |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [f"| {each['name']} | {each['outcome']} | {_numbers(each)} |" for each in rows]
    others = [each for each in rows if each["outcome"] != "passed"]
    lines += ["", "Not passed:", ""] if others else ["", "All passed."]
    lines += [f"- {each['name']}: {each['outcome']}: {each['reason']}" for each in others]
    return "\n".join([*lines, "", summary(rows)])


def _numbers(row: dict[str, Any]) -> str:
    if "ours" not in row:
        return "- | - | - | - | -"
    twins = f"{row['twins']:.2f}" if row["times"] > 1 else "-"
    return f"{row['steps']} | {row['ours']:.2f} | {row['bare']:.2f} | {row['ours'] / row['bare']:.2f} | {twins}"


def summary(rows: list[dict[str, Any]]) -> str:
    count = {outcome: sum(each["outcome"] == outcome for each in rows) for outcome in ("passed", "failed")}
    unsure, wrong = (sum(each["outcome"] == word for each in rows) for word in ("inconclusive", "error"))
    ratios = {each["name"]: each["ours"] / each["bare"] for each in rows if "ours" in each}
    if not ratios:
        return "Nothing was timed."
    worst = max(ratios, key=lambda name: ratios[name])
    good = not count["failed"] and not wrong and unsure <= MOST_INCONCLUSIVE and ratios[worst] <= SLOWEST
    return (
        f"**{len(rows)} architectures: {count['passed']} passed, {count['failed']} failed, {unsure} inconclusive, "
        f"{wrong} errors; ratio to the bare loop: median {statistics.median(ratios.values()):.2f}, "
        f"{sum(each <= 1.5 for each in ratios.values())} at most 1.5, worst {ratios[worst]:.2f} ({worst}).** "
        f"Targets: no failed, at most {MOST_INCONCLUSIVE} inconclusive, none above {SLOWEST:g}: "
        f"{'met' if good else 'MISSED'}."
    )


def cached(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {each["name"]: each for each in rows}


def wanted(arguments: argparse.Namespace) -> Iterator[Architecture]:
    chosen = []
    if arguments.torch or not arguments.keras:
        chosen.append(torch_architectures())
    if arguments.keras or not arguments.torch:
        chosen.append(keras_architectures())
    for each in itertools.chain(*chosen):
        if any(part in each.name for part in arguments.only):
            yield each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of names")
    parser.add_argument("--torch", action="store_true", help="PyTorch only")
    parser.add_argument("--keras", action="store_true", help="Keras only")
    parser.add_argument("--cache", type=Path, help="JSON lines, one a row; rows in it are not run again")
    parser.add_argument("--table", action="store_true", help="print what the cache holds and stop")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no row after this many seconds")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = cached(arguments.cache)
    start = time.perf_counter()
    warm: set[bool] = set()
    for each in () if arguments.table else wanted(arguments):
        if each.name in rows:
            continue
        if time.perf_counter() - start > arguments.seconds:
            print("out of time: run the same command again for the rest", file=sys.stderr)
            break
        if each.keras not in warm:
            warm.add(each.keras)
            warm_up(each)
        row = rows[each.name] = one_row(each)
        print(f"{each.name:52} {row['outcome']:12} {_numbers(row)} {row['reason'][:90]}", file=sys.stderr, flush=True)
        if arguments.cache is not None:
            with arguments.cache.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(machine(), "\n")
    print(table(list(rows.values())))


if __name__ == "__main__":
    main()
