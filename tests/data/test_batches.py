"""The batch as users have it: every container is read right, and what cannot be read is refused with a way out.

Each accepted container goes through a whole run: a healthy model passes on it, its faulty twin does not.
"""

from __future__ import annotations

import collections
import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pytest_overfit import Case, CaseError, Verdict, run_probes
from pytest_overfit.data.batch import Batch
from pytest_overfit.data.telling import batch_of
from pytest_overfit.data.tree import Rows, leaves

ROWS = 12
random = np.random.default_rng(0)
X = random.normal(size=(ROWS, 6)).astype("float32")
Y = np.arange(ROWS) % 3
TX, TY = torch.as_tensor(X), torch.as_tensor(Y)
NAMES = [f"photo {row}.png" for row in range(ROWS)]
SAMPLES = [{"x": row, "labels": int(label)} for row, label in zip(TX, TY, strict=True)]


def net(inputs: int = 6, outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs))


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def verdict(**fields: Any) -> Verdict:
    return run_probes(Case(**{"name": "case", "optimizer": adam, **fields}), ["overfit_batch"], steps=100)[0]


def batch(**fields: Any) -> Batch:
    return batch_of(Case(**{"name": "case", "model": net, "loss": F.cross_entropy, "optimizer": adam, **fields}))


def refused(*parts: str, error: type[Exception] = CaseError, **fields: Any) -> str:
    with pytest.raises(error) as caught:
        verdict(**{"model": net, "loss": F.cross_entropy, **fields})
    message = str(caught.value)
    for part in ("Case 'case': ", *parts):
        assert part in message, message
    return message


class Net(nn.Module):
    """A classifier whose subclasses make the features of a batch; a blind one sees nothing of it."""

    inputs = 6

    def __init__(self, blind: bool = False) -> None:
        super().__init__()
        self.net, self.blind = net(self.inputs), blind

    def answer(self, features: Tensor) -> Tensor:
        answer: Tensor = self.net(features * 0 if self.blind else features)
        return answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


class OwnLoss(Net):
    def forward(self, x: Tensor, labels: Tensor) -> Any:
        logits = self.answer(x)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class AutoEncoder(Net):
    """Its loss is made of its inputs alone."""

    def __init__(self, blind: bool = False) -> None:
        super().__init__(blind)
        self.net = net(6, 6)

    def forward(self, x: Tensor) -> Any:
        shown = self.answer(x)
        return {"loss": F.mse_loss(shown, x), "shown": shown}


@dataclasses.dataclass
class Pack:
    x: Any
    y: Any = None
    note: str = dataclasses.field(default="", init=False)


class Named(NamedTuple):
    x: Any
    extra: Any
    label: Any


class OfSamples(Dataset[Any]):
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> Any:
        return self.samples[row]


class Stream(IterableDataset[Any]):
    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return iter(self.samples)


class Numbered:
    """A dataset by its protocol alone, as loaders take it."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> Any:
        return X[row], Y[row]


class Columns:
    """What a Hugging Face dataset looks like: a slice of it is a dict of lists, an item a dict of one row."""

    column_names = ("x", "label")
    shape = (ROWS, 2)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, rows: Any) -> dict[str, Any]:
        return {"x": X[rows].tolist(), "label": Y[rows].tolist()}


class Table:
    """What a data frame looks like to this plugin."""

    def __init__(self, values: Any) -> None:
        self.values, self.shape, self.dtypes = np.asarray(values), np.shape(values), None
        self.columns = [f"c{number}" for number in range(self.shape[1])]

    @property
    def iloc(self) -> Any:
        outer = self

        class At:
            def __getitem__(self, rows: Any) -> Table:
                return Table(outer.values[rows])

        return At()

    def __getitem__(self, column: str) -> Any:
        return self.values[:, self.columns.index(column)]

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.values

    def to_numpy(self) -> Any:
        return self.values

    def copy(self) -> Table:
        return Table(self.values.copy())


class Arrow:
    """A column of another library: an array on demand only."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.values)


