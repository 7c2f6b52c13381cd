"""Exact copies between splits: the time over that of a plain read of the data, ours and other tools'.

    python -m benchmarks.speed.duplicates --rounds 9 --deepchecks-python PATH
    python -m benchmarks.speed.duplicates --only "table, a tenth"

Every tool gets the same arrays and runs in a process of its own on one thread (duckdb and polars too), which also reads
both arrays, `x.sum()`: 18 to 20 GB a second here, what the memory gives one core; a copy takes as long again for
writing. `x read` is the time over that of a read, the minimum of some rounds each; `A/A` is the same for a second read,
made after the tool ran. Memory is the growth of the highest resident size.
`find_duplicates` is the whole answer (copies across and within, labels, checks), `overlap` the search across alone.
deepchecks wants older pandas and numpy: `--deepchecks-python PATH` names an interpreter that has it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def images(order: str = "C") -> tuple[Any, Any]:
    """60,000 x 784 float32, 84 % zeros, 500 copies among 10,000."""
    random = np.random.default_rng(0)
    train = np.empty((60_000, 784), "f4")
    test = np.empty((10_000, 784), "f4")
    for part in (train, test):
        for start in range(0, len(part), 10_000):
            block = random.random((10_000, 784), "f4")
            block[random.random((10_000, 784), "f4") > 0.16] = 0
            part[start : start + 10_000] = block
    test[:500] = train[1_000:1_500]
    return (train, test) if order == "C" else (np.asfortranarray(train), np.asfortranarray(test))


def table() -> tuple[Any, Any]:
    """5,000,000 x 20 float64 (5 category, 5 rounded, 10 continuous columns), 5,000 copies among 500,000."""
    random = np.random.default_rng(0)

    def made(rows: int) -> Any:
        x = np.empty((rows, 20))
        x[:, :5] = random.integers(0, 10, (rows, 5))
        x[:, 5:10] = np.round(random.random((rows, 5)), 2)
        x[:, 10:] = random.random((rows, 10))
        return x

    train, test = made(5_000_000), made(500_000)
    test[:5_000] = train[10_000:15_000]
    return train, test


def ours(train: Any, test: Any) -> int:
    from pytest_overfit import find_duplicates

    return int(find_duplicates(train=train, test=test, near=False, windows=False).measured["across"][0]["rows"])


def ours_across(train: Any, test: Any) -> int:
    from pytest_overfit.duplicates.exact.in_memory import overlap
    from pytest_overfit.duplicates.exact.rows import RowsInMemory, all_keys, choose_columns
    from pytest_overfit.duplicates.values.canonical import compared

    how = compared({"train": train[:256], "test": test[:256]})
    left, right = RowsInMemory("train", (train,), (how,)), RowsInMemory("test", (test,), (how,))
    columns = choose_columns(left)
    return len(overlap(left, all_keys(left, columns), right, all_keys(right, columns)).rows_b)


def numpy_unique(train: Any, test: Any) -> int:
    _, first, inverse = np.unique(np.concatenate([train, test]), axis=0, return_index=True, return_inverse=True)
    return int((first[inverse.ravel()[len(train) :]] < len(train)).sum())


def pandas_merge(train: Any, test: Any) -> int:
    import pandas

    left, right = pandas.DataFrame(train), pandas.DataFrame(test)
    return len(right.merge(left.drop_duplicates(), how="inner"))


def polars_join(train: Any, test: Any) -> int:
    import polars

    left, right = polars.from_numpy(train), polars.from_numpy(test)
    return right.join(left, on=right.columns, how="semi").height


def duckdb_join(train: Any, test: Any) -> int:
    import duckdb
    import pyarrow

    def blobs(x: Any) -> Any:
        width = x.shape[1] * x.itemsize
        flat = np.ascontiguousarray(x)
        data = pyarrow.py_buffer(flat)
        kind = pyarrow.binary(width)
        return pyarrow.table({"row": pyarrow.Array.from_buffers(kind, len(x), [None, data])})

    connection = duckdb.connect(config={"threads": 1})
    connection.register("earlier", blobs(train))
    connection.register("later", blobs(test))
    found = connection.execute("select count(*) from later semi join earlier using (row)").fetchone()
    return int(found[0])


def deepchecks_mix(train: Any, test: Any) -> int:
    import pandas
    from deepchecks.tabular import Dataset
    from deepchecks.tabular.checks import TrainTestSamplesMix

    left, right = (
        Dataset(pandas.DataFrame(each, columns=[f"f{n}" for n in range(each.shape[1])]), cat_features=[])
        for each in (train, test)
    )
    return round(TrainTestSamplesMix().run(left, right).value["ratio"] * len(test))


def cleanlab_near(train: Any, test: Any) -> int:
    """Its near-duplicate check knows no splits: both are given as one, and its sets are looked through."""
    from cleanlab import Datalab

    both = np.concatenate([train, test])
    lab = Datalab(data={"row": list(range(len(both)))}, verbosity=0)
    lab.find_issues(features=both, issue_types={"near_duplicate": {}})
    issues = lab.get_issues("near_duplicate")
    sets = issues["near_duplicate_sets"].tolist()
    return sum(any(each < len(train) for each in found) for found in sets[len(train) :])


DATA: dict[str, Callable[[], tuple[Any, Any]]] = {
    "images": images,
    "images F": lambda: images("F"),
    "table": table,
}
TOOLS: dict[str, Callable[[Any, Any], int]] = {
    "find_duplicates": ours,
    "overlap": ours_across,
    "numpy.unique": numpy_unique,
    "pandas.merge": pandas_merge,
    "polars semi join": polars_join,
    "duckdb semi join, rows as blobs": duckdb_join,
    "deepchecks TrainTestSamplesMix": deepchecks_mix,
    "cleanlab near_duplicate": cleanlab_near,
}
#: seconds on these data: measured once
ONCE = {"numpy.unique", "pandas.merge", "deepchecks TrainTestSamplesMix", "cleanlab near_duplicate"}
#: minutes or gigabytes on these data: measured on a tenth of them, where all others are measured again
SLOW = {"deepchecks TrainTestSamplesMix", "cleanlab near_duplicate"}


def highest() -> int:
    """The highest resident size of this process in KB (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def read(train: Any, test: Any) -> float:
    start = time.perf_counter()
    train.sum(), test.sum()
    return time.perf_counter() - start


def one(data: str, tool: str, rounds: int, part: int) -> None:
    """Measure one tool on one data set, in this process; writes a line of JSON."""
    train, test = (each[: len(each) // part] for each in DATA[data]())
    reads, again, times, found = [], [], [], -1
    Path("/proc/self/clear_refs").write_text("5")  # resets the highest resident size, after the data were made
    before = highest()
    for _ in range(rounds):
        reads += [read(train, test) for _ in range(3)]
        start = time.perf_counter()
        found = TOOLS[tool](train, test)
        times.append(time.perf_counter() - start)
        again += [read(train, test) for _ in range(3)]
    peak = (highest() - before) / 1024
    print(json.dumps({"s": min(times), "read": min(reads), "again": min(again), "mb": peak, "found": found}))


def table_of_tools(data: str, rounds: int, part: int, tools: list[str], pythons: dict[str, str]) -> None:
    print(f"\n### {data}{f', a {part}th of the rows' if part > 1 else ''}\n")
    print("| tool | s | x read | A/A | + MB | copies found |\n|---|---|---|---|---|---|")
    for tool in tools:
        program = [pythons.get(tool, sys.executable), "-m", "benchmarks.speed.duplicates"]
        how = ["--rounds", str(1 if tool in ONCE else rounds), "--part", str(part)]
        try:
            done = subprocess.run(
                [*program, "--one", data, tool, *how],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=150,
            )
        except subprocess.TimeoutExpired:
            print(f"| {tool} | over 150 | | | | |", flush=True)
            continue
        if done.returncode:
            why = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
            print(f"| {tool} | not measured: {why[:90]} | | | | |", flush=True)
            continue
        got = json.loads(done.stdout.splitlines()[-1])
        plain = min(got["read"], got["again"])
        print(
            f"| {tool} | {got['s']:.3f} | {got['s'] / plain:.1f} | {got['again'] / got['read']:.2f} | {got['mb']:.0f} "
            f"| {got['found']} |",
            flush=True,
        )


def default() -> None:
    """The whole default search on images, near-copies and windows too, in turns with a read."""
    from pytest_overfit import find_duplicates

    train, test = images()
    find_duplicates(train=train[:2_000], test=test[:500])  # what is loaded once
    rounds, found = [], None
    for _ in range(9):
        plain = min(read(train, test) for _ in range(3))
        start = time.perf_counter()
        found = find_duplicates(train=train, test=test)
        rounds.append((time.perf_counter() - start, plain))
    seconds, plain = (float(np.median(each)) for each in zip(*rounds, strict=True))
    ratio = float(np.median([each / its for each, its in rounds]))
    rows = [found.measured[kind][0]["rows"] for kind in ("across", "windows", "near")] if found else []
    print(f"\n### find_duplicates by default, images\n\n{seconds:.3f} s, a read {plain:.4f} s, median of the ratios "
          f"{ratio:.1f}; exact copies, windows, near-copies: {rows}")  # fmt: skip


def streams() -> None:
    """Samples a second of a generic iterable of short arrays, with xxhash and with the standard library alone."""
    from pytest_overfit import find_duplicates

    rows = [np.random.default_rng(0).random(16) + number for number in range(300_000)]
    test = rows[:1_000]
    print("\n### a generic iterable of 300,000 arrays of 16 float64\n\n| hash | samples a second |\n|---|---|")
    for name in ("xxhash", "hashlib.blake2b"):
        if name != "xxhash":
            sys.modules["xxhash"] = None  # type: ignore[assignment]
        best = 0.0
        for _ in range(3):
            start = time.perf_counter()
            found = find_duplicates(train=lambda: iter(rows), test=test, near=False, windows=False)
            best = max(best, len(rows) / (time.perf_counter() - start))
        assert found.measured["across"][0]["rows"] == 1_000
        print(f"| {name} | {best:,.0f} |", flush=True)
    sys.modules.pop("xxhash")
    assert hashlib.blake2b


def texts() -> None:
    """Exact copies of texts; near ones are in `error_rates/texts.py`."""
    from pytest_overfit import find_duplicates

    random = np.random.default_rng(0)
    lines = [" ".join(map(str, each)) for each in random.integers(0, 5_000, (110_000, 8))]
    train, test = lines[:100_000], [*lines[100_000:], *lines[:500]]
    start = time.perf_counter()
    found = find_duplicates(train=train, test=test, near=False)
    print(
        f"\n### 100,000 texts against 10,500\n\nfind_duplicates: {time.perf_counter() - start:.3f} s, "
        f"{found.measured['across'][0]['rows']} copies"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--one", nargs=2, metavar=("DATA", "TOOL"), help="measure one tool, in this process")
    arguments.add_argument("--rounds", type=int, default=5, help="measurements, of which the quickest counts")
    arguments.add_argument("--part", type=int, default=1, help="with --one: a part of the rows, 10 for a tenth")
    parts = ["images", "images F", "table", "images, a tenth", "table, a tenth", "default", "streams", "texts"]
    arguments.add_argument("--only", nargs="*", default=parts, choices=parts, help="parts to measure (default: all)")
    arguments.add_argument("--deepchecks-python", default=sys.executable, help="an interpreter that has deepchecks")
    given = arguments.parse_args()
    if given.one:
        one(*given.one, given.rounds, given.part)
        return
    fast = [tool for tool in TOOLS if tool not in SLOW]
    pythons = {"deepchecks TrainTestSamplesMix": given.deepchecks_python}
    for data in DATA:
        if data in given.only:
            table_of_tools(data, given.rounds, 1, fast, pythons)
        if f"{data}, a tenth" in given.only:
            table_of_tools(data, given.rounds, 10, list(TOOLS), pythons)
    if "default" in given.only:
        default()
    if "streams" in given.only:
        streams()
    if "texts" in given.only:
        texts()


if __name__ == "__main__":
    main()
