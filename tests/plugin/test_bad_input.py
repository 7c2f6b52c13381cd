"""Misuse: one clear error that says what was given, what is wanted, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pytest_overfit import Case, CaseError, ProgramError, run_probes

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.arange(8) % 2
cross_entropy = torch.nn.functional.cross_entropy


def make_model() -> Any:
    return torch.nn.Linear(3, 2)


def adam(parameters: Any) -> Any:
    return torch.optim.Adam(parameters, lr=0.05)


def case(**more: Any) -> Case:
    fields = {"name": "net", "model": make_model, "loss": cross_entropy, "optimizer": adam, "batch": (X, Y)}
    return Case(**{**fields, **more})


def refused(make: Callable[[], Any], *parts: str, error: type[Exception] = CaseError) -> str:
    """Run what must be refused; every part must stand in the message."""
    with pytest.raises(error) as caught:
        run_probes(make(), ["overfit_batch"], steps=5)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    return message


def shared_model() -> Callable[[], Any]:
    model = make_model()
    return lambda: model


def shared_layer() -> Callable[[], Any]:
    layer = make_model()
    return lambda: torch.nn.Sequential(layer)


def needs_width(width: int) -> Any:
    return torch.nn.Linear(3, width)


FACTORIES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a model": (make_model(), ("model: expected a factory, got a model (Linear)", "write model=make_model")),
    "a number": (3, ("model: expected a factory, ", "got 3", "write model=make_model")),
    "required argument": (
        needs_width,
        ("model= needs the argument width", "is called without any", "write model=lambda: needs_width(width=...)"),
    ),
    "returns None": (lambda: None, ("the model factory returned None", "end it with `return model`")),
    "the same model": (
        shared_model(),
        ("the same model twice", "expected a new model", "build the layers inside the factory"),
    ),
    "the same layer": (shared_layer(), ("the same parameters twice", "build the layers inside the factory")),
    "returns a class": (
        lambda: torch.nn.Flatten,
        ("returned the class Flatten", "expected a model", "write model=lambda: Flatten(...)"),
    ),
    "returns no model": (
        lambda: [1.0],
        ("returned list of 1", "neither a torch.nn.Module nor a compiled keras.Model", "give step="),
    ),
}


@pytest.mark.parametrize("what", FACTORIES)
def test_factory(what: str) -> None:
    factory, parts = FACTORIES[what]
    refused(lambda: case(model=factory), "Case 'net': ", *parts)


def test_factory_of_the_unregularized_model() -> None:
    refused(
        lambda: case(unregularized=make_model()),
        "unregularized: expected a factory, got a model (Linear)",
        "unregularized=make_plain_model",
    )


def other_optimizer() -> Any:
    return torch.optim.SGD(make_model().parameters(), lr=0.1)


LOSSES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "missing loss": ({"loss": None}, ("it has no loss", "write loss=torch.nn.functional.cross_entropy")),
    "loss is a string": ({"loss": "mse"}, ("loss: expected a function, got 'mse'",)),
    "loss class": (
        {"loss": torch.nn.CrossEntropyLoss},
        ("loss= is the class CrossEntropyLoss", "write loss=torch.nn.CrossEntropyLoss()"),
    ),
    "vector": (
        {"loss": lambda outputs, targets: cross_entropy(outputs, targets, reduction="none")},
        ("returned Tensor of shape (8,)", "expected one number", "end the loss with .mean()"),
    ),
    "float": (
        {"loss": lambda outputs, targets: cross_entropy(outputs, targets).item()},
        ("the loss function returned", "expected a tensor with one number", "leave out .item()"),
    ),
    "None": ({"loss": lambda outputs, targets: None}, ("the loss function returned None", "a tensor with one number")),
    "no gradient": (
        {"loss": lambda outputs, targets: cross_entropy(outputs.detach(), targets)},
        ("the loss has no gradient", "cuts the graph", "detach()"),
    ),
    "missing optimizer": (
        {"optimizer": None},
        ("needs an optimizer", "write optimizer=lambda parameters: torch.optim.Adam("),
    ),
    "optimizer instance": (
        {"optimizer": other_optimizer()},
        (
            "optimizer: expected a function",
            "got an optimizer (SGD) that belongs to another model",
            "write optimizer=lambda parameters:",
        ),
    ),
    "optimizer is a string": ({"optimizer": "adam"}, ("optimizer: expected a function, got 'adam'",)),
    "optimizer of another model": (
        {"optimizer": lambda parameters: other_optimizer()},
        ("holds 2 parameters of another model", "write optimizer=lambda parameters:"),
    ),
    "optimizer class of keras": (
        {"optimizer": lambda parameters: "adam"},
        ("the optimizer function returned 'adam'", "expected a torch optimizer", "write optimizer=lambda"),
    ),
    "scheduler": (
        {"scheduler": lambda optimizer: 3},
        ("the scheduler function returned 3", "expected a torch scheduler", "write scheduler=lambda"),
    ),
}


@pytest.mark.parametrize("what", LOSSES)
def test_loss_and_optimizer(what: str) -> None:
    fields, parts = LOSSES[what]
    refused(lambda: case(**fields), "Case 'net'", *parts)


def with_(array: Any, value: Any) -> Any:
    changed = array.copy()
    changed[2, 1] = value
    return changed


HOLES = "the batch's inputs: 1 of 24 numbers are NaN or infinite"

BATCHES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "empty": ((X[:0], Y[:0]), ("the batch is empty: inputs and targets have 0 and 0 rows",)),
    "lengths": ((X, Y[:7]), ("of different length: 8 rows of x, 7 of y", "rows come first")),
    "nan": ((with_(X, np.nan), Y), (HOLES, "the first in row 2", "impute or drop")),
    "inf": ((torch.as_tensor(with_(X, np.inf)), Y), (HOLES,)),
    "object": ((X.astype(object), Y), ("ndarray of shape (8, 3) and dtype object", "write x.astype('float32')")),
    "no pair": ((X, Y, Y), ("three parts", "only Keras takes weights", "give batch=(x, y)")),
    "an array": (X, ("a batch is ndarray of shape (8, 3)", "expected a pair (inputs, targets)")),
    "strings": (
        (["a", "b"], [0, 1]),
        ("an array of dtype <U1", "torch has no tensor for", "number text"),
    ),
    "no arrays": (("ab", Y), ("the batch's inputs: 'ab'", "expected numpy arrays or tensors", "write numpy.asarray")),
    "no inputs": ((None, Y), ("the batch has no inputs", "give batch=(x, y)")),
    "no rows": ((np.float32(3), Y), ("a single number without rows", "one row a sample")),
}


@pytest.mark.parametrize("what", BATCHES)
def test_batch(what: str) -> None:
    batch, parts = BATCHES[what]
    refused(lambda: case(batch=batch), *parts)
    refused(lambda: case(batch=lambda: batch), *parts)


def test_missing_values_in_targets() -> None:
    mse = torch.nn.functional.mse_loss
    make = lambda: case(batch=(X, np.full((8, 2), np.nan, "float32")), loss=mse)  # noqa: E731
    refused(make, "the batch's targets: 16 of 16 numbers are NaN or infinite")


@pytest.mark.parametrize(
    ("train", "parts"),
    [
        ([], ("train= gave no batch: it is empty",)),
        (lambda: iter(()), ("train= gave no batch: it is empty",)),
        (3, ("train= is 3", "(x, y), a dataset, a loader, or a function")),
        (lambda: None, ("train= is None", "(x, y), a dataset, a loader, or a function")),
    ],
)
def test_train(train: Any, parts: tuple[str, ...]) -> None:
    refused(lambda: case(batch=None, train=train), "Case 'net': ", *parts)


def test_an_empty_loader_and_an_empty_dataset() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.as_tensor(X[:0]), torch.as_tensor(Y[:0]))
    refused(
        lambda: case(batch=None, train=DataLoader(data, batch_size=4)), "Case 'net': train= gave no batch: it is empty"
    )
    refused(lambda: case(batch=None, train=data), "Case 'net': ", "train=", "empty")


def test_a_case_without_data() -> None:
    refused(lambda: case(batch=None), "Case 'net': it has no data", "give batch=(x, y)")


LABELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "too large": (
        Y + 1,
        ("cross_entropy: labels go from 1 to 2", "the model has 2 outputs", "number the labels from 0"),
    ),
    "negative": (Y - 1, ("cross_entropy: labels go from -1 to 0", "the model has 2 outputs")),
    "float": (
        torch.as_tensor(Y).float(),
        (
            "cross_entropy expects integer class labels (int64)",
            "got Tensor of shape (8,) and dtype float32",
            "write y.long()",
        ),
    ),
    "int32": (
        torch.as_tensor(Y).int(),
        (
            "cross_entropy expects class labels of dtype int64",
            "got Tensor of shape (8,) and dtype int32",
            "write y.long()",
        ),
    ),
}


@pytest.mark.parametrize("what", LABELS)
def test_labels(what: str) -> None:
    labels, parts = LABELS[what]
    refused(lambda: case(batch=(X, labels)), "Case 'net': ", *parts)


def test_ignored_labels_are_allowed() -> None:
    labels = np.where(np.arange(8) == 3, -100, Y)
    assert run_probes(case(batch=(X, labels)), ["overfit_batch"], steps=5)[0].steps == 5
    own = lambda outputs, targets: cross_entropy(outputs, targets, ignore_index=-1)  # noqa: E731
    assert (
        run_probes(case(batch=(X, np.where(np.arange(8) == 3, -1, Y)), loss=own), ["overfit_batch"], steps=5)[0].steps
        == 5
    )


FIELDS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"name": "a b"}, ("name='a b'", "letters, digits, '_' and '.'", "write e.g. name='mlp'")),
    ({"name": "a-b"}, ("name='a-b'", "letters, digits, '_' and '.'")),
    ({"name": ""}, ("name=''", "letters, digits")),
    ({"name": 3}, ("name=3", "letters, digits")),
    ({"name": "a\n"}, ("name='a\\n'", "letters, digits")),
    ({"task": "multi_class"}, ("unknown task 'multi_class'; did you mean 'multiclass'?",)),
    ({"task": 3}, ("unknown task 3; known: binary, ",)),
    ({"seed": -1}, ("seed: expected a whole number of 0 or more, got -1",)),
    ({"seed": True}, ("seed: expected a whole number of 0 or more, got True",)),
    ({"seed": "1"}, ("seed: expected a whole number of 0 or more, got '1'",)),
    ({"classes": 1}, ("classes: expected a whole number of 2 or more, got 1",)),
    ({"classes": 2.0}, ("classes: expected a whole number of 2 or more, got 2.0",)),
    ({"limits": [3]}, ("limits: expected a dict with string keys, got list of 1",)),
    ({"limits": {3: 3}}, ("limits: expected a dict with string keys, got a dict",)),
    ({"options": "x"}, ("options: expected a dict with string keys, got 'x'",)),
    ({"step": 3}, ("step: expected a function, got 3",)),
    ({"score": "accuracy"}, ("score: expected a function, got 'accuracy'",)),
    ({"autocast": 16}, ("autocast: expected the name of a dtype, e.g. 'bfloat16', got 16",)),
    ({"limits": {"stps": 3}}, ("limits: unknown limit 'stps'; did you mean 'steps'?",)),
    ({"limits": {"steps": "3"}}, ("limits: steps: expected a whole number, got '3'",)),
]


@pytest.mark.parametrize(("fields", "parts"), FIELDS, ids=lambda value: str(next(iter(value)))[:20])
def test_fields(fields: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(lambda: case(**fields), *parts)


def test_misuse_is_told_before_anything_is_trained() -> None:
    steps = []

    def step(model: Any, x: Any, y: Any) -> float:
        steps.append(1)
        return 1.0

    own = case(model=list, step=step)
    for wrong in ({"probes": ["overfit_bach"]}, {"stps": 3}, {"steps": -3}):
        with pytest.raises(CaseError):
            run_probes(own, **{"probes": ["overfit_batch"], **wrong})
    assert not steps


def test_a_step_that_returns_nothing() -> None:
    message = ("step returned None", "expected the loss of the step", "end it with `return loss`")
    refused(lambda: case(step=lambda model, x, y: None), "Case 'net': ", *message)
    refused(lambda: case(model=list, step=lambda model, x, y: None), "Case 'net': ", *message)


# --------------------------------------------------------------------------------------------- the user's code raises

PROGRAM = """
import torch

