"""Modules that draw random numbers in their own forward, whatever they are called: noise and masks written by hand.

Between calls of modules it is looked whether a generator has moved; what moved it is the module being called. Draws of
the functions that drop are those functions' own places. What draws where the model evaluates is held against it only if
it hands on a noisy copy of its input, as a dropout does that forgot the mode, or is named after
dropping: samples and masks are drawn by design.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Self

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pytest_overfit.adapters.regularizer_effects import places as effects
from pytest_overfit.adapters.regularizer_effects.drawing import ANSWERS, as_meant, is_copy
from pytest_overfit.adapters.regularizer_effects.names import dropout_rates
from pytest_overfit.adapters.regularizer_effects.places import EVALUATION, Kind, PlaceCall
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.regularizers.dropout import DROPS, ModulePlace, Places, PlaceWatch, Seen, around
from pytest_overfit.adapters.torch.regularizers.twin import DROPPING, RATE
from pytest_overfit.adapters.torch.state import generators
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import is_users_class
from pytest_overfit.data.batch import to_numpy

#: opens the mode that a pass is made in, and gives what makes it
Passes = Callable[[], AbstractContextManager[Callable[[], Any]]]


class Draws(TorchFunctionMode):
    """Which modules draw in their own forward in the passes inside, and in which mode each was called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._stack: list[nn.Module] = []
        self.found: set[nn.Module] = set()
        #: module -> it was in training mode at each call
        self.training: dict[nn.Module, bool] = {}

    def __enter__(self) -> Self:
        self._state = generators()
        self._handles = []
        for module in self._model.modules():
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._leave))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, _: Any) -> None:
        self._settle()
        self._stack.append(module)
        self.training[module] = module.training and self.training.get(module, True)

    def _leave(self, module: nn.Module, *_: Any) -> None:
        self._settle()
        while self._stack and self._stack.pop() is not module:  # a pass that was broken off inside
            pass

    def _settle(self) -> None:
        before, self._state = self._state, generators()
        if self._stack and self._state != before:
            self.found.add(self._stack[-1])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if func not in DROPPING:
            if self._stack and kwargs.get("generator") is not None:  # one of the module's own, which is not among all
                self.found.add(self._stack[-1])
            return func(*args, **kwargs)
        self._settle()
        output = func(*args, **kwargs)
        self._state = generators()
        return output


class ModuleDraws:
    """What the modules of a model draw in its training and in its evaluation."""

    def __init__(self, model: nn.Module, known: Places, by_design: Callable[[], bool]) -> None:
        """`known`: places that are looked at anyway. `by_design`: the model samples, or its task is drawn."""
        self._model, self._known, self._by_design = model, known, by_design
        self._names = {module: name for name, module in model.named_modules()}
        self._training, self._evaluation = Draws(model), Draws(model)
        self._copies: dict[ModulePlace, bool] = {}
        self.places: Places = {}
        self.remarks: list[str] = []

    def look(self, train: Passes, evaluate: Passes | None, when: Callable[[], bool] | None) -> None:
        """One pass of each kind finds what draws, another what comes of it; `when`: a part of a step trains."""
        with train() as make_pass, self._training:
            make_pass()
        if evaluate is not None:
            with evaluate() as make_pass, self._evaluation:
                make_pass()
        drawing = self._training.found | self._evaluation.found
        mine = [(module, name) for module, name in self._names.items() if module in drawing and name]
        self.places = {module: _place(self._model, name) for module, name in mine if self._is_looked_at(module)}
        if not self.places:
            return
        with train() as make_pass, PlaceWatch(self._model, dict(self.places), self._visit(0), when):
            make_pass()
        if evaluate is not None:
            with evaluate() as make_pass, PlaceWatch(self._model, dict(self.places), self._visit(EVALUATION)):
                make_pass()
        self._keep()

    def _is_looked_at(self, module: nn.Module) -> bool:
        return module not in self._known and not type(module).__module__.startswith("torch.")

    def _visit(self, number: int) -> Callable[[Seen], None]:
        def visit(seen: Seen) -> None:
            call = PlaceCall(None, off=seen.call.off, frozen=seen.call.frozen)
            if seen.place not in self.places.values():
                return  # a function that drops, which has its place already
            with torch.no_grad(), contextlib.suppress(Exception):  # what cannot be asked again is not judged
                answers = [_arrays(seen.output), *(_arrays(seen.again()) for _ in range(ANSWERS - 1))]
                call.effect = max(effects.difference(answers[0], each, 1e-6) for each in answers[1:])
                if number == EVALUATION and seen.given is not None:
                    copy = is_copy(to_numpy(seen.given), answers)
                    self._copies[seen.place] = copy and self._copies.get(seen.place, True)
            seen.place.passes.setdefault(number, []).append(call)

        return visit

    def _keep(self) -> None:
        """Those whose draws are seen in what they give, and in evaluation only noisy copies of an input."""
        design: list[str] = []
        by_design = bool(self._evaluation.found) and self._by_design()
        for module, place in list(self.places.items()):
            in_evaluation = module in self._evaluation.found
            if in_evaluation and (by_design or not (place.rate or self._copies.get(place, False))):
                design.append(place.name)
                del self.places[module]
            elif not (place.evaluation if in_evaluation else place.training):
                del self.places[module]
            elif not in_evaluation:  # what is random there is inside it, and has a place of its own
                place.passes.pop(EVALUATION, None)
        self.remarks += as_meant(design)

    def still(self) -> Iterator[ModulePlace]:
        """Layers named after dropping, with a rate, that neither draw nor hold anything that drops."""
        for module, training in self._training.training.items():
            name = self._names[module]
            place = _place(self._model, name) if name and next(module.parameters(), None) is not None else None
            if place is not None and place.rate and not self._drops_inside(name):
                place.passes[0] = [PlaceCall(0.0, off=not training)]
                yield place

    def _drops_inside(self, name: str) -> bool:
        inside = {self._model.get_submodule(name), *self._model.get_submodule(name).modules()}
        drawing = self._training.found | self._evaluation.found
        places = (key in inside or f"{place.owner}.".startswith(f"{name}.") for key, place in self._known.items())
        return bool(inside & drawing) or any(places)


def _place(model: nn.Module, name: str) -> ModulePlace:
    module, owner = model.get_submodule(name), around(model, name)
    kind: Kind = "dropout" if DROPS.search(type(module).__name__.lower()) else "noise"
    rate = next((rate for _, rate in dropout_rates(module, RATE)), None) if kind == "dropout" else None
    return ModulePlace(
        name=f"{type(module).__name__} {name}",
        kind=kind,
        rate=rate,
        path=name,
        owner=owner,
        of_library=not is_users_class(type(model.get_submodule(owner))),
        untraced=True,  # it may only choose between others, so that no gradient comes by
    )


def _arrays(output: Any) -> list[Array]:
    return [to_numpy(each) for each in tensors(output) if each.is_floating_point()]
