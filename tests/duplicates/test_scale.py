"""Executors, memory maps larger than the memory allowed, streams that start again, progress, both hashes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_overfit import CaseError, find_duplicates
from pytest_overfit.duplicates.exact import fingerprint_table as lookup
from pytest_overfit.duplicates.exact import one_pass as streamed
from pytest_overfit.duplicates.reading import pickling as travel
from pytest_overfit.duplicates.reading.fields import Facts
from pytest_overfit.duplicates.reading.sources import Source
from pytest_overfit.duplicates.reading.split import Samples
from pytest_overfit.duplicates.request import Request
from pytest_overfit.duplicates.search import measure_duplicates
from pytest_overfit.report import progress as progress_module
from pytest_overfit.report.progress import is_watched, shown
from pytest_overfit.report.text import progress_line

#: what users keep in a module of their own, where other processes can import it
MODULE = """
import itertools

import numpy as np
from torch.utils.data import Dataset, Subset


class Rows:
    def __init__(self, x, y, broken=None):
        self.x, self.y, self.broken = x, y, broken

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if index == self.broken:
            raise OSError("truncated file")
        return self.x[index], int(self.y[index])


class Pictures(Rows, Dataset):
    pass


class Locked(Rows):
    def __init__(self, x, y):
        super().__init__(x, y)
        self.lock = __import__("threading").Lock()


def arrays(planted=True):
    random = np.random.default_rng(5)
    x, test = random.normal(size=(90, 4)), random.normal(size=(30, 4))
    if planted:
        test[[2, 5, 11]] = x[[7, 8, 30]]
    return x, np.arange(90) % 3, test, np.arange(30) % 3


def load_pictures():
    return Pictures(*arrays()[:2])


def load_locked():
    return Locked(*arrays()[:2])


def load_samples():
    x, y, _, _ = arrays()
    return list(zip(x, y.tolist()))


def load_stream():
    return iter(load_samples())


calls = itertools.count()


def load_other_rows():
    # cut at random without a seed: another part of the data for each caller
    x, y, _, _ = arrays()
    order = np.random.default_rng(next(calls)).permutation(90)[:60]
    return Subset(Pictures(x, y), order.tolist())


def first_number(sample):
    return sample[0][:1]


def fail():
    if next(calls):
        raise FileNotFoundError("not on this machine")
    return load_pictures()
"""

COPIES = {2: 7, 5: 8, 11: 30}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module, importable here and in processes that are started from here."""
    folder = tmp_path_factory.mktemp("users")
    (folder / "my_data.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import my_data

        yield my_data
        sys.modules.pop("my_data")


@pytest.fixture(scope="module")
def processes(mine: Any) -> Iterator[Any]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


class Posted:
    """What every engine does, without its processes: tasks and answers are pickled and unpickled."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def map(self, task: Callable[[Any], Any], parts: Any) -> Iterator[Any]:
        for each in parts:
            sent = pickle.dumps((task, each))
            self.sizes.append(len(sent))
            there, part = pickle.loads(sent)
            yield pickle.loads(pickle.dumps(there(part)))


@pytest.fixture(autouse=True)
def without_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some library or other loads it; what can be sent must not depend on that here."""
    monkeypatch.delitem(sys.modules, "cloudpickle", raising=False)


def measured(executor: Any = None, **more: Any) -> dict[str, Any]:
    found = find_duplicates(near=False, windows=False, executor=executor, **more).measured
    found["info"].pop("seconds")
    return found


def pairs_of(found: dict[str, Any]) -> dict[int, int]:
    return {each["i"]: each["j"] for each in found["pairs"]}


# ----------------------------------------------------------------------------------------------------------- executors


def on_disk(mine: Any, folder: Path) -> Any:
    np.save(folder / "x.npy", mine.arrays()[0])
    return np.load(folder / "x.npy", mmap_mode="r")


def images(mine: Any, folder: Path) -> Any:
    """Images whose files are compared, or their pixels where Pillow is installed."""
    for split, rows in (("train", range(20)), ("test", (3, 40, 41))):
        for number in rows:
            file = folder / split / "ab"[number % 2] / f"{number:02}.ppm"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"P6 2 2 255\n" + bytes([number] * 12))
    return folder / "train"


