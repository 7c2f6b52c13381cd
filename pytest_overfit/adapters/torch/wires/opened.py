"""Torch's answers to what the probe of the wiring asks."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.base import Reading
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.wires import moves
from pytest_overfit.adapters.torch.wires.functions import wrong_functions
from pytest_overfit.adapters.torch.wires.parts import leaves_of, unregistered
from pytest_overfit.adapters.torch.wires.tensors import changed, norm
from pytest_overfit.adapters.torch.wires.watch import StepWatch
from pytest_overfit.adapters.wires import Descent, Moved, Update, Weight
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import is_users_class
from pytest_overfit.data.batch import leaves, to_numpy

Tensor = torch.Tensor

#: a parameter's change must exceed its spacing by this much to be demanded
_SPACINGS = 4.0


class TorchWires:
    """One learner, watched."""

    def __init__(self, learner: TorchLearner) -> None:
        self.learner, self.model = learner, learner.model
        self.remarks: tuple[str, ...] = ()
        self._watch = StepWatch(self.model)
        self._hidden = unregistered(self.model)
        self._hidden_start = {name: each.detach().clone() for name, each in self._hidden.items()}
        self._leaves: set[int] = set()

    # ------------------------------------------------------------------ weights

    def weights(self) -> list[Weight]:
        self._watch.follow(self.model)
        modules = dict(self.model.named_modules())
        return [self._weight(name, each, modules) for name, each in self._watch.named.items()]

    def _weight(self, name: str, parameter: nn.Parameter, modules: dict[str, nn.Module]) -> Weight:
        path, _, own = name.rpartition(".")
        around = modules.get(path.rpartition(".")[0], self.model) if path else self.model
        return Weight(
            name=name,
            module=path,
            kind=type(modules.get(path, self.model)).__name__,
            trainable=parameter.requires_grad,
            main=own == "weight" or own.endswith("_weight") or own.startswith("weight_"),
            of_library=not is_users_class(type(around)),
        )

    def _trainable(self) -> dict[str, nn.Parameter]:
        named = self._watch.named.items()
        return {name: each for name, each in named if each.requires_grad and each.is_floating_point()}

    def unregistered(self) -> list[str]:
        return [
            name
            for name, each in self._hidden.items()
            if id(each) in self._leaves
            and not self._watch.holds(each)
            and torch.equal(each.detach(), self._hidden_start[name])
        ]

    # ------------------------------------------------------------------- update

    def update(self) -> Update:
        parameters, buffers = dict(self._watch.named), dict(self.model.named_buffers())
        before = {name: each.detach().clone() for name, each in (parameters | buffers).items()}
        with self._watch.watching(), self._calls() as (rows, evaluating):
            loss = self.learner.train(1)[0]
            undone = self._watch.undone()
        now = dict(self.model.named_parameters())
        return Update(
            loss=loss,
            events=tuple(self._watch.events),
            changed=changed(parameters, before),
            buffers=changed({name: each for name, each in self.model.named_buffers() if name in before}, before),
            rows=tuple(rows),
            in_evaluation=bool(evaluating) and all(evaluating),
            replaced=frozenset(name for name, each in now.items() if each is not parameters.get(name)),
            undone=undone,
        )

    @contextlib.contextmanager
    def _calls(self) -> Iterator[tuple[list[int], list[bool]]]:
        """Rows of each differentiated call of the model, and whether it was evaluating."""
        rows: list[int] = []
        evaluating: list[bool] = []

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            if torch.is_grad_enabled():
                evaluating.append(not module.training)
                given = tensors((args, kwargs))
                rows.append(int(given[0].shape[0]) if given and given[0].ndim else 0)

        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            if self._hidden and torch.is_grad_enabled():
                for each in tensors(output):
                    self._leaves |= leaves_of(each)

        if isinstance(self.model, torch.jit.ScriptModule) or self.learner.forward.is_compiled:
            self.remarks = ("a compiled model takes no hooks: what it is called with was not looked at",)
            yield rows, evaluating
            return
        with (
            self.model.register_forward_pre_hook(before, with_kwargs=True),
            self.model.register_forward_hook(after),
        ):
            yield rows, evaluating

    def should_move(self, name: str) -> bool:
        parameter, rate = self._watch.named[name], self._watch.rate_of(name)
        gradient = self._watch.stepped_with.get(name)
        if gradient is None or rate is None:
            return False
        size = parameter.detach().abs().clamp_min(torch.finfo(parameter.dtype).tiny)
        return bool((rate * gradient.abs() > _SPACINGS * torch.finfo(parameter.dtype).eps * size).any())

    def rates(self, steps: int) -> list[float]:
        scheduler, optimizer = self.learner.scheduler, self.learner.optimizer
        if scheduler is None or isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            return []
        found = []
        for _ in range(steps):
            found.append(max(float(group["lr"]) for group in optimizer.param_groups))
            try:
                scheduler.step()
            except Exception:  # some end after the steps they were planned for
                break
        return found

    # -------------------------------------------------------------------- moves

    def gradients(self) -> dict[str, float | None] | None:
        named = self._trainable()
        with self.learner.modes.reading("train"):
            _, loss, _ = self.learner.forward.watched(quiet=False)
            if loss is None or not loss.requires_grad or not named:
                return None
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return {name: None if each is None else norm(each) for name, each in zip(named, found, strict=True)}

    def moved_by(self, names: Sequence[str], share: float) -> Moved:
        return moves.moved_by(self.learner, [self._watch.named[name] for name in names], share)

    def shaken(self, share: float, index: int) -> Reading | None:
        return moves.shaken(self.learner, list(self._trainable().values()), share, index)

    def descent(self, shares: Sequence[float]) -> Descent | None:
        return moves.descent(self.learner, list(self._trainable().values()), shares)

    def silent(self, names: Sequence[str]) -> bool:
        modules = dict(self.model.named_modules())
        paths = {name.rpartition(".")[0] for name in names}
        return moves.silent(self.learner, [modules[path] for path in paths if path in modules])

    def wrong_functions(self) -> list[str]:
        return wrong_functions(self.learner)

    # ------------------------------------------------------------------- inputs

    def inputs(self) -> dict[str, Array]:
        places = _places(self.learner.batch.x, self.learner.forward.argument_names())
        targets, axes = set(map(str, self.learner.labels)), self._row_axes(places)
        turned = {name: each.movedim(axes[name], 0) if axes[name] else each for name, each in places.items()}
        return {name: to_numpy(each) for name, each in turned.items() if name not in targets}

    def _row_axes(self, places: Iterable[str]) -> dict[str, int]:
        """Where the model takes the rows of each input."""
        batch = self.learner.by_row
        pairs = zip(leaves(batch.x), batch.axes.x, strict=True) if batch.axes else ()
        known = [axis for leaf, axis in pairs if isinstance(leaf, Tensor)]
        return dict(zip(places, known or itertools.repeat(0), strict=False))

    def arguments(self) -> frozenset[str]:
        named, x = self.learner.forward.argument_names(), self.learner.batch.x
        alone = isinstance(x, torch.Tensor) or self.learner.forward.unpacks
        return frozenset(name for name in self.inputs() if "." not in name) if alone else frozenset(named)

    def masks(self) -> list[tuple[str, Array]]:
        return []  # torch hands no masks on

    def answer_repadded(self, mask: str, repadded: Callable[[Array], Array]) -> tuple[Array, ...] | None:
        del mask, repadded
        return None

    def buffers(self) -> list[str]:
        return [name for name, _ in self.model.named_buffers()]

    def answer(self, inputs: Mapping[str, Array], training: bool = False) -> tuple[Array, ...] | None:
        axes = self._row_axes(_places(self.learner.batch.x, self.learner.forward.argument_names()))
        names = iter(axes)

        def replaced(leaf: Any) -> Any:
            name = next(names)
            if name not in inputs:
                return leaf
            return torch.as_tensor(inputs[name]).movedim(0, axes[name]).to(leaf.device, leaf.dtype).contiguous()

        x = pytree.tree_map_only(torch.Tensor, replaced, self.learner.batch.x)
        with self.learner.modes.reading("train" if training else "eval"), torch.no_grad():
            moves.hold_noise()
            try:
                outputs = [to_numpy(each) for each in tensors(self.learner.forward.call(x))]
            except Exception:  # a model that takes these values only cannot be asked; that is not a fault
                return None
        return self.learner.output_rows.first(outputs)

    def strides(self) -> bool:
        return any(_steps_over(each) for each in self.model.modules())


def _places(x: Any, arguments: Sequence[str]) -> dict[str, Tensor]:
    """The tensors among the inputs, by the name of their argument, or the way to them."""
    found: dict[str, Tensor] = {}
    for path, leaf in pytree.tree_flatten_with_path(x)[0]:
        if isinstance(leaf, Tensor):
            steps = [str(getattr(each, "key", getattr(each, "idx", getattr(each, "name", each)))) for each in path]
            if not steps:
                steps = [arguments[0]] if arguments else ["x"]
            elif steps[0].isdigit() and int(steps[0]) < len(arguments):
                steps[0] = arguments[int(steps[0])]
            found[".".join(steps)] = leaf
    return found


def _steps_over(module: nn.Module) -> bool:
    stride = getattr(module, "stride", 1)
    return any(isinstance(each, int) and each > 1 for each in (stride if isinstance(stride, tuple) else (stride,)))
