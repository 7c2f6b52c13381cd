"""What regularises a module's training, measured: what drops, what shrinks weights.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.base import Learner, Noise, Regularizers
from pytest_overfit.adapters.torch.forward import tensors
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.regularizers import decay
from pytest_overfit.adapters.torch.regularizers.dropout import Call, Place, Places, Visit, Watch
from pytest_overfit.adapters.torch.state import generators, reseed
from pytest_overfit.core.usercode import is_users_class, user_code

#: training passes or steps that are watched: a model that leaves training mode in one shows in the next
_PASSES = 2

#: number of the evaluation pass
_EVALUATION = -1

#: that a place which drops left everything as it was, by chance, must be less likely than this
_CHANCE = 1e-6

#: calls of one place on one input at most; a place that needs more to be sure is not judged
_MOST = 2048

#: two answers are the same if they differ by less than so many times their rounding
_ROUNDING = 8

_OFF = "call model.train() before training, and after every evaluation"

#: the probability that a place without a declared one is taken to have
_ASSUMED = 0.1

#: places that no gradient comes by, which are then moved one by one to see whether an output moves
_MOVED = 16


def found_in(learner: Learner) -> Regularizers:
    """Everything that regularises this learner. The learner is worn out afterwards."""
    if not isinstance(learner, TorchLearner):
        return Regularizers(remarks=("only built-in learners are looked into",))
    if isinstance(learner.model, torch.jit.ScriptModule):
        return Regularizers(remarks=("a scripted module cannot be watched, so its dropout was not looked at",))
    places, steps = Places(learner.model), decay.Steps()
    _train(learner, places, steps)
    _evaluate(learner, places)
    noises = tuple(_noises(learner, places))
    return Regularizers(noises=noises, shrinkages=tuple(decay.found(learner, steps)), off=tuple(places.off))


# ------------------------------------------------------------------ passes


def _train(learner: TorchLearner, places: Places, steps: decay.Steps) -> None:
    """Watch training passes: those of our plain loop, or the user's own steps in the mode that the factory left."""
    forward, step, batch = learner.forward, learner.case.step, learner.batch
    if step is None:
        with learner.modes.reading("train"), forward.as_written():
            for number in range(_PASSES):
                with Watch(places, _measuring(number)):
                    forward.quiet()
        return
    _as_the_factory_left_it(learner)
    with user_code(f"Case {learner.case.name!r}: step"), forward.as_written(), steps.watched():
        for number in range(_PASSES):
            with Watch(places, _measuring(number), when=torch.is_grad_enabled):
                step(learner.model, batch.x, batch.y)


def _as_the_factory_left_it(learner: TorchLearner) -> None:
    """Modules in the modes in which the factory returns them; a learner has put its own into training."""
    flags = {name: module.training for name, module in learner.rebuild().named_modules()}
    for name, module in learner.model.named_modules():
        module.training = flags.get(name, module.training)


def _evaluate(learner: TorchLearner, places: Places) -> None:
    called = set(places.called)
    if learner.forward.can_be_called:
        with (
            learner.modes.reading("eval"),
            learner.forward.as_written(),
            Watch(places, _measuring(_EVALUATION)),
        ):
            learner.forward.quiet()
    places.called = called


def _measuring(number: int) -> Callable[[Visit], None]:
    def visit(seen: Visit) -> None:
        # a tensor of an unusual kind that cannot be compared is one about which nobody can tell
        with torch.no_grad(), contextlib.suppress(Exception):
            quiet = number == _EVALUATION and _draws_nothing(seen)
            seen.call.effect = 0.0 if quiet else _effect(seen)
        seen.place.passes.setdefault(number, []).append(seen.call)

    return visit


# ------------------------------------------------------------------ effects


def _effect(seen: Visit) -> float | None:
    """How much the place changes its input; 0.0 where it surely leaves it as it is."""
    place, given = seen.place, seen.given
    draws = _draws(place, given)
    if not draws:
        return None
    rate = place.rate or _ASSUMED
    calls = 1 if rate >= 1 else math.ceil(math.log(_CHANCE) / (draws * math.log1p(-rate)))
    for number in range(min(calls, _MOST) + (not place.plain)):
        output = seen.again() if number else seen.output
        if place.plain and given is not None:
            found = _lost(given, output)
        else:
            found = _difference(seen.output, output) if number else 0.0
        if found:
            return found
    return 0.0 if calls <= _MOST else None


def _draws_nothing(seen: Visit) -> bool:
    """Asked once more it gives the same and leaves every generator where it stands: it cannot be random."""
    before = generators()
    again = seen.again()
    if before != generators() or _difference(seen.output, again):
        return False
    return not seen.place.plain or seen.given is None or not _lost(seen.given, seen.output)


def _draws(place: Place, given: torch.Tensor | None) -> int:
    """How many entries, at least, one call decides on by itself; 0 where there is nothing that could be dropped."""
    if given is None or not bool(given.any()):
        return 0
    if place.channels and given.ndim > 2:
        return int((given.flatten(2) != 0).any(dim=2).sum())
    if place.plain:
        return int((given != 0).sum())
    return int(given.shape[0]) * int(given.shape[1]) if place.many and given.ndim > 1 else 1


def _lost(given: torch.Tensor, output: torch.Tensor) -> float:
    """The share of entries that were dropped; of those that were changed at all where none was."""
    alive = given != 0
    lost = float((alive & (output == 0)).sum() / alive.sum().clamp(min=1))
    return lost or float((output != given).float().mean())