def one_batch() -> Iterator[Any]:
    yield X, Y


# ---------------------------------------------------------------------------------------------- containers of (x, y)

#: (x, y) in other clothes; all of them are the same batch of arrays under the same loss
PAIRS: dict[str, dict[str, Any]] = {
    "dict": {"batch": {"x": X, "labels": Y}},
    "user dict": {"batch": lambda: collections.UserDict({"x": TX, "target": TY})},
    "dict of lists": {"batch": {"x": X.tolist(), "label": Y.tolist()}},
    "dataclass": {"batch": Pack(TX, TY)},
    "named tuple": {"batch": Named(TX, None, TY)},
    "generator function as batch": {"batch": one_batch},
    "loader as batch": {"batch": DataLoader(TensorDataset(TX, TY), batch_size=ROWS)},
    "lists": {"batch": (X.tolist(), Y.tolist())},
    "list of arrays": {"batch": (list(X), tuple(Y.tolist()))},
    "labels as a list of tensors": {"batch": (TX, list(TY))},
    "labels as a list of numpy numbers": {"batch": (TX, list(Y))},
    "table": {"batch": (Table(X), Arrow(Y))},
    "table of objects": {"batch": (Table(X.astype(object)), Y)},
    "sparse matrix": {"batch": (sparse.csr_matrix(X), Y)},
    "read backwards": {"batch": (X[::-1], Y[::-1])},
    "other byte order": {"batch": (X.astype(">f4"), Y)},
    "nothing masked": {"batch": (np.ma.array(X), Y)},
    "transposed": {"batch": (np.asfortranarray(X), Y)},
    "unsigned labels": {"batch": (X, Y.astype("uint16"))},
    "inputs with a gradient": {"batch": (TX.clone().requires_grad_(), TY)},
    "dict as train": {"train": {"x": X, "y": Y}},
    "lists as train": {"train": (X.tolist(), Y.tolist())},
    "table as train": {"train": (Table(X), Y)},
    "sparse matrix as train": {"train": (sparse.coo_array(X), Y)},
    "list of samples": {"train": list(zip(X, Y, strict=True))},
    "list of samples as batch": {"batch": list(zip(TX, TY, strict=True))},
    "list of batches": {"train": [(X, Y)] * 3},
    "dataset": {"train": TensorDataset(TX, TY)},
    "dataset of dicts": {"train": OfSamples(SAMPLES)},
    "dataset by protocol": {"train": Numbered()},
    "iterable dataset": {"train": Stream(list(zip(TX, TY, strict=True)))},
    "columns": {"train": Columns()},
    "loader of dicts": {"train": lambda: DataLoader(OfSamples(SAMPLES), batch_size=ROWS)},
    "loader with an own collate_fn": {
        "train": lambda: DataLoader(OfSamples(SAMPLES), batch_size=ROWS, collate_fn=lambda samples: samples)
    },
    "generator as train": {"train": one_batch},
}


@pytest.mark.parametrize("what", PAIRS)
def test_containers_of_inputs_and_targets(what: str) -> None:
    found = batch(**PAIRS[what])
    assert found.rows == ROWS
    order = slice(None, None, -1) if what == "read backwards" else slice(None)
    assert np.allclose(found.sides()[0][0], X[order])
    assert np.array_equal(found.sides()[1][0], Y[order])
    good = verdict(model=Net, loss=F.cross_entropy, **PAIRS[what])
    assert good.passed, good.summary
    blind = verdict(model=lambda: Net(blind=True), loss=F.cross_entropy, **PAIRS[what])
    assert blind.outcome == "failed", blind.summary


