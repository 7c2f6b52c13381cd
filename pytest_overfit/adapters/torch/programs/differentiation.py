"""What the first step differentiates: what cuts it off parameters on the way, and which gradient each of them gets."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from pytest_overfit.adapters.programs import Cut
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.tracing.following import Following, Past
from pytest_overfit.core.errors import OverfitError

Tensor = torch.Tensor


@dataclasses.dataclass(frozen=True)
class Differentiated:
    """One step, as it was seen."""

    #: on the way to what is differentiated, the first of each kind
    cuts: tuple[Cut, ...]
    #: by parameter, root of the mean of squares; None: none came
    gradients: Mapping[str, float | None]
    #: what is differentiated depends on some parameter; None: nothing was seen to be differentiated
    depends: bool | None
    #: share of its gradient that an optimizer was given; None: it was not seen
    kept: float | None
    #: what was taken out of torch: "item", "numpy"
    taken_out: tuple[str, ...]
    #: a sum over parameters alone that is added to the loss, and the rest of it, where it outweighs that
    penalty: tuple[float, float] | None


def differentiated(learner: TorchLearner) -> Differentiated:
    """Make one step and watch it; the learner is used for nothing else afterwards."""
    following, gradients = Following(learner.model), _Gradients(learner.model)
    try:
        with warnings.catch_warnings(), gradients:
            warnings.simplefilter("ignore")
            with following.noting_modules(learner.model), following:
                learner.train(1)
    except (RuntimeError, OverfitError):
        pass  # what nothing depends on cannot be differentiated
    found = gradients.found
    depends: bool | None = any(each is not None for each in found.values())
    if not depends and not following.roots:
        depends = None
    return Differentiated(
        cuts=tuple(_first_of_each(following.roots)),
        gradients=found,
        depends=depends,
        kept=gradients.kept(),
        taken_out=tuple(following.taken_out),
        penalty=following.penalty,
    )


def _first_of_each(roots: list[tuple[Tensor, Past]]) -> Iterator[Cut]:
    """The first cut of each operation; behind it is all that its later ones cut as well."""
    seen: dict[tuple[str, bool], Cut] = {}
    for _, past in roots:
        for cut in past.cuts:
            known = seen.get((cut.operation, cut.smooth))
            behind = tuple(sorted({*cut.behind, *(known.behind if known else ())}))
            seen[cut.operation, cut.smooth] = dataclasses.replace(known or cut, behind=behind)
    return iter(seen.values())


class _Gradients:
    """The first gradient that a backward pass brings to each parameter, and what an optimizer is given of it."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.found: dict[str, float | None] = dict.fromkeys(self._parameters)
        self._left: dict[int, float] = {}
        self._shares: list[float] = []
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        for name, each in self._parameters.items():
            self._handles.append(each.register_hook(self._noting(name)))  # type: ignore[no-untyped-call]
            self._handles.append(each.register_post_accumulate_grad_hook(self._leave))  # type: ignore[no-untyped-call]
        self._handles.append(register_optimizer_step_pre_hook(self._step))

    def __exit__(self, *_: object) -> None:
        for each in self._handles:
            each.remove()

    def _noting(self, name: str) -> Any:
        def note(gradient: Tensor) -> None:
            if self.found[name] is None:
                dense = gradient.to_dense() if gradient.is_sparse else gradient
                self.found[name] = float(dense.float().norm()) / math.sqrt(max(1, dense.numel()))

        return note

    def _leave(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._left[id(parameter)] = float(parameter.grad.detach().norm())

    def _step(self, optimizer: Any, *_: Any) -> None:
        held = [each for group in optimizer.param_groups for each in group["params"] if each.grad is not None]
        left = [(each.grad, self._left.get(id(each), 0.0)) for each in held]
        self._shares += [float(grad.detach().norm()) / before for grad, before in left if before]

    def kept(self) -> float | None:
        """The middle one of all parameters'."""
        return sorted(self._shares)[len(self._shares) // 2] if self._shares else None