def _difference(first: Any, second: Any) -> float:
    """Relative difference of two answers, above rounding."""
    one, other = ([each for each in tensors(some) if each.is_floating_point()] for some in (first, second))
    if [each.shape for each in one] != [each.shape for each in other]:
        return 1.0
    change = math.hypot(*(float((a.double() - b.double()).norm()) for a, b in zip(one, other, strict=True)))
    size = math.hypot(*(float(each.double().norm()) for each in (*one, *other)))
    rounding = max((torch.finfo(each.dtype).eps for each in one), default=0.0)
    return change / size if change > _ROUNDING * rounding * size else 0.0


# ------------------------------------------------------------------ is the result used?


def _unused(learner: TorchLearner, working: list[Place]) -> set[str]:
    """Names of the places whose results no output of the model depends on."""
    forward = learner.forward
    if not working or not forward.can_be_called:
        return set()
    try:
        linked = _linked(learner)
    except Exception:  # checkpoints that cannot be differentiated this way: every place is then moved
        linked = set()
    doubtful = [each for each in working if each.name not in linked and not each.inplace]
    return {each.name for each in doubtful if not _moves(learner, each)} if len(doubtful) <= _MOVED else set()


def _linked(learner: TorchLearner) -> set[str]:
    """Names of the places that a gradient of the outputs comes by: a zero is added to the result of each."""
    zeros: list[tuple[str, torch.Tensor]] = []

    def add_zero(seen: Visit) -> Any:
        zero = torch.zeros((), device=learner.forward.device, requires_grad=True)
        zeros.append((seen.place.name, zero))
        return _changed(seen.output, lambda each: each + zero.to(each.dtype))

    with learner.modes.reading("train"), learner.forward.as_written(), torch.enable_grad():
        with Watch(Places(learner.model), add_zero):
            outputs = learner.forward.call(learner.batch.x)
        ends = [each.float().sum() for each in tensors(outputs) if each.requires_grad]
        if not ends or not zeros:
            return set()
        found = torch.autograd.grad(torch.stack(ends).sum(), [zero for _, zero in zeros], allow_unused=True)
    return {name for (name, _), slope in zip(zeros, found, strict=True) if slope is not None}


def _moves(learner: TorchLearner, place: Place) -> bool:
    """An output changes when the result of this place does; True also where nobody can tell."""

    def outputs(name: str | None) -> list[torch.Tensor]:
        def move(seen: Visit) -> Any:
            return _changed(seen.output, lambda each: each + 1) if seen.place.name == name else None

        with learner.modes.reading("train"), learner.forward.as_written(), Watch(Places(learner.model), move):
            reseed(0)
            return tensors(learner.forward.quiet())

    first = outputs(None)
    return not alike(first, outputs(None)) or not alike(first, outputs(place.name))


def _changed(output: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same output, its first tensor changed where it is plain enough to be taken apart."""
    if isinstance(output, torch.Tensor):
        return change(output) if output.is_floating_point() else None
    return pytree.tree_map(
        lambda each: change(each) if isinstance(each, torch.Tensor) and each.is_floating_point() else each, output
    )


# ------------------------------------------------------------------ findings


def _noises(learner: TorchLearner, places: Places) -> Iterator[Noise]:
    working = [each for each in places if (_least(each) or 0.0) > 0]
    unused: set[str] = set()
    with contextlib.suppress(Exception):  # what cannot be found out is not held against anyone
        unused = _unused(learner, working)
    by_function = [each for each in places.functions.values() if (_least(each) or 0.0) > 0]
    for place in places:
        calls = [call for number, calls in place.passes.items() if number >= 0 for call in calls]
        if not calls and any(_inside(each, place) and each.rate == place.rate for each in by_function):
            continue  # a function drops in its stead, as fused attention does
        if not calls and _elsewhere(learner, places, place):
            continue  # other blocks of its kind do call theirs: this one has no place for it, as one without a shortcut
        still = [each for each in calls if each.effect == 0.0]
        switched_off = any(each.off for each in still)
        yield Noise(
            kind=place.kind,
            name=place.name,
            rate=place.rate,
            training=_least(place),
            evaluation=_most(place.passes.get(_EVALUATION, [])) if place.passes.get(_EVALUATION) else 0.0,
            called=bool(calls),
            reached=place.owner in places.called,
            used=place.name not in unused if place in working else None,
            switched_off=switched_off,
            frozen=bool(still) and all(each.frozen for each in still),
            why=_OFF if switched_off else place.why,
            of_library=not is_users_class(type(learner.model.get_submodule(place.owner))),
        )


def _elsewhere(learner: TorchLearner, places: Places, place: Place) -> bool:
    """Another module of the class around this place did call the place of this name."""

    def role(each: Place) -> tuple[type, str]:
        return type(learner.model.get_submodule(each.owner)), each.name.partition(" ")[2].removeprefix(f"{each.owner}.")

    called = (each for each in places.modules.values() if any(number >= 0 for number in each.passes))
    return any(role(each) == role(place) for each in called)


def _inside(function: Place, module: Place) -> bool:
    return not module.owner or f"{function.owner}.".startswith(f"{module.owner}.")


def _least(place: Place) -> float | None:
    """The effect in training, in the pass where it was least; a pass that did not come by does not count."""
    found = [_most(calls) for number, calls in place.passes.items() if number >= 0]
    known = [each for each in found if each is not None]
    return min(known) if known else None


def _most(calls: list[Call]) -> float | None:
    known = [each.effect for each in calls if each.effect is not None]
    return max(known) if known else None