def raises(*arguments):
    def inner():
        raise ValueError("the disk is full")
    inner()

def net(where):
    fields = dict(model=lambda: torch.nn.Linear(3, 4), loss=torch.nn.functional.cross_entropy,
                  optimizer=torch.optim.Adam, batch=(X, Y))
    if where == "forward":
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(3, 4)
            def forward(self, x):
                raises()
        fields["model"] = Net
    else:
        fields[where] = raises
    return Case(name="net", **fields)
"""

CALLS = {
    "model": "the model factory",
    "loss": "the loss",
    "optimizer": "the optimizer function",
    "scheduler": "the scheduler function",
    "step": "step",
    "score": "score",
    "batch": "the batch function",
    "forward": "the model",
}


@pytest.mark.parametrize("style", ["fixture", "marker"])
@pytest.mark.parametrize("where", CALLS)
def test_the_users_own_frame_is_shown_and_nothing_else(project: Any, where: str, style: str) -> None:
    project.pytester.makeconftest("")  # the real adapters
    use = {
        "fixture": f"def test_it(overfit):\n    overfit.batch(net({where!r}))\n",
        "marker": f"@pytest.mark.overfit('overfit_batch')\ndef test_it():\n    return net({where!r})\n",
    }[style]
    result = project.run(PROGRAM + use)
    result.assert_outcomes(failed=1)
    failure = str(result.stdout).partition("FAILURES")[2]
    assert re.search(rf"(Case 'net': )?{CALLS[where]} raised ValueError: the disk is full", failure)
    number = next(
        n for n, line in enumerate((project.path / "test_it.py").read_text().splitlines(), 1) if "disk" in line
    )
    assert f'File "{project.path / "test_it.py"}", line {number}, in inner' in failure
    assert 'raise ValueError("the disk is full")' in failure
    for hidden in ("site-packages", "pytest_overfit/", "During handling", "_call_impl"):
        assert hidden not in failure, hidden


def test_the_original_exception_is_kept_as_context() -> None:
    def loss(outputs: Any, targets: Any) -> Any:
        raise KeyError("weights")

    with pytest.raises(ProgramError, match="raised KeyError: 'weights'") as caught:
        run_probes(case(loss=loss), ["overfit_batch"])
    assert isinstance(caught.value.__context__, KeyError)


def test_a_layer_that_refuses_its_input_is_named() -> None:
    def crashing() -> Any:
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(5, 2))

    message = refused(lambda: case(model=crashing), "raised RuntimeError", error=ProgramError)
    assert re.search(r"Linear.*\(8, 4\)", message, re.DOTALL), message
    assert "5" in message


def test_skip_inside_a_factory_is_a_skip(project: Any) -> None:
    project.pytester.makeconftest("")
    result = project.run(
        """
        def factory():
            pytest.skip("no weights here")

        @pytest.mark.overfit("overfit_batch")
        def test_it():
            return Case(name="net", model=factory, batch=(X, Y))
        """,
        "-rs",
    )
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*no weights here"])


@pytest.mark.parametrize("given", ["3", "None", "[good()]", "Case"])
@pytest.mark.parametrize("call", ["overfit.batch({})", "run_probes({})"])
def test_something_else_than_a_case(project: Any, given: str, call: str) -> None:
    result = project.run(f"def test_it(overfit):\n    {call.format(given)}\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">*" + call.format(given).replace("[", "?").replace("]", "?"),
            "E*CaseError: expected a Case, got *; write Case(name=*",
        ]
    )
    result.stdout.no_fnmatch_line("*core?run.py*")


def test_the_keras_way_of_missing_optimizer_is_not_asked_of_a_step() -> None:
    """A case with its own step needs neither loss nor optimizer."""
    own = Case(name="own", model=list, step=lambda model, x, y: 1.0, batch=(X, Y))
    assert run_probes(own, ["overfit_batch"], steps=5)[0].outcome != "passed"


def test_errors_in_a_module_of_cases_stop_collection_with_the_message(project: Any) -> None:
    result = project.run(
        """
        @parametrize_with_probes([good(), good()])
        def test_it(case, probe):
            probe(case)
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E*CaseError: two cases are called 'good'; names make the test ids*"])
