"""Trainable weights that a loss depends on although its model does not have them, and the name their owner knows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pytest_overfit.adapters.names_in_code import objects_called, objects_of
from pytest_overfit.adapters.regularizer_effects.names import of_others
from pytest_overfit.core.case import Case


class OutsideWeights:
    """Weights that are neither the model's nor updated by its optimizer: another model's, or layers never registered.

    The loss's own, which the optimizer holds (ArcFace, learnt uncertainties), are none of these.
    """

    def __init__(self, model: nn.Module, case: Case) -> None:
        self._model, self._program = model, case.step or case.loss
        self._own = {id(each) for each in model.parameters()}
        #: what the optimizer holds beside the model's weights
        self.held: list[torch.Tensor] = []
        #: losses that are looked through. Which optimizers a step has is seen by what it changes until the next
        self._looks = 1 if case.step is None else 2
        self._named: tuple[str, ...] | None = None
        #: the weights that each of these losses depends on, with their versions
        self._seen: list[dict[int, tuple[torch.Tensor, int]]] = []

    def look(self, loss: Any) -> None:
        """Look through the graph of a loss, which may have been differentiated already."""
        if len(self._seen) < self._looks:
            found = leaves_of(loss) if isinstance(loss, torch.Tensor) else ()
            self._seen.append({id(each): (each, each._version) for each in found if id(each) not in self._own})

    @property
    def reached(self) -> list[torch.Tensor]:
        """All that the first loss depends on."""
        return [each for each, _ in self._seen[0].values()] if self._seen else []

    def hold(self, weights: list[torch.Tensor]) -> None:
        """These are the optimizer's beside the model's; their owner gets them back as they are."""
        self.held = weights
        lend(weights)

    def names(self) -> tuple[str, ...]:
        """Those that every loss depended on, that the optimizer does not hold, and that nothing has changed."""
        if len(self._seen) < self._looks:
            return ()
        if self._named is None:
            self._named = self._find_names()
        return self._named

    def _find_names(self) -> tuple[str, ...]:
        named = [(each, self._name(each)) for each in self._steady()]
        # what nobody holds was made in the pass itself, as an input that is differentiated by
        return tuple(name or _shape(each) for each, name in named if name or isinstance(each, nn.Parameter))

    def _steady(self) -> list[torch.Tensor]:
        held, (first, *later) = {id(each) for each in self.held}, self._seen
        return [
            each
            for key, (each, version) in first.items()
            if key not in held and all(key in seen and seen[key][1] == version for seen in later)
        ]

    def remark(self) -> str:
        """The same in words; "" where there are none."""
        return of_others(self.names())

    def _name(self, wanted: torch.Tensor) -> str:
        root = "loss" if isinstance(self._program, nn.Module) else ""
        found = (*objects_of(self._program, root, _inside), *objects_of(self._model, "model", _inside))
        return next((path or "its own" for path, each in found if each is wanted), "")


def _inside(value: Any, path: str) -> Iterator[tuple[str, Any]] | None:
    if isinstance(value, torch.Tensor):
        return iter(())
    if not isinstance(value, nn.Module):
        return None
    held = ((f"{path}.{name}", each) for name, each in value.named_parameters())
    plain = {name: each for name, each in vars(value).items() if isinstance(each, (list, tuple, dict))}
    others = ((f"{path}.{name}", each) for name, each in plain.items() if not name.startswith("_"))
    return itertools.chain(held, others, objects_called(value))


def _shape(weight: torch.Tensor) -> str:
    return f"a {type(weight).__name__} of shape {tuple(weight.shape)}"


def leaves_of(loss: torch.Tensor) -> list[torch.Tensor]:
    """Every leaf in the graph of a loss. Cost: about a microsecond for each operation in it."""
    found: dict[int, torch.Tensor] = {}
    nodes = [loss.grad_fn]
    seen = {None, loss.grad_fn}
    while nodes:
        node: Any = nodes.pop()
        if type(node).__name__ == "AccumulateGrad":
            found[id(node.variable)] = node.variable
        following = [each for each, _ in getattr(node, "next_functions", ()) if each not in seen]
        seen.update(following)
        nodes += following
    return list(found.values())


# ------------------------------------------------------------------ the loss's own

#: weights that are lent to learners, with the values and gradients that their owner gave them
_lent: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = {}


def lend(weights: Sequence[torch.Tensor]) -> None:
    """Remember what these are now, where nobody has yet."""
    for each in weights:
        _lent.setdefault(id(each), (each, each.detach().clone(), each.grad))


def begin_again(weights: Sequence[torch.Tensor]) -> None:
    """Each training begins with what their owner gave them, not with what the last one left."""
    lend(weights)
    with torch.no_grad():
        for each in weights:
            each.copy_(_lent[id(each)][1])
            each.grad = None


def give_back() -> None:
    """Whatever was lent is again what it was."""
    begin_again([each for each, *_ in _lent.values()])
    for each, _, gradient in _lent.values():
        each.grad = gradient
    _lent.clear()