def test_only_the_first_rows_of_much_data_are_touched() -> None:
    """Arrays as large as a disk are never read as a whole."""
    many = np.lib.stride_tricks.as_strided(X, shape=(10**9, 6), strides=(0, 4))
    found = batch(train=(many, np.broadcast_to(np.int64(1), (10**9,))))
    assert found.rows == 32
    assert found.x.shape == (32, 6)
    assert found.x.base is None
    assert batch(train=([[1.0]] * 10**6, [1] * 10**6)).x.shape == (32, 1)


def test_a_memory_map_is_read_into_memory(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", X)
    found = batch(batch=(np.load(tmp_path / "x.npy", mmap_mode="r"), Y))
    assert type(found.x) is np.ndarray


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # where there is one core
@pytest.mark.parametrize("workers", [0, 2])
def test_of_a_loader_one_batch_is_drawn_and_its_workers_end(workers: int) -> None:
    drawn = []

    class Counting(OfSamples):
        def __getitem__(self, row: int) -> Any:
            drawn.append(row)
            return super().__getitem__(row)

    data = Counting(list(zip(TX, TY, strict=True)))
    before = torch.get_rng_state()
    loader = DataLoader(data, batch_size=4, num_workers=workers, multiprocessing_context="fork" if workers else None)
    verdict(model=net, loss=F.cross_entropy, train=loader)
    assert drawn == ([] if workers else [0, 1, 2, 3])  # workers count in processes of their own
    assert not multiprocessing.active_children()
    assert torch.equal(before, torch.get_rng_state())


def test_a_generator_opened_for_the_first_batch_is_closed() -> None:
    closed = []

    class Source:
        def __iter__(self) -> Iterator[Any]:
            try:
                yield X, Y
                yield None
            finally:
                closed.append(True)

    assert batch(train=Source()).rows == ROWS
    assert closed


# ------------------------------------------------------------------------------------ inputs alone, and whole batches


@pytest.mark.parametrize(
    "given",
    [
        {"batch": {"x": X, "labels": Y}},
        {"batch": collections.UserDict({"x": TX, "labels": TY})},
        {"train": OfSamples(SAMPLES)},
        {"train": lambda: DataLoader(OfSamples(SAMPLES), batch_size=ROWS)},
        {"batch": dataclasses.make_dataclass("Whole", ["x", "labels"])(TX, TY)},
    ],
    ids=["dict", "user dict", "dataset", "loader", "dataclass"],
)
def test_a_whole_batch_for_a_model_with_its_own_loss(given: dict[str, Any]) -> None:
    good = verdict(model=OwnLoss, **given)
    assert good.passed, good.summary
    assert "accuracy 1" in good.summary
    assert verdict(model=lambda: OwnLoss(blind=True), **given).outcome == "failed"


@pytest.mark.parametrize(
    "given",
    [{"batch": TX}, {"batch": (X,)}, {"train": lambda: DataLoader(TensorDataset(TX), batch_size=ROWS)}, {"train": X}],
    ids=["tensor", "tuple of one", "loader", "array as train"],
)
def test_inputs_alone(given: dict[str, Any]) -> None:
    assert verdict(model=AutoEncoder, **given).passed
    assert not verdict(model=lambda: AutoEncoder(blind=True), **given).passed
    message = ("expected a pair (inputs, targets)", "for an autoencoder, write (x, x)")
    refused(*message, model=lambda: net(6, 6), loss=F.mse_loss, **given)


def stepping(loss_of: Callable[[Any, Any, Any], Tensor]) -> Callable[..., float]:
    """A loop of the user's own."""

    def step(model: Any, x: Any, y: Any) -> float:
        model.__dict__.setdefault("optimizer", adam(model.parameters()))
        model.optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        model.optimizer.step()
        return loss.item()

    return step


def given_to_step(given: Any) -> list[Any]:
    seen: list[Any] = []

    def step(model: Any, x: Any, y: Any) -> float:
        seen.extend((x, y))
        return 1.0

    run_probes(Case(name="case", model=list, step=step, batch=given), ["overfit_batch"], steps=1)
    return seen[:2]


def test_a_step_gets_the_batch_as_its_own_loop_would() -> None:
    whole = collections.UserDict({"x": X, "names": NAMES, "labels": Y})
    x, y = given_to_step(whole)
    assert type(x) is collections.UserDict
    assert y is None
    assert type(x["names"]) is list
    assert x["names"] == NAMES
    x, y = given_to_step(Pack(X, Y))
    assert type(x) is Pack
    assert np.array_equal(x.y, Y)
    x, y = given_to_step((X, [{"boxes": X[:row]} for row in range(ROWS)]))
    assert type(y) is list
    assert [len(each["boxes"]) for each in y] == list(range(ROWS))
    x, y = given_to_step(({"x": X, "epoch": 3, "lengths": [[1] * row for row in range(ROWS)]}, Y))
    assert x["epoch"] == 3
    assert [len(each) for each in x["lengths"]] == list(range(ROWS))


@pytest.mark.parametrize("given", [{"x": X, "labels": Y}, Pack(X, Y)], ids=["dict", "dataclass"])
def test_targets_inside_a_whole_batch_are_targets_for_a_step(given: Any) -> None:
    """They are not blinded with the inputs, so a model that ignores its input has the task of the others."""

    def loss(model: Any, x: Any, y: Any) -> Tensor:
        parts = x if isinstance(x, dict) else vars(x)
        return F.cross_entropy(model(parts["x"]), parts["labels"] if "labels" in parts else parts["y"])

    found = batch(batch=given, loss=None, step=stepping(loss))
    (targets,) = found.sides()[1]
    assert np.array_equal(targets, Y)
    blind = found.blinded()
    assert np.array_equal(blind.sides()[1][0], Y)
    assert (blind.sides()[0][0] == X[:1]).all()
    equal = found.with_equal_targets()
    assert equal is not None
    assert (equal.sides()[1][0] == Y[0]).all()
    assert np.array_equal(equal.sides()[0][0], X)
    right = verdict(model=Net, batch=given, step=stepping(loss), optimizer=None)
    assert right.passed, right.summary
    wrong = verdict(model=lambda: Net(blind=True), batch=given, step=stepping(loss), optimizer=None)
    assert wrong.outcome in ("failed", "inconclusive"), wrong.summary


# ------------------------------------------------------------------------------------------- lists with one entry a row


class OfPictures(Net):
    def forward(self, images: list[Tensor]) -> Any:
        assert type(images) is list
        return self.answer(torch.stack([each.mean((1, 2)) for each in images]))


class WithNames(Net):
    def forward(self, x: Tensor, names: list[str]) -> Any:
        assert len(names) == len(x)
        assert isinstance(names[0], str)
        return self.answer(x)


class OfTexts(Net):
    def forward(self, texts: list[str]) -> Any:
        return self.answer(TX[[NAMES.index(text) for text in texts]])


class Detector(Net):
    """As torchvision's: lists of pictures and of dicts go in, a loss comes out."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Any:
        logits = self.answer(torch.stack([each.mean((1, 2)) for each in images]))
        return {"loss": F.cross_entropy(logits, torch.stack([each["labels"][0] for each in targets])), "logits": logits}


def pictures(rows: int = ROWS, channels: int = 6) -> list[Tensor]:
    """Of unequal sizes."""
    noise = torch.Generator().manual_seed(0)
    return [torch.randn(channels, 1, 1, generator=noise) + torch.zeros(channels, 2 + row % 3, 4) for row in range(rows)]


def boxes(rows: int = ROWS) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.rand(1 + row % 4, 4), "labels": torch.full((1 + row % 4,), row % 3)} for row in range(rows)]


PER_ROW: dict[str, tuple[type[Net], dict[str, Any]]] = {
    "pictures of unequal size": (OfPictures, {"loss": F.cross_entropy, "batch": lambda: (pictures(), TY)}),
    "pictures in a tuple": (OfPictures, {"loss": F.cross_entropy, "batch": lambda: (tuple(pictures()), TY)}),
    "names beside an array": (WithNames, {"loss": F.cross_entropy, "batch": ({"x": X, "names": NAMES}, Y)}),
    "texts inside a dict": (OfTexts, {"loss": F.cross_entropy, "batch": ({"texts": NAMES}, Y)}),
    "detection": (Detector, {"batch": lambda: ((pictures(), boxes()), None)}),
    "detection by name": (Detector, {"batch": lambda: {"images": pictures(), "targets": boxes()}}),
}


@pytest.mark.parametrize("what", PER_ROW)
def test_lists_with_one_entry_a_row(what: str) -> None:
    model, fields = PER_ROW[what]
    good = verdict(model=model, **fields)
    assert good.passed, good.summary
    assert not verdict(model=lambda: model(blind=True), **fields).passed


def test_rows_that_are_mixed_up_are_seen_in_lists_too() -> None:
    class Rolls(OfPictures):
        def forward(self, images: list[Tensor]) -> Any:
            return super().forward(images).roll(1, 0)

    found = verdict(model=Rolls, loss=F.cross_entropy, batch=lambda: (pictures(), TY))
    assert found.outcome == "failed"
    assert "rows are mixed up" in found.summary


def test_detection_with_a_step() -> None:
    step = stepping(lambda model, images, targets: model(images, targets)["loss"])
    right = {"optimizer": None, "step": step, "batch": lambda: (pictures(), boxes())}
    assert verdict(model=Detector, **right).passed
    assert verdict(model=lambda: Detector(blind=True), **right).outcome == "failed"


class HandWritten(Detector):
    """Its loss is none of those that are recognised, so the task of a model that ignores its input has to be made."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Any:
        logits = super().forward(images, targets)["logits"]
        labels = torch.stack([each["labels"][0] for each in targets])
        return {"loss": -logits.log_softmax(-1).gather(1, labels[:, None]).mean(), "logits": logits}


HAND_WRITTEN: dict[str, dict[str, Any]] = {
    "tuple": {"batch": lambda: ((pictures(), boxes()), None)},
    "dict": {"batch": lambda: {"images": pictures(), "targets": boxes()}},
    "step": {
        "batch": lambda: tuple(zip(*zip(pictures(), boxes(), strict=True), strict=True)),
        "step": stepping(lambda model, images, targets: model(list(images), targets)["loss"]),
        "optimizer": None,
    },
}


@pytest.mark.parametrize("what", HAND_WRITTEN)
def test_lists_of_targets_are_kept_when_the_inputs_are_blinded(what: str) -> None:
    good = verdict(model=HandWritten, **HAND_WRITTEN[what])
    assert good.passed, good.summary
    blind = verdict(model=lambda: HandWritten(blind=True), **HAND_WRITTEN[what])
    assert blind.outcome == "failed", blind.summary


def test_what_is_several_inputs_and_what_is_a_list_of_rows() -> None:
    refused("of different length: 12 and 7 rows of x, 12 and 5 of y", batch=([TX, TX[:7]], [TY, TX[:5]]))
    refused("of different length: 6 and 2 rows of x, 2 of y", batch=((TEXT[:6], OFFSETS[:2]), TY[:2]))
    refused("of different length: 12 and 7 rows of x", batch=(({"a": TX}, {"b": TX[:7]}), None))
    several = batch(batch=([TX, TX], TY))
    assert len(list(leaves(several.x))) == 2
    # a list of three inputs of three rows and one of three pictures of three channels look the same
    three = [torch.rand(3, 3, 4) for _ in range(3)]
    assert len(list(leaves(batch(batch=(three, TY[:3])).x))) == 3
    # beside a list that can only be one of rows it is one of rows as well
    assert len(list(leaves(batch(batch=(three, boxes(3))).x))) == 1
    assert len(list(leaves(batch(loss=None, batch=((three, boxes(3)), None)).x))) == 2
    assert len(list(leaves(batch(loss=None, batch=((pictures(2), boxes(2)), None)).x))) == 2


def test_a_list_of_rows_counts_as_one_leaf() -> None:
    entries = [{"boxes": X[: row + 1]} for row in range(4)]
    entries[2] = entries[0]
    found = batch(batch=(entries, Y[:4]))
    (leaf,) = leaves(found.x)
    assert isinstance(leaf, Rows)
    ((equal,), _) = found.sides()
    assert equal.shape == (4,)
    assert (equal[0] == equal[2], equal[0] == equal[1]) == (True, False)
    assert [len(each["boxes"]) for each in found.inputs_of([3, 0])] == [4, 1]
    assert [len(each["boxes"]) for each in found.blinded().plain().x] == [1, 1, 1, 1]
    leaf[0]["boxes"][:] = 0
    assert not np.array_equal(leaf[0]["boxes"], X[:1])
    assert entries[0]["boxes"].any(), "the user's own data was changed"


# --------------------------------------------------------------------------------------- parts of other lengths than y


class Bags(Net):
    inputs = 16

    def __init__(self, blind: bool = False) -> None:
        super().__init__(blind)
        self.embed = nn.EmbeddingBag(100, 16)

    def forward(self, text: Tensor, offsets: Tensor) -> Any:
        return self.answer(self.embed(text, offsets))


class Graph(Net):
    inputs = 12

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        around = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        return self.answer(torch.cat([x, around], dim=1))


TEXT, OFFSETS = torch.as_tensor(random.permutation(3 * ROWS)), torch.arange(0, 3 * ROWS, 3)
EDGES = torch.stack([torch.arange(ROWS), (torch.arange(ROWS) + 5) % ROWS])
TOGETHER = {"overfit_batch": {"rows_interact": True}}
LENGTHS: dict[str, tuple[type[Net], Any]] = {
    "bags": (Bags, ((TEXT, OFFSETS), TY)),
    "graph": (Graph, ({"x": TX, "edge_index": EDGES}, TY)),
    "graph in one dict": (Graph, {"x": TX, "edge_index": EDGES, "y": TY}),
}


@pytest.mark.parametrize("what", LENGTHS)
def test_other_lengths_than_the_targets_are_declared(what: str) -> None:
    model, given = LENGTHS[what]
    refused("of different length", "rows come first", "'rows_interact': True", "step=", model=model, batch=given)
    found = batch(batch=given, options=TOGETHER)
    assert found.rows == ROWS
    assert np.array_equal(found.sides()[0][0], np.arange(ROWS)), "no row is known to equal another"
    assert found.inputs_of(list(range(ROWS))) is not None
    assert found.inputs_of([1, 0]) is None
    fields = {"loss": F.cross_entropy, "batch": given, "options": TOGETHER}
    good = verdict(model=model, **fields)
    assert good.passed, good.summary
    assert verdict(model=lambda: model(blind=True), **fields).outcome == "failed"
    with pytest.raises(CaseError, match=r"options=\{'overfit_batch': \{'rows_interact': True\}\}"):
        verdict(model=model, loss=F.cross_entropy, batch=given)  # a run knows which probe has the option


def test_a_step_takes_any_lengths() -> None:
    step = stepping(lambda model, x, y: F.cross_entropy(model(*x), y))
    fields = {"optimizer": None, "step": step, "batch": LENGTHS["bags"][1]}
    assert verdict(model=Bags, **fields).passed
    assert verdict(model=lambda: Bags(blind=True), **fields).outcome == "failed"


def test_rows_are_those_of_the_first_target_or_else_of_the_first_input() -> None:
    assert batch(batch=((TEXT, OFFSETS), (TY, TX[:5])), options=TOGETHER).rows == ROWS
    own = {"loss": None, "options": TOGETHER}
    assert batch(batch=((TEXT, OFFSETS), None), **own).rows == 3 * ROWS
    assert batch(batch={"text": TEXT, "offsets": OFFSETS, "labels": TY}, **own).rows == ROWS


def test_targets_at_a_place_of_a_tuple_are_kept_when_blinded() -> None:
    found = batch(loss=None, batch=((TX, TY), None))
    blind = found.blinded({1})
    assert type(blind.x) is tuple
    assert (blind.x[0] == TX[0]).all()
    assert torch.equal(blind.x[1], TY)
    assert [len(side) for side in found.sides({1})] == [1, 1]


def test_blinding_keeps_what_says_which_rows_belong_together() -> None:
    graph = batch(batch=({"x": TX, "edge_index": EDGES, "weight": torch.rand(7)}, TY), options=TOGETHER)
    blind = graph.blinded().x
    assert (blind["x"] == TX[0]).all()
    assert torch.equal(blind["edge_index"], EDGES)
    assert (blind["weight"] == blind["weight"][0]).all()


# --------------------------------------------------------------------------------------------------- tensors and dtypes


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
def test_sparse_tensors_stay_sparse(layout: torch.layout) -> None:
    kinds = []

    class Sparse(Net):
        def forward(self, x: Tensor) -> Any:
            kinds.append(x.layout)
            return self.answer(x.to_dense())

    given = (TX.to_sparse(layout=layout), TY)
    assert verdict(model=Sparse, loss=F.cross_entropy, batch=given).passed
    assert set(kinds) == {layout}
    assert verdict(model=lambda: Sparse(blind=True), loss=F.cross_entropy, batch=given).outcome == "failed"


def test_a_model_that_differentiates_by_its_inputs_gets_inputs_with_a_gradient() -> None:
    """As physics-informed networks do; the targets' gradient is nobody's business."""

    class Slope(Net):
        def __init__(self, blind: bool = False) -> None:
            super().__init__(blind)
            self.net = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1))

        def forward(self, x: Tensor) -> Any:
            assert x.requires_grad
            return torch.autograd.grad(self.answer(x).sum(), x, create_graph=True)[0][:, :2]

    targets = torch.as_tensor(random.normal(size=(ROWS, 2)).astype("float32"))
    given = (TX.clone().requires_grad_(), targets.requires_grad_())
    assert not batch(batch=given).y.requires_grad
    found = run_probes(
        Case(name="case", model=Slope, loss=F.mse_loss, optimizer=adam, batch=given), ["overfit_batch"], steps=400
    )[0]
    assert found.passed, found.summary
    assert not verdict(model=lambda: Slope(blind=True), loss=F.mse_loss, batch=given).passed


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_unsigned_tokens_are_numbered_in_a_dtype_that_torch_computes_with(dtype: str) -> None:
    tokens = random.integers(0, 50, size=(ROWS, 6)).astype(dtype)
    model = lambda: nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(48, 3))  # noqa: E731
    assert verdict(model=model, loss=F.cross_entropy, batch=(tokens, Y)).passed


