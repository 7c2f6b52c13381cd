"""What regularises a module's training, measured: what drops, what shrinks weights."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from pytest_overfit.adapters.arrays import alike
from pytest_overfit.adapters.base import Learner, Regularizers
from pytest_overfit.adapters.regularizer_effects import places as effects
from pytest_overfit.adapters.regularizer_effects.places import EVALUATION, PASSES, DropoutPlace, Visit
from pytest_overfit.adapters.torch import records
from pytest_overfit.adapters.torch.learner import TorchLearner
from pytest_overfit.adapters.torch.records import tensors
from pytest_overfit.adapters.torch.regularizers import decay
from pytest_overfit.adapters.torch.regularizers.drawing import ModuleDraws
from pytest_overfit.adapters.torch.regularizers.dropout import ModulePlace, Places, PlaceWatch, Seen, places_of
from pytest_overfit.adapters.torch.state import generators, reseed
from pytest_overfit.core.arrays import Array
from pytest_overfit.core.usercode import user_code
from pytest_overfit.data.batch import to_numpy

#: calls of one place on one input at most
_MOST = 2048

_OFF = "call model.train() before training, and after every evaluation"

_OFF_INSIDE = "model.train() was called before: something in the model calls eval() or train(False)"

#: places that no gradient comes by, which are then moved one by one to see whether an output moves
_MOVED = 16


def found_in(learner: Learner) -> Regularizers:
    """Everything that regularises this learner. The learner must not be used afterwards."""
    if not isinstance(learner, TorchLearner):
        return Regularizers(remarks=("only built-in learners are inspected",))
    if isinstance(learner.model, torch.jit.ScriptModule):
        return Regularizers(remarks=("a scripted module cannot be watched, so its dropout was not checked",))
    off: list[str] = []
    places = places_of(learner.model, off)
    called, optimizers = _train(learner, places)
    _evaluate(learner, places)
    evaluated = learner.forward.can_be_called
    own = ModuleDraws(learner.model, places, lambda: _draws_by_design(learner))
    own.look(lambda: _training(learner), (lambda: _evaluation(learner)) if evaluated else None, _trains(learner))
    judged = [*_judged(places), *own.places.values(), *own.still()]
    places.update(own.places)
    off_words = _OFF if learner.case.step is not None else _OFF_INSIDE
    noises = effects.noises(
        judged, called, lambda working: _unused(learner, places, working), off_words, evaluated=evaluated
    )
    return Regularizers(
        noises=tuple(noises),
        shrinkages=tuple(decay.found(learner, optimizers)),
        off=tuple(off),
        remarks=tuple(own.remarks),
    )


def _draws_by_design(learner: TorchLearner) -> bool:
    """Of a step it is known only that it draws, which the module in question does."""
    return learner.samples or (learner.case.step is None and bool(learner.drawn()))


def _judged(places: Places) -> list[ModulePlace]:
    """Every place but the modules in whose stead a function drops, as fused attention does."""
    functions = [place for key, place in places.items() if isinstance(key, str)]
    return [place for place in places.values() if not any(_stands_for(each, place) for each in functions)]


def _stands_for(function: ModulePlace, place: ModulePlace) -> bool:
    """A module that declares no rate is what the functions in it do; one that was never called, what drops for it."""
    if not place.path:
        return False
    if place.rate is None:
        return f"{function.owner}.".startswith(f"{place.path}.")
    dropped = not place.trained and bool(function.training) and function.rate == place.rate
    return dropped and _is_inside(function, place)


def _is_inside(function: ModulePlace, place: ModulePlace) -> bool:
    """The function is called in the module that owns the place, or in a part of it."""
    return not place.owner or f"{function.owner}.".startswith(f"{place.owner}.")


# ------------------------------------------------------------------ passes


def _train(learner: TorchLearner, places: Places) -> tuple[set[str], decay.Optimizers]:
    """Watch training passes: those of our plain loop, or the user's own steps in the mode that the factory left.

    Returns the names of the modules that were called, and the optimizers that a step used.
    """
    called: set[str] = set()
    with decay.watched_steps() as optimizers, _training(learner) as make_pass:
        for number in range(PASSES):
            with PlaceWatch(learner.model, places, _measuring(number), _trains(learner)) as watch:
                make_pass()
            called |= watch.called
    return called, optimizers


def _trains(learner: TorchLearner) -> Callable[[], bool] | None:
    """A step of the user's may also evaluate."""
    return None if learner.case.step is None else torch.is_grad_enabled


@contextlib.contextmanager
def _training(learner: TorchLearner) -> Iterator[Callable[[], Any]]:
    """What makes a training pass: of our plain loop, or a step of the user's."""
    forward, step = learner.forward, learner.case.step
    with contextlib.ExitStack() as stack:
        make_pass: Callable[[], Any] = forward.quiet
        if step is None:
            stack.enter_context(learner.modes.reading("train"))
        else:
            make_pass = functools.partial(step, learner.model, learner.batch.x, learner.batch.y)
            _as_the_factory_left_it(learner)
            stack.enter_context(user_code(f"Case {learner.case.name!r}: step"))
        stack.enter_context(forward.as_written())
        yield make_pass


@contextlib.contextmanager
def _evaluation(learner: TorchLearner) -> Iterator[Callable[[], Any]]:
    with learner.modes.reading("eval"), learner.forward.as_written():
        yield learner.forward.quiet


def _as_the_factory_left_it(learner: TorchLearner) -> None:
    """Modules in the modes in which the factory returns them; a learner has put its own into training."""
    flags = {name: module.training for name, module in learner.rebuild().named_modules()}
    for name, module in learner.model.named_modules():
        module.training = flags.get(name, module.training)


