"""After a probe everything global is as it was, whatever happened inside; and verdicts do not depend on the order."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pytest_overfit import Case, CaseError, ProgramError, run_probes
from pytest_overfit.core.state import derived_seed, fair_threads, preserved

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.arange(8) % 2


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No test here may leak what it tries, even when the plugin would let it."""
    threads = torch.get_num_threads()
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)
    os.environ.pop("OVERFIT_TRIED", None)


def everything() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "numpy errors": np.geterr(),
        "torch": torch.get_rng_state().tolist(),
        "environment": dict(os.environ),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "anomaly": torch.is_anomaly_enabled(),
    }


def disturb() -> None:
    """Change everything that the promise is about."""
    random.random()
    np.random.normal()
    np.seterr(all="ignore")
    torch.rand(1)
    os.environ["OVERFIT_TRIED"] = "1"
    os.environ["HOME"] = "/nowhere"
    os.environ.pop("USER", None)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1 if torch.get_num_threads() > 1 else 2)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    torch.autograd.set_detect_anomaly(True)


def make_model() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))


def adam(parameters: Any) -> Any:
    return torch.optim.Adam(parameters, lr=0.05)


def disturbing(where: str, error: Callable[[], BaseException] | None) -> Case:
    """A case that disturbs everything in its factory, loss or step, and then may raise."""

    def act() -> None:
        disturb()
        if error is not None:
            raise error()

    def factory() -> Any:
        if where == "factory":
            act()
        return make_model().to(torch.float32)

    def loss(outputs: Any, targets: Any) -> Any:
        if where == "loss":
            act()
        return torch.nn.functional.cross_entropy(outputs, targets)

    def step(model: Any, x: Any, y: Any) -> float:
        act()
        return 1.0

    more: dict[str, Any] = {"step": step} if where == "step" else {"loss": loss, "optimizer": adam}
    return Case(name="net", model=factory, batch=(X, Y), limits={"steps": 10}, **more)


@pytest.mark.parametrize("error", [None, lambda: ValueError("no"), KeyboardInterrupt], ids=["ends", "raises", "ctrl-c"])
@pytest.mark.parametrize("where", ["factory", "loss", "step"])
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_everything_global_is_put_back(where: str, error: Callable[[], BaseException] | None) -> None:
    case = disturbing(where, error)
    before = everything()
    if error is None:
        run_probes(case, ["overfit_batch"])
    elif error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            run_probes(case, ["overfit_batch"])
    else:
        with pytest.raises(ProgramError, match="raised ValueError: no"):
            run_probes(case, ["overfit_batch"])
    after = everything()
    assert {name for name in before if before[name] != after[name]} == set()


@pytest.mark.parametrize("off", ["no_grad", "inference_mode"])
def test_gradients_off_around_a_probe_stay_off(off: str) -> None:
    case = Case(name="net", model=make_model, loss=torch.nn.functional.cross_entropy, optimizer=adam, batch=(X, Y))
    with getattr(torch, off)():
        (verdict,) = run_probes(case, ["overfit_batch"])
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() is (off == "inference_mode")
    assert verdict.passed


def test_the_users_data_is_not_changed_by_a_step_that_writes_in_place() -> None:
    x, y, t = X.copy(), Y.copy(), torch.as_tensor(X.copy())

    def step(model: Any, x: Any, y: Any) -> float:
        for each in x:
            each *= 0
        y *= 0
        return 1.0

    run_probes(Case(name="own", model=list, step=step, batch=((x, t), y)), ["overfit_batch"], steps=3)
    assert np.array_equal(x, X)
    assert np.array_equal(y, Y)
    assert np.array_equal(t.numpy(), X)


def test_a_loader_is_not_used_up_and_its_data_is_copied() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(torch.as_tensor(X.copy()), torch.as_tensor(Y))
    loader = DataLoader(data, batch_size=4)

    def step(model: Any, x: Any, y: Any) -> float:
        x *= 0
        return 1.0

    run_probes(Case(name="own", model=make_model, step=step, train=loader), ["overfit_batch"], steps=3)
    assert np.array_equal(data.tensors[0].numpy(), X)
    assert len(list(loader)) == 2


