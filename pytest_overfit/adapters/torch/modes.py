"""Switch a module between training, evaluation and "evaluation of its fit", and put everything back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.base import Mode
from pytest_overfit.adapters.torch.pass_state import OfModule, state_of_model
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.state import generators, preserved_generators, reseed
from pytest_overfit.core import state

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)

#: training-mode forwards between two looks at a hand-written running average; enough to see weights down to 0.001
_SETTLING = 16


class Modes:
    """Knows how the module trains, and switches it for a reading."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        model.train()
        #: a module frozen by its owner's own `train()` stays in evaluation
        self.flags = {module: module.training for module in model.modules()}
        self.norms = [m for m in model.modules() if isinstance(m, _NORMS) and self._keeps_statistics(m)]
        #: other modules that update buffers of their own while training, e.g. a hand-written batch normalisation
        self.others: list[nn.Module] = []
        #: evaluation answers in another form than training does (auxiliary outputs), so that the loss cannot take it:
        #: the fit is then read as training, without the layers that are random
        self.evaluates_differently = False
        #: what passes change in the model and around it: statistics, hidden states, counters
        self.state = state_of_model(model)
        self.state.always(lambda owner: isinstance(owner, OfModule) and owner.module in self.norms)
        self._readings = 0

    def _keeps_statistics(self, module: nn.Module) -> bool:
        return self.flags[module] and getattr(module, "running_mean", None) is not None

    @contextlib.contextmanager
    def noting_updating_modules(self) -> Iterator[None]:
        """Note which modules change float buffers of their own in the training pass inside."""
        before = [
            (module, name, buffer.clone())
            for module in self.model.modules()
            if self.flags.get(module) and module not in self.norms
            for name, buffer in module.named_buffers(recurse=False)
            if buffer.is_floating_point()
        ]
        yield
        changed = [module for module, name, old in before if _is_updated(getattr(module, name), old)]
        self.others = list(dict.fromkeys(changed))

    @contextlib.contextmanager
    def reading(
        self,
        mode: Mode,
        forward: Callable[[], Any] | None = None,
        *,
        fresh: bool = False,
        rows: int | None = None,
        seed: int | None = None,
    ) -> Iterator[None]:
        """Set the mode; on the way out restore flags, whatever a pass changed, and generators.

        `forward` is needed to re-estimate; `fresh` and `rows` are those of `KeptState.kept`; `seed` draws what another
        reading with it drew.
        """
        kept = self.state.kept(evaluating=mode == "eval", fresh=fresh, rows=rows)
        with state.preserved_generators(), preserved_generators(), kept:
            self._reseed(seed)
            try:
                self._switch(mode, forward)
                yield
            finally:
                self._restore_flags()

    def draws_in_training(self, forward: Callable[[], Any]) -> bool:
        """Make a pass as in training that leaves no trace; True where what it answers is drawn at random."""
        with self.reading("train"):
            before, first = generators(), tensors(forward())
            return generators() != before and not alike(first, tensors(forward()))

    def _reseed(self, seed: int | None) -> None:
        """Other random numbers at each reading: a model that is random in evaluation must not look steady."""
        self._readings += 1
        seed = self._readings if seed is None else seed
        state.seed_standard_library(seed)
        reseed(seed)

    def _restore_flags(self) -> None:
        self.model.train()
        for module, flag in self.flags.items():
            module.training = flag

    def _switch(self, mode: Mode, forward: Callable[[], Any] | None) -> None:
        if mode == "train":
            return
        if mode == "fit" and self.evaluates_differently:
            for module, flag in self.flags.items():
                module.training = flag and not _is_random(module)
            return
        self.model.eval()
        if mode == "fit":
            self._on_batch_statistics()
        elif mode == "reestimated" and forward is not None:
            self._reestimate(forward)

    def _on_batch_statistics(self) -> None:
        for module in (*self.norms, *self.others):
            module.training = True

    def _reestimate(self, forward: Callable[[], Any]) -> None:
        """Give running statistics the batch's own values, biased variance included, as training normalised with."""
        self._on_batch_statistics()
        if self.others:
            self._settle(forward)
        with self.observed_statistics() as seen, torch.no_grad():
            forward()
        with torch.no_grad():
            for module, (mean, variance, _) in seen.items():
                _set_statistics(module, mean, variance)
        self.model.eval()

    def _settle(self, forward: Callable[[], Any]) -> None:
        """Bring running averages of unknown weight to where endless training-mode forwards would.

        Each is b + w (s - b) a step, with s fixed, so the way it makes in equal numbers of steps shrinks by a fixed
        ratio r, and the limit is b + way / (1 - r).
        """
        buffers = [each for module in self.others for each in module.buffers(recurse=False) if each.is_floating_point()]
        looks = [[each.clone() for each in buffers]]
        for _ in range(2):
            for _ in range(_SETTLING):
                forward()
            looks.append([each.clone() for each in buffers])
        with torch.no_grad():
            for buffer, first, second, third in zip(buffers, *looks, strict=True):
                way, rest = (second - first).norm(), (third - second).norm()
                if way > 0 and rest < way:
                    buffer.copy_(first + (second - first) / (1 - rest / way))

    @contextlib.contextmanager
    def observed_statistics(self) -> Iterator[dict[nn.Module, tuple[torch.Tensor, torch.Tensor, int]]]:
        """Collect mean and biased variance of the input of every normalisation layer with running statistics.

        Those of a layer that is called several times, as in a siamese net, are averaged, as its running ones are; their
        number is the third.
        """
        seen: dict[nn.Module, tuple[torch.Tensor, torch.Tensor, int]] = {}

        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            value = args[0].detach()
            axes = [axis for axis in range(value.ndim) if axis != 1]
            mean, variance = value.mean(dim=axes), value.var(dim=axes, unbiased=False)
            before, spread, calls = seen.get(module, (mean, variance, 0))
            count = calls + 1
            seen[module] = (before + (mean - before) / count, spread + (variance - spread) / count, count)

        with contextlib.ExitStack() as hooks:
            for module in self.norms:
                hooks.enter_context(module.register_forward_pre_hook(note))
            yield seen


def materialise(model: nn.Module, forward: Callable[[], Any]) -> None:
    """Let lazy layers make their parameters, from the seed the factory was given, and nothing else change."""
    lazy = [module for module in model.modules() if isinstance(module, nn.modules.lazy.LazyModuleMixin)]
    if not any(module.has_uninitialized_params() for module in lazy):
        return
    model.train()
    with state.preserved_generators(), preserved_generators():
        forward()
    for module in lazy:
        if isinstance(module, _NORMS):
            module.reset_running_stats()


def _is_updated(buffer: object, before: torch.Tensor) -> bool:
    """Other numbers in the same places; one that is made or grown in a pass is none."""
    return isinstance(buffer, torch.Tensor) and buffer.shape == before.shape and not torch.equal(buffer, before)


def _is_random(module: nn.Module) -> bool:
    """Dropout and its kin; stochastic depth goes by many names, all with "drop" or "stochastic" in them."""
    name = type(module).__name__.lower()
    return isinstance(module, (nn.modules.dropout._DropoutNd, nn.RReLU)) or "drop" in name or "stochastic" in name


def _set_statistics(module: nn.Module, mean: torch.Tensor, variance: torch.Tensor) -> None:
    running_mean, running_var = module.running_mean, module.running_var
    if isinstance(running_mean, torch.Tensor) and isinstance(running_var, torch.Tensor):
        running_mean.copy_(mean)
        running_var.copy_(variance)