TRAINS: dict[str, Callable[[Any, Path], Any]] = {
    "arrays": lambda mine, folder: mine.arrays()[:2],
    "memory map": lambda mine, folder: (on_disk(mine, folder), mine.arrays()[1]),
    "part of a memory map": lambda mine, folder: on_disk(mine, folder)[::-1][::-1],
    "texts": lambda mine, folder: [str(each) for each in mine.arrays()[0]],
    "list of samples": lambda mine, folder: mine.load_samples(),
    "dataset": lambda mine, folder: mine.load_pictures(),
    "dataset over a memory map": lambda mine, folder: mine.Pictures(on_disk(mine, folder), mine.arrays()[1]),
    "subset": lambda mine, folder: subset(mine),
    "anything with an index": lambda mine, folder: mine.Rows(*mine.arrays()[:2]),
    "function": lambda mine, folder: mine.load_pictures,
    "function, its result cannot travel": lambda mine, folder: mine.load_locked,
    "function, only its result can travel": lambda mine, folder: lambda: mine.load_pictures(),
    "function that returns samples": lambda mine, folder: mine.load_samples,
    "lambda that returns arrays": lambda mine, folder: lambda: mine.arrays()[:2],
    "folder of images": images,
}


def subset(mine: Any) -> Any:
    x, y, _, _ = mine.arrays()
    from torch.utils.data import Subset

    turned = mine.Pictures(np.concatenate([x[::-1], x[:3]]), np.concatenate([y[::-1], y[:3]]))
    return Subset(turned, range(89, -1, -1))


def splits(mine: Any, name: str, folder: Path) -> dict[str, Any]:
    train = TRAINS[name](mine, folder)
    test, labels = mine.arrays()[2:]
    if name == "texts":
        return {"train": train, "test": [str(each) for each in test]}
    if name == "folder of images":
        return {"train": train, "test": folder / "test"}
    return {"train": train, "test": test if name == "part of a memory map" else (test, labels)}


def check_same(mine: Any, name: str, folder: Path, executor: Any) -> None:
    given = splits(mine, name, folder)
    alone, apart = measured(**given), measured(executor, **given)
    assert pairs_of(apart) == ({1: 11} if name == "folder of images" else COPIES)
    assert apart == alone


@pytest.mark.parametrize("name", TRAINS)
def test_the_answer_is_the_same_when_everything_is_sent(name: str, mine: Any, tmp_path: Path) -> None:
    check_same(mine, name, tmp_path, Posted())