def test_a_model_of_the_users_own_is_not_touched() -> None:
    """The factory copies a pretrained model; training goes on in the copies only."""
    import copy

    pretrained = make_model().eval()
    before = {name: value.clone() for name, value in pretrained.state_dict().items()}
    fields = {"loss": torch.nn.functional.cross_entropy, "optimizer": adam, "batch": (X, Y)}
    case = Case(name="copy", model=lambda: copy.deepcopy(pretrained), **fields)
    assert run_probes(case, ["overfit_batch"])[0].passed
    assert all(torch.equal(before[name], value) for name, value in pretrained.state_dict().items())
    assert not pretrained.training
    assert all(each.grad is None for each in pretrained.parameters())


def test_verdicts_do_not_depend_on_the_order() -> None:
    def case(name: str) -> Case:
        return Case(name=name, model=make_model, loss=torch.nn.functional.cross_entropy, optimizer=adam, batch=(X, Y))

    def losses(*names: str) -> dict[str, tuple[float, ...]]:
        return {name: run_probes(case(name), ["overfit_batch"], steps=20)[0].losses for name in names}

    forwards, backwards = losses("a", "b"), losses("b", "a")
    assert forwards == backwards
    assert forwards["a"] != forwards["b"]  # seeds come from the names
    torch.manual_seed(99)
    random.seed(99)
    assert losses("a") == {"a": forwards["a"]}


def test_seeds_depend_on_all_three() -> None:
    seeds = {derived_seed(case, probe, seed) for case in "ab" for probe in "pq" for seed in (0, 1, 2**40)}
    assert len(seeds) >= 8
    assert all(0 <= each < 2**32 for each in seeds)


def test_guards_are_left_in_reverse_also_when_one_fails() -> None:
    import contextlib

    seen = []

    @contextlib.contextmanager
    def guard() -> Iterator[None]:
        try:
            yield
        finally:
            seen.append("left")

    state = random.getstate()
    with pytest.raises(CaseError), preserved([guard]):  # noqa: PT012
        random.random()
        raise CaseError("x")
    assert seen == ["left"]
    assert random.getstate() == state


@pytest.mark.parametrize("where", ["factory", "loss", "step", "data", "optimizer"])
@pytest.mark.parametrize("style", ["fixture", "marker"])
def test_ctrl_c_passes_through(project: Any, where: str, style: str) -> None:
    project.pytester.makeconftest("")  # the real adapters
    use = (
        "def test_it(overfit):\n    overfit.batch(net())"
        if style == "fixture"
        else "@pytest.mark.overfit('overfit_batch')\ndef test_it():\n    return net()"
    )
    result = project.run(
        f"""
import torch

def stop(*arguments):
    raise KeyboardInterrupt

def net():
    more = {{"step": stop}} if {where!r} == "step" else dict(
        loss=stop if {where!r} == "loss" else torch.nn.functional.cross_entropy,
        optimizer=stop if {where!r} == "optimizer" else torch.optim.Adam)
    return Case(
        name="net", model=stop if {where!r} == "factory" else lambda: torch.nn.Linear(3, 4),
        batch=stop if {where!r} == "data" else (X, Y), **more)

{use}

def test_after():
    raise RuntimeError("went on")
""",
        "--overfit-json=out.json",
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert '"verdicts": []' in (project.path / "out.json").read_text()
    assert "went on" not in str(result.stdout)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 8),
        ({"PYTEST_XDIST_WORKER_COUNT": "1"}, 8),
        ({"PYTEST_XDIST_WORKER_COUNT": "2"}, 4),
        ({"PYTEST_XDIST_WORKER_COUNT": "64"}, 1),
        ({"PYTEST_XDIST_WORKER_COUNT": "2", "OMP_NUM_THREADS": "6"}, 8),
        ({"PYTEST_XDIST_WORKER_COUNT": "odd"}, 8),
    ],
)
def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int) -> None:
    for name in ("PYTEST_XDIST_WORKER_COUNT", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert fair_threads(8) == expected