def _evaluate(learner: TorchLearner, places: Places) -> None:
    if not learner.forward.can_be_called:
        return
    with _evaluation(learner) as make_pass, PlaceWatch(learner.model, places, _measuring(EVALUATION)):
        make_pass()


def _measuring(number: int) -> Callable[[Seen], None]:
    def visit(seen: Seen) -> None:
        # the effect on a tensor of an unusual kind, which cannot be compared, is undetermined
        with torch.no_grad(), contextlib.suppress(Exception):
            quiet = number == EVALUATION and _draws_nothing(seen)
            seen.call.effect = 0.0 if quiet else _effect(seen)
            seen.call.fixed = seen.call.effect == 0.0 and _is_fixed(seen)
        seen.place.passes.setdefault(number, []).append(seen.call)

    return visit


def _is_fixed(seen: Seen) -> bool:
    """It makes something else of its input, and the same in the other mode."""
    first = _arrays(seen.output)
    given = None if seen.given is None else to_numpy(seen.given)
    if seen.module is None or not effects.is_another(given, first):
        return False
    flags = {each: each.training for each in seen.module.modules()}
    try:
        seen.module.train(not seen.module.training)
        return not effects.difference(first, _arrays(seen.again()), _rounding(seen.output))
    finally:
        for each, training in flags.items():
            each.training = training


def _effect(seen: Seen) -> float | None:
    if seen.given is None:  # no numbers that could be dropped: time steps, ids
        seen.call.doubt = "no floating-point numbers are given to it"
        return 0.0 if _draws_nothing(seen) else None
    given = to_numpy(seen.given)
    outputs = itertools.chain([_arrays(seen.output)], (_arrays(seen.again()) for _ in itertools.count()))
    visit = Visit(given, outputs, seen.place.draws(given), _rounding(seen.output), _MOST)
    found = effects.effect(seen.place, visit)
    seen.call.doubt = effects.doubt(visit)
    return found


def _draws_nothing(seen: Seen) -> bool:
    """Asked once more it gives the same and leaves every generator where it is: it cannot be random."""
    before, first = generators(), _arrays(seen.output)
    again = _arrays(seen.again())
    if before != generators() or effects.difference(first, again, _rounding(seen.output)):
        return False
    return not seen.place.plain or seen.given is None or not effects.lost(to_numpy(seen.given), first[0])


def _arrays(output: Any) -> list[Array]:
    return [to_numpy(each) for each in _floats(output)]


def _rounding(output: Any) -> float:
    """Two answers are the same if they differ by less than this share."""
    return 8 * max((torch.finfo(each.dtype).eps for each in _floats(output)), default=0.0)


def _floats(output: Any) -> list[torch.Tensor]:
    return [each for each in tensors(output) if each.is_floating_point()]


# ------------------------------------------------------------------ is the result used?


def _unused(learner: TorchLearner, places: Places, working: list[DropoutPlace]) -> set[DropoutPlace]:
    """The places whose results no output of the model depends on."""
    if not working or not learner.forward.can_be_called:
        return set()
    try:
        linked = _linked(learner, places)
    except Exception:  # checkpoints that cannot be differentiated this way: every place is then moved
        linked = set()
    linked |= {place for place in places.values() if place.untraced}
    doubtful = [place for place in working if place not in linked]
    if not doubtful or len(doubtful) > _MOVED:
        return set()
    met: set[DropoutPlace] = set()  # layers that are left out at random may be left out in this pass
    return met & effects.unused(doubtful, lambda place: _outputs_with(learner, places, place, met), alike)


def _linked(learner: TorchLearner, places: Places) -> set[DropoutPlace]:
    """The places that a gradient of the outputs comes by: a zero is added to the result of each."""
    zeros: list[tuple[DropoutPlace, torch.Tensor]] = []

    def add_zero(seen: Seen) -> Any:
        zero = torch.zeros((), device=learner.forward.device, requires_grad=True)
        zeros.append((seen.place, zero))
        return _changed(seen.output, lambda each: each + zero.to(each.dtype))

    with learner.modes.reading("train"), learner.forward.as_written(), torch.enable_grad():
        with PlaceWatch(learner.model, places, add_zero):
            outputs = learner.forward.call(learner.batch.x)
        ends = [each.float().sum() for each in tensors(outputs) if each.requires_grad]
        if not ends or not zeros:
            return set()
        found = torch.autograd.grad(torch.stack(ends).sum(), [zero for _, zero in zeros], allow_unused=True)
    return {place for (place, _), slope in zip(zeros, found, strict=True) if slope is not None}


def _outputs_with(
    learner: TorchLearner, places: Places, moved: DropoutPlace | None, met: set[DropoutPlace]
) -> list[torch.Tensor]:
    """Outputs of a training pass, with 1 added to what this place gives; `met` gets the places that it comes by."""

    def move(seen: Seen) -> Any:
        met.add(seen.place)
        return _changed(seen.output, lambda each: each + 1) if seen.place is moved else None

    watch = PlaceWatch(learner.model, places, move)
    with learner.modes.reading("train"), learner.forward.as_written(), watch:
        reseed(0)
        return tensors(learner.forward.quiet())


def _changed(output: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same output with every floating-point tensor in it changed; None where it is a tensor of another kind."""
    if isinstance(output, torch.Tensor):
        return change(output) if output.is_floating_point() else None
    return records.mapped(
        output, lambda each: change(each) if isinstance(each, torch.Tensor) and each.is_floating_point() else each
    )