# ------------------------------------------------------------------------------------------------------------ refusals

TEXTS = ["abc"[label] for label in Y]
MASKED = np.ma.masked_greater(X, 1)
STRUCTURED = np.zeros(ROWS, dtype=[("age", "f4"), ("size", "f4")])

REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no part named as targets": (
        {"batch": {"x": X, "z": Y}},
        ("a batch is a dict with the parts 'x', 'z'", "none is named", "batch=lambda: (data['x'], data['z'])"),
    ),
    "two parts named as targets": (
        {"batch": {"x": X, "y": Y, "labels": Y}},
        ("'y' and 'labels' are both names of targets", "write the pair"),
    ),
    "targets only": ({"batch": {"y": Y}}, ("with the parts 'y'", "it has no inputs")),
    "three parts": ({"batch": (X, Y, Y)}, ("three parts", "only Keras takes weights", "give batch=(x, y)")),
    "three parts of a loader": ({"batch": [TX, TY, TY]}, ("three parts", "only Keras takes weights")),
    "four parts": ({"batch": (X, Y, Y, Y)}, ("a batch is tuple of 4", "((x1, x2), y) for two inputs")),
    "labels as texts": ({"batch": (X, TEXTS)}, ("of dtype <U1", "numpy.unique(labels, return_inverse=True)[1]")),
    "labels as texts in a dict": ({"batch": (X, {"a": TEXTS})}, ("targets are texts", "numpy.unique(texts")),
    "texts": ({"batch": (TEXTS, Y)}, ("number text", "({'texts': texts}, y)")),
    "objects": ({"batch": ([Arrow] * ROWS, Y)}, ("a list of 12 rows of type type", "({'images': entries}, y)")),
    "masked": ({"batch": (MASKED, Y)}, (f"{MASKED.mask.sum()} masked numbers", "write x.filled(value)")),
    "structured": ({"batch": (STRUCTURED, Y)}, ("the fields age, size", "{'age': x['age'], ...}")),
    "times": ({"batch": (X.astype("datetime64[D]"), Y)}, ("dtype datetime64[D]", "numpy.timedelta64(1, 'D')")),
    "durations": ({"batch": (X.astype("timedelta64[s]"), Y)}, ("dtype timedelta64[s]", "x / numpy.timedelta64")),
    "table with words": (
        {"batch": (Table([["a", 1.0]] * ROWS), Y)},
        ("a table with columns that are not numbers (c0", "number text"),
    ),
    "ragged lists": ({"batch": ([[1.0] * (row + 1) for row in range(ROWS)], Y)}, ("of unequal length", "pad them")),
    "nested tensor": (
        {"batch": lambda: (torch.nested.nested_tensor(list(TX)), TY)},
        ("a nested tensor", "to_padded_tensor"),
    ),
    "meta tensor": ({"batch": (TX.to("meta"), TY)}, ("on the meta device, which holds no numbers",)),
    "packed sequence": (
        {"batch": (nn.utils.rnn.pack_sequence([TX[:2], TX[:1], TX[:3]], enforce_sorted=False), Y[:3])},
        ("of different length", "'rows_interact': True"),
    ),
    "a long text": ({"batch": {"x": X, "note": "a" * 999, "y": Y}}, ("inputs: 'aaa", "aaa...; expected numpy arrays")),
    "an object": ({"batch": (object(), Y)}, ("the batch's inputs: a object", "tuples, dicts and dataclasses")),
    "a number as targets": ({"batch": (X, np.int64(3))}, ("the batch's targets: a single number without rows",)),
    "no rows": ({"batch": {"x": X[:0], "y": Y[:0]}}, ("the batch is empty", "0 and 0 rows")),
    "empty list": ({"batch": ([], Y)}, ("the batch has no inputs",)),
    "a path as train": ({"train": "data.csv"}, ("train= is 'data.csv'", "a dataset, a loader")),
    "a table as train": ({"train": Table(X)}, ("one table", "train=(table[inputs], table[target])")),
    "splits as train": ({"train": {"train": Columns()}}, ("a dict of datasets ('train')", "train=datasets['train']")),
    "unequal samples": (
        {"train": OfSamples([(picture, 0) for picture in pictures()])},
        ("the samples of train= cannot be stacked", "collate_fn=..."),
    ),
    "many lengths": (
        {"batch": ([np.zeros(row + 1) for row in range(9)], Y[:3])},
        ("so on (9 in all)", "of different length"),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_refused(what: str) -> None:
    fields, parts = REFUSED[what]
    refused(*parts, **fields)


def test_an_empty_stream_and_an_empty_list() -> None:
    refused("train= gave no batch: it is empty", train=Stream([]))
    refused("train= gave no batch: it is empty", train=OfSamples([]))
    refused("a batch", "expected a pair (inputs, targets)", batch=lambda: iter(()))