@pytest.mark.parametrize("name", TRAINS)
def test_the_answer_is_the_same_with_threads(name: str, mine: Any, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        check_same(mine, name, tmp_path, threads)


@pytest.mark.parametrize("name", TRAINS)
def test_the_answer_is_the_same_with_processes(name: str, mine: Any, processes: Any, tmp_path: Path) -> None:
    check_same(mine, name, tmp_path, processes)


def test_a_pool_of_multiprocessing_will_do(mine: Any, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        check_same(mine, "arrays", tmp_path, pool)


def test_a_real_dask_cluster(mine: Any, tmp_path: Path) -> None:
    """Two worker processes; functions of this test file, which they cannot import, travel by cloudpickle."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install distributed")
    import cloudpickle  # noqa: F401 - as Dask has it

    broken = mine.Pictures(*mine.arrays()[:2], broken=50)
    where = tmp_path / "dask"
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None, local_directory=str(where)
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = client.get_executor()
        for name in (
            "arrays",
            "memory map",
            "dataset",
            "function",
            "list of samples",
            "function, its result cannot travel",
        ):
            check_same(mine, name, tmp_path, executor)
        given = {"train": broken, "test": mine.arrays()[2]}
        assert measured(executor, **given) == measured(**given)
        with pytest.raises(CaseError, match="train= is read as Locked, by index, which cannot be sent"):
            measured(executor, train=mine.load_locked(), test=mine.arrays()[2])


ROWS = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@given(ROWS, ROWS, st.sampled_from(["array", "samples", "function"]), st.integers(0, 45), st.booleans())
@settings(deadline=None, max_examples=60)
def test_the_answer_is_the_same_for_any_rows(
    train: list[int], test: list[int], kind: str, broken: int, mapped: bool
) -> None:
    x = np.array(train)[:, None] * np.ones(3)
    y = [each % 2 for each in range(len(train))]

    class Rows:
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, place: int) -> Any:
            if place == broken:
                raise OSError("truncated file")
            return x[place], y[place]

    given: Any = {"array": (x, y), "samples": list(zip(x, y, strict=True)), "function": Rows}[kind]
    executor = types.SimpleNamespace(map=map) if mapped or kind == "function" else Posted()
    splits = {"train": given, "test": (np.array(test)[:, None] * np.ones(3), [0] * len(test))}
    results = []
    for each in (None, executor):
        try:
            results.append(measured(each, **splits))
        except CaseError as error:  # the only row is broken
            results.append({"error": str(error)})
    assert results[0] == results[1]


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_a_sample_that_raises_in_a_worker_is_named_as_without_one(mine: Any, processes: Any) -> None:
    x, y, test, _ = mine.arrays()
    given = {"train": mine.Pictures(x, y, broken=50), "test": test}
    apart = measured(processes, **given)
    assert apart == measured(**given)
    assert apart["info"]["doubts"] == [["train", "sample 50 could not be read: OSError: truncated file"]]
    assert pairs_of(apart) == COPIES


UNSENT = {
    "dataset": (
        lambda mine: {"train": mine.load_locked()},
        r"train= is read as Locked, by index, which cannot be sent to another process \(TypeError: .*lock.*=load_train",
    ),
    "function and its result": (
        lambda mine: {"train": lambda: mine.load_locked()},
        r"train= is read as Locked.*cannot be sent",
    ),
    "key": (
        lambda mine: {"train": mine.load_samples(), "key": lambda sample: sample[0]},
        r"key= cannot be sent.*or the name of a column",
    ),
}


@pytest.mark.parametrize("name", UNSENT)
@pytest.mark.parametrize("real", [False, True])
def test_what_cannot_be_sent_is_named(name: str, real: bool, mine: Any, processes: Any) -> None:
    make, message = UNSENT[name]
    executor = processes if real else Posted()
    with pytest.raises(CaseError, match=message):
        measured(executor, test=list(zip(*mine.arrays()[2:], strict=True)), **make(mine))
    with ThreadPoolExecutor(2) as threads:  # which sends nothing
        measured(threads, test=list(zip(*mine.arrays()[2:], strict=True)), **make(mine))


def test_functions_of_samples_are_sent(mine: Any, processes: Any) -> None:
    given = {"train": mine.load_samples(), "test": list(zip(*mine.arrays()[2:], strict=True)), "key": mine.first_number}
    assert pairs_of(measured(processes, **given)) == COPIES


def test_a_function_that_cuts_at_random_is_no_clean_bill(mine: Any) -> None:
    """Each worker would look at another split than the one that is meant."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mine, "calls", itertools.count())
        given = {"train": mine.load_other_rows, "test": mine.arrays(planted=False)[2]}
        found = find_duplicates(near=False, executor=Posted(), **given)
    assert found.outcome == "inconclusive"
    assert "was another one when a worker of executor= read it" in found.judgement.summary
    assert find_duplicates(near=False, **given).ok


def test_a_function_that_raises_in_a_worker_is_named(mine: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mine, "calls", itertools.count())
        with pytest.raises(
            CaseError, match="the function given as train raised FileNotFoundError: not on this machine"
        ):
            measured(Posted(), train=mine.fail, test=mine.arrays()[2])


def test_a_file_that_a_worker_has_not_is_named(mine: Any, tmp_path: Path) -> None:
    class Elsewhere(Posted):
        def map(self, task: Callable[[Any], Any], parts: Any) -> Iterator[Any]:
            sent = [pickle.dumps(each) for each in parts]
            (tmp_path / "x.npy").unlink()
            return (task(pickle.loads(each)) for each in sent)

    with pytest.raises(CaseError, match=r"a worker of executor= cannot open its part of the data .FileNotFoundError"):
        measured(Elsewhere(), train=on_disk(mine, tmp_path), test=mine.arrays()[2])


def test_an_executor_that_fails_or_loses_tasks_is_told(mine: Any) -> None:
    x, _, test, _ = mine.arrays()

    class Dead:
        def map(self, task: Any, parts: Any) -> Any:
            raise RuntimeError("the cluster is gone")

    with pytest.raises(CaseError, match=r"executor.map raised RuntimeError: the cluster is gone"):
        measured(Dead(), train=x, test=test)
    forgetful = types.SimpleNamespace(map=lambda task, parts: [task(each) for each in parts[:-1]])
    with pytest.raises(CaseError, match=r"executor.map gave 14 results for 15 tasks"):
        measured(forgetful, train=x, test=test)


def test_a_stream_is_read_here_and_that_is_said(mine: Any) -> None:
    found = measured(Posted(), train=mine.load_stream, test=mine.arrays()[2])
    assert pairs_of(found) == COPIES
    assert any(each.startswith("train is read in this process") for each in found["info"]["notes"])


# -------------------------------------------------------------------------------------------------------- what is sent


def test_a_memory_map_goes_as_its_path(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(4_000, 50)))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    test = np.array(x[:40])
    for train in (x, x[::2], np.asarray(x)[::-1], np.asfortranarray(x[:0]) if not len(x) else x[:, 5:25]):
        post = Posted()
        width = slice(5, 25) if train.shape[1] == 20 else slice(None)
        assert len(pairs_of(measured(post, train=train, test=test[:, width]))) >= 20
        assert max(post.sizes) < 12_000  # one part of sixteen has 50,000 bytes or more
    post = Posted()
    measured(post, train=np.array(x), test=test)
    assert min(post.sizes[:-1]) > 90_000


@pytest.mark.parametrize("cut", [(slice(None),), (slice(3, 20), slice(None, None, -2)), (slice(None, None, -1), 2)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_part_of_a_memory_map_arrives(cut: Any, order: Any, tmp_path: Path) -> None:
    whole = np.memmap(tmp_path / "x.bin", "<f4", "w+", offset=48, shape=(30, 9), order=order)
    whole[:] = np.arange(270).reshape(30, 9)
    sent = travel.packed({"a": [whole[cut], np.asarray(whole)[cut]]})
    assert len(sent) < 1_000
    for each in pickle.loads(sent)["a"]:
        assert (each == whole[cut]).all()
        assert each.dtype == whole.dtype


def test_what_the_file_has_not_goes_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((100, 9)))
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    changed[5] = 1
    assert (pickle.loads(travel.packed(changed)) == changed).all()
    gone = np.load(tmp_path / "x.npy", mmap_mode="r")
    (tmp_path / "x.npy").unlink()
    assert (pickle.loads(travel.packed(gone)) == 0).all()


def test_lists_go_part_by_part(mine: Any) -> None:
    post = Posted()
    rows = [(each, 0) for each in np.random.default_rng(0).normal(size=(800, 30))]
    measured(post, train=rows, test=[rows[4]])
    assert max(post.sizes) < 2 * sum(post.sizes) / len(post.sizes) < len(pickle.dumps(rows)) / 4


def test_a_dataset_is_opened_once_for_all_parts(mine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def load() -> Any:
        made.append(1)
        return mine.Pictures(*mine.arrays()[:2])

    monkeypatch.setattr(mine, "load_pictures", load)
    load.__module__, load.__qualname__ = "my_data", "load_pictures"
    assert pairs_of(measured(Posted(), train=load, test=mine.arrays()[2])) == COPIES
    assert len(made) == 2  # here, and there


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts private memory on Linux alone")
@pytest.mark.parametrize("executor", ["None", "ThreadPoolExecutor(2)"])
def test_a_memory_map_larger_than_the_memory_allowed(tmp_path: Path, executor: str) -> None:
    """250 MB of rows under a limit of 96 MB above what the interpreter has: they are never held whole."""
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "f4", (4_000, 16_000))
    for row in range(
        len(rows)
    ):  # a sparse file: the numbers of a row stand on one page, the rest of it is no more than a hole
        rows[row, 100:108] = np.random.default_rng(row if row < 3_900 else row - 3_900).random(8)
    rows.flush()
    assert (tmp_path / "x.npy").stat().st_blocks * 512 < 40e6
    program = f"""
        import json, resource
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from pytest_overfit import find_duplicates
        import pytest_overfit.duplicates.find
        x = np.load({str(tmp_path / "x.npy")!r}, mmap_mode="r")
        have = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (have + 96 * 2**20,) * 2)
        try:
            np.array(x)
        except MemoryError:
            pass
        else:
            raise SystemExit("the limit does not bite")
        found = find_duplicates(train=x[:3_900], test=x[3_900:], near=False, windows=False, executor={executor})
        print(json.dumps(found.measured["touched"]["test"]["exact"]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == list(range(100))


# ------------------------------------------------------------------------------------------------- fingerprints in bulk


PRINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=60)


@given(PRINTS, PRINTS)
@settings(deadline=None)
def test_the_table_finds_what_it_has(held: list[Any], asked: list[Any]) -> None:
    table = lookup.FingerprintTable(np.array(held, np.uint64))
    known = sorted(set(held))
    assert [known[each] for each in table.numbers] == held
    want = [known.index(each) if each in known else -1 for each in asked]
    for each in (table, pickle.loads(pickle.dumps(table))):
        assert each.find(np.array(asked, np.uint64)).tolist() == want


HELD = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 15), st.integers(0, 99), st.just(0)), min_size=1, max_size=60
)


@given(HELD, st.lists(st.integers(0, 60), max_size=4), st.integers(1, 40))
@settings(deadline=None)
def test_what_is_held_does_not_depend_on_the_parts(held: list[Any], cuts: list[int], most: int) -> None:
    whole = np.array(held, np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamed, "_HELD", most)
        one, merged = streamed.Thinned(), streamed.Thinned()
        one.add(whole)
        for part in np.split(whole, sorted(min(each, len(whole)) for each in cuts)):
            mine = streamed.Thinned()
            mine.add(part)
            merged.add(mine.whole(), mine.mask)
    assert len(one.whole()) <= most
    assert (one.whole().tolist(), one.mask) == (merged.whole().tolist(), merged.mask)


def test_a_thinned_split_is_the_same_with_an_executor(mine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "_HELD", 100)
    x = np.random.default_rng(0).normal(size=(2_000, 3))
    x[1_000:1_500] = x[:500]
    given: dict[str, Any] = {"train": list(zip(x, [0] * 2_000, strict=True)), "test": x[5:9]}
    apart = measured(Posted(), **given)
    assert apart == measured(**given)
    assert apart["within"]["train"]["sampled"]
    assert 0.3 < apart["within"]["train"]["rate"] < 0.7


def test_a_sample_that_cannot_be_read_does_not_shift_the_labels(mine: Any) -> None:
    """Rows 60 and 61 are copies of test rows with one label each; taken for their neighbours they would clash."""
    x, y, test, labels = mine.arrays()
    x[60:64:2], y[60:64] = test[20], [1, 0, 1, 0]
    for executor in (None, Posted()):
        found = measured(executor, train=mine.Pictures(x, y, broken=50), test=(test, labels))
        assert found["within"]["train"] == {
            "rows": 2, "rate": 2 / 89, "groups": 1, "conflicts": 0, "clashing": 0, "sampled": False, "samples": 89,
        }  # fmt: skip


class Columns(Source):
    """Gives columns for a list of places, as Hugging Face datasets do."""

    def __init__(self, broken: int) -> None:
        self.broken = broken

    def __call__(self, places: Any) -> Any:
        if self.broken in places:
            raise OSError("truncated file")
        return {"x": np.arange(50)[list(places)] * 2, "label": [place % 2 for place in places]}


def row_parts(chunk: Any) -> tuple[Any, Any, Any]:
    return chunk.index, chunk.leaves["x"], chunk.labels


@pytest.mark.parametrize("length", [5, 50])
@pytest.mark.parametrize("broken", [3, 99])
def test_columns_are_read_around_a_row_that_raises(broken: int, length: int) -> None:
    split = Samples("train", "columns", Facts(), length, fetch=Columns(broken))
    for read in (split.chunks(), [split.peek(32)], split.chunks(0, 99)):
        rows = [(int(i), int(x), y) for each in read for i, x, y in zip(*row_parts(each), strict=True)]
        rows = [each for each in rows if each[0] < 32]
        assert rows == [(place, 2 * place, place % 2) for place in range(min(length, 32)) if place != broken]
    assert list(split.errors) == ([3] if broken == 3 else [])


def test_fingerprints_are_the_same_thing_with_both_hashes(mine: Any) -> None:
    pytest.importorskip("xxhash")
    x, y, test, labels = mine.arrays()
    texts = {"train": [str(each) for each in x], "test": [str(each) for each in test]}
    kinds: list[dict[str, Any]] = [
        {"train": lambda: zip(x, y, strict=True), "test": (test, labels)},
        {key: (lambda value=value: iter(value)) for key, value in texts.items()},
        {"train": mine.load_pictures(), "test": (test, labels)},
    ]
    fast = [measured(**each) for each in kinds]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "xxhash", None)
        slow = [measured(**each) for each in kinds]
    assert fast == slow
    assert all(pairs_of(each) == COPIES for each in fast)


def test_a_worker_with_another_hash_is_no_clean_bill(mine: Any) -> None:
    pytest.importorskip("xxhash")

    class Old(Posted):
        def map(self, task: Callable[[Any], Any], parts: Any) -> Iterator[Any]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(sys.modules, "xxhash", None)
                yield from list(super().map(task, parts))

    found = find_duplicates(train=mine.load_pictures(), test=mine.arrays()[2], near=False, executor=Old())
    assert found.outcome == "inconclusive"
    assert "other versions" in found.judgement.summary


# ----------------------------------------------------------------------------------------- streams that start again


@given(st.integers(33, 2_500), st.integers(1, 1_500), st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_stream_that_starts_again_is_read_once(length: int, batch: int, batched: bool) -> None:
    rows = np.random.default_rng(length).normal(size=(length, 2))

    def endless() -> Iterator[Any]:
        if not batched:
            yield from itertools.cycle(rows)
        places = itertools.cycle(range(length))
        while True:
            part = list(itertools.islice(places, batch))
            yield rows[part], np.zeros(len(part))

    found = measured(train=endless, test=rows[:3], batched=batched, max_samples=10_000)
    assert found["info"]["splits"]["train"]["samples"] == length
    assert found["within"]["train"]["rows"] == 0
    assert pairs_of(found) == {0: 0, 1: 1, 2: 2}


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200, 1_024, 1_100])
def test_a_finite_stream_is_read_to_its_end(length: int) -> None:
    rows = np.random.default_rng(0).normal(size=(length, 2))
    rows[length // 2 :][:20] = rows[:20][: length - length // 2]  # a run of copies is no second round
    found = measured(train=lambda: iter(rows), test=rows[-1:])
    assert found["info"]["splits"]["train"]["samples"] == length


# ------------------------------------------------------------------------------------------------------------ progress


class Terminal:
    """A terminal's line, which knows backspaces."""

    def __init__(self, tty: bool = True) -> None:
        self.tty, self.line, self.column, self.seen = tty, "", 0, [""]

    def isatty(self) -> bool:
        return self.tty

    def flush(self) -> None:
        self.seen.append(self.line.strip())

    def write(self, text: str) -> int:
        for each in text:
            if each == "\b":
                self.column -= 1
            else:
                self.line = self.line[: self.column] + each + self.line[self.column + 1 :]
                self.column += 1
        return len(text)


@pytest.fixture
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


def test_the_line_of_samples() -> None:
    assert (
        progress_line("", "split_duplicates", 120_000, 600_000, None) == "split_duplicates: 120,000 of 600,000 samples"
    )
    assert progress_line("net", "split_duplicates", 5, None, None) == "split_duplicates net: 5 samples"
    assert progress_line("net", "overfit_batch", 5, 500, 0.25) == "overfit_batch net: step 5 of 500, loss 0.25"


def test_a_line_after_two_seconds_is_wiped_in_the_end(no_ci: None) -> None:
    terminal, now = Terminal(), [100.0]
    with shown("find_duplicates", terminal, lambda: now[0]) as progress:
        for count in (0, 1_000, 2_000):
            progress(count, 5_000)
            now[0] += 1.5
        assert terminal.seen == ["", "find_duplicates: 2,000 of 5,000 samples"]
        progress(3_000, None)
        assert terminal.line.strip() == "find_duplicates: 3,000 samples"
    assert terminal.line.strip() == ""


def test_the_line_is_wiped_after_an_error(no_ci: None) -> None:
    terminal, now = Terminal(), iter(range(0, 90, 3))
    with pytest.raises(CaseError), shown("find_duplicates", terminal, lambda: next(now)) as progress:
        fail_after(progress)
    assert terminal.seen[1] == "find_duplicates: 2 of 2 samples"
    assert terminal.line.strip() == ""


def fail_after(progress: Any) -> None:
    progress(1, 2)
    progress(2, 2)
    raise CaseError("wrong data")


def test_nothing_is_shown_where_nobody_watches(no_ci: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_watched(Terminal())
    assert not is_watched(Terminal(tty=False))
    assert not is_watched(None)
    assert not is_watched(Terminal(), {"CI": "true"})
    log, now = Terminal(tty=False), [0.0]
    with shown("find_duplicates", log, lambda: now[0]) as progress:
        for count in range(5):
            progress(count, 5)
            now[0] += 9
    assert log.seen == [""]


@pytest.mark.parametrize("executor", [None, Posted()])
@pytest.mark.parametrize("name", ["arrays", "list of samples", "function"])
def test_find_duplicates_tells_how_far_it_is(
    name: str, executor: Any, mine: Any, no_ci: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(progress_module, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress_module, "_PAUSE", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal)
    find_duplicates(near=False, executor=executor, **splits(mine, name, tmp_path))
    assert "find_duplicates: 120 of 120 samples" in terminal.seen
    assert terminal.line.strip() == ""


def test_a_probe_is_told_the_samples_read_of_all(mine: Any) -> None:
    x, _, test, _ = mine.arrays()

    def told(**given: Any) -> list[tuple[int, int | None]]:
        calls: list[tuple[int, int | None]] = []
        request = Request(given=given, near=False, windows=False, progress=lambda step, of: calls.append((step, of)))
        measure_duplicates(request)
        return calls

    for train in (x, mine.load_pictures()):
        calls = told(train=train, test=test)
        assert calls == sorted(calls)
        assert calls[-1] == (120, 120)
    assert told(train=mine.load_stream, test=test)[-1] == (120, None)
