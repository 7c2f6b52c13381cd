"""What can be held against a bound: each quantity by its name, a function of one seed's models.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.measures.evaluation import close, eval_forwards_agree
from pytest_overfit.measures.subject import Found, Subject
from pytest_overfit.measures.theory import untrained_loss

if TYPE_CHECKING:
    from pytest_overfit.measures.arms import ArmRun

Better = Literal["lower", "higher", ""]
Measure = Callable[[Subject, str], Found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantity:
    """One entry of the list."""

    name: str
    unit: str
    #: which way is the better one; "": neither
    better: Better
    cost: str
    #: what it is, in one line
    line: str
    #: `name[layer]` is a quantity as well
    layered: bool
    #: measured on the first seed alone: it holds or does not, or is the same for every seed
    once: bool
    #: anchors that a bound on it may be written with
    anchors: tuple[str, ...]
    measure: Measure


#: every quantity by its name, in the order of the list
QUANTITIES: dict[str, Quantity] = {}

YES_NO = "yes or no"
_NOT_HERE = "not measured for this framework"


def _quantity(
    unit: str,
    cost: str,
    better: Better = "",
    *,
    once: bool = False,
    layered: bool = False,
    anchors: tuple[str, ...] = (),
) -> Callable[[Callable[..., Found]], Callable[..., Found]]:
    def keep(function: Callable[..., Found]) -> Callable[..., Found]:
        name, line = function.__name__, (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
        measure: Measure = function if layered else lambda subject, _layer: function(subject)
        QUANTITIES[name] = Quantity(
            name=name, unit=unit, better=better, cost=cost, line=line, layered=layered, once=once, anchors=anchors,
            measure=measure,
        )  # fmt: skip
        return function

    return keep


def quantity_named(name: str, where: str) -> tuple[Quantity, str]:
    """The quantity and its layer ("": the whole model) of a name such as `gradient_norm[fc1]`, or a `CaseError`."""
    parts = re.fullmatch(r"(\w+)(?:\[(.+)\])?", name)
    if parts is None or parts[1] not in QUANTITIES:
        raise CaseError(f"{where}: nothing measures {name!r}{did_you_mean(name, QUANTITIES)}")
    quantity, layer = QUANTITIES[parts[1]], parts[2] or ""
    if layer and not quantity.layered:
        raise CaseError(f"{where}: {parts[1]} is not measured by layer; write {parts[1]}")
    return quantity, layer


def quantity_lines() -> list[str]:
    """The list, one line a quantity."""
    width = max(len(each) for each in QUANTITIES)
    return [f"{each.name:{width}}  [{each.unit}] {each.line} Cost: {each.cost}." for each in QUANTITIES.values()]


# -------------------------------------------------------------------------------------------------- losses on one batch


@_quantity("loss", "one forward pass", "lower", anchors=("theory",))
def initial_loss(subject: Subject) -> Found:
    """Loss of the untrained model on the case's batch, penalties off.

    Dropout off, batch normalisation on the batch's statistics. A loop of one's own whose loss cannot be read apart:
    the loss that its first step returns. `theory` is what a model that knows nothing has.
    """
    loss = subject.first.loss
    if loss is None:
        return Found(value=subject.make_learner().train(1)[0])
    known = untrained_loss(subject.first.heads)
    if known is None or subject.untrained.samples:
        return Found(value=loss)
    return Found(value=loss, anchors={"theory": known[0]}, theory=known[1])


@_quantity("loss", "`k` training steps on one batch", "lower", anchors=("theory",))
def loss_after_k_steps(subject: Subject) -> Found:
    """Loss on the case's batch after `k` training steps on it (limit `k`, default 50), read as initial_loss is."""
    found = initial_loss(subject)
    if subject.counts.k == 0:
        return found
    loss = subject.stepped.read("fit").loss
    return dataclasses.replace(found, value=subject.first_losses[-1] if loss is None else loss, theory="")


@_quantity("steps", "as probe overfit_batch", "lower")
def steps_to_memorise(subject: Subject) -> Found:
    """Optimizer steps until the batch is memorised by the rules of overfit_batch, `steps` at most (default 500).

    Known to the next reading: 5 steps at first, 25 later.
    """
    steps = subject.memorised_after
    if steps is None:
        most = subject.counts.steps
        return Found(why=f"not memorised within {most} steps", above=float(most))
    return Found(value=float(steps), resolution=5.0)


# -------------------------------------------------------------------------------------------------- whole training runs


def _read_at_end(
    subject: Subject, get: Callable[[ArmRun], float | None], *, val: bool = True, split: str = ""
) -> Found:
    if val and not subject.has_val:
        return Found(why="the case has no val= data")
    run = subject.run
    if run is None:
        return Found(why="the case has no train= data")
    value = get(run)
    if value is None:
        return Found(why="it cannot be read off this model: give task= or score=")
    if not split:
        return Found(value=value)
    read = run.train if split == "train" else run.val
    step = 1 / read.rows if read.metric == "accuracy" else 0.0
    return Found(value=value, resolution=step, anchors={} if read.chance is None else {"chance": read.chance})


@_quantity("loss", "one training run", "lower")
def train_loss(subject: Subject) -> Found:
    """Loss on the train split after `epochs` epochs, in evaluation mode."""
    return _read_at_end(subject, lambda run: run.train.loss, val=False)


@_quantity("loss", "one training run", "lower")
def val_loss(subject: Subject) -> Found:
    """Loss on val (else test) after `epochs` epochs, in evaluation mode."""
    return _read_at_end(subject, lambda run: run.val.loss)


@_quantity("score", "one training run", "higher", anchors=("chance",))
def train_score(subject: Subject) -> Found:
    """Accuracy, R2 or the case's own score on the train split after `epochs` epochs, in evaluation mode."""
    return _read_at_end(subject, lambda run: run.train.score, val=False, split="train")


@_quantity("score", "one training run", "higher", anchors=("chance",))
def val_score(subject: Subject) -> Found:
    """Accuracy, R2 or the case's own score on val (else test) after `epochs` epochs, in evaluation mode."""
    return _read_at_end(subject, lambda run: run.val.score, split="val")


@_quantity("score", "one training run", "higher", anchors=("chance",))
def best_val_score(subject: Subject) -> Found:
    """Best score on val (else test) after any epoch; it is chosen on the rows that it is read on."""
    return _read_at_end(
        subject, lambda run: max((each for each in run.curve if math.isfinite(each)), default=None), split="val"
    )


@_quantity("score", "one training run", "lower")
def gap(subject: Subject) -> Found:
    """Score on train minus score on val (else test) after `epochs` epochs."""
    found = _read_at_end(subject, lambda run: None if run.train.score is None else run.gap, split="val")
    return dataclasses.replace(found, anchors={})


# -------------------------------------------------------------------------------------------------- gradients and units


@_quantity("norm", "one training pass", layered=True)
def gradient_norm(subject: Subject, layer: str) -> Found:
    """Euclidean norm of the loss's gradient on the batch, untrained; gradient_norm[layer]: of one layer's weights."""
    norms = subject.inspect(subject.untrained, "gradient_norms")
    if norms is None:
        return Found(why=_NOT_HERE)
    if not layer:
        return Found(value=math.hypot(*norms.values()))
    if layer not in norms:
        raise CaseError(f"gradient_norm[{layer}]: no layer {layer!r} has parameters{did_you_mean(layer, norms)}")
    return Found(value=norms[layer])


@_quantity("ratio", "one training step")
def update_to_weight(subject: Subject) -> Found:
    """Size of the first step's update over the size of the weights, all trainable parameters together."""
    learner = subject.make_learner()
    learner.train(1)
    moved = learner.parameters().moved
    return Found(why=_NOT_HERE) if moved is None else Found(value=moved)


def _idle(subject: Subject, which: str, functions: str) -> Found:
    units = subject.inspect(subject.stepped, "idle_units")
    if units is None:
        return Found(why=_NOT_HERE)
    idle, of = units[which]
    return Found(value=idle / of, resolution=1 / of) if of else Found(why=f"the model has no {functions}")


@_quantity("share", "`k` steps and a forward pass", "lower")
def dead_units(subject: Subject) -> Found:
    """Share of ReLU units (channels of convolutions) that are 0 on every row of the batch, after `k` steps on it."""
    return _idle(subject, "dead", "ReLU")


@_quantity("share", "`k` steps and a forward pass", "lower")
def saturated_units(subject: Subject) -> Found:
    """Share of sigmoid and tanh units within 1 % of their ends on every row of the batch, after `k` steps on it.

    1 % of the range on either side. The model's own outputs are not counted: they are meant to be certain.
    """
    return _idle(subject, "saturated", "sigmoid and no tanh before its outputs")


# -------------------------------------------------------------------------------------------------------------- outputs


def _of_outputs(subject: Subject, get: Callable[[Any], float]) -> Found:
    import numpy as np

    flat = [each.astype(np.float64).ravel() for each in subject.first.outputs if each.dtype.kind in "fiu" and each.size]
    return Found(value=get(np.concatenate(flat))) if flat else Found(why="the model's outputs cannot be read")


@_quantity("output", "one forward pass")
def output_mean(subject: Subject) -> Found:
    """Mean of all numbers that the untrained model answers on the batch."""
    return _of_outputs(subject, lambda values: float(values.mean()))


@_quantity("output", "one forward pass")
def output_std(subject: Subject) -> Found:
    """Standard deviation of all numbers that the untrained model answers on the batch."""
    return _of_outputs(subject, lambda values: float(values.std()))


@_quantity("output", "one forward pass")
def output_range(subject: Subject) -> Found:
    """Largest minus smallest number that the untrained model answers on the batch."""
    return _of_outputs(subject, lambda values: float(values.max() - values.min()))


# ----------------------------------------------------------------------------------------------------------- parameters


@_quantity("parameters", "none", once=True)
def parameters_trainable(subject: Subject) -> Found:
    """Number of scalar parameters that are trained."""
    facts = subject.untrained.parameters()
    return Found(value=float(facts.trainable)) if facts.tensors or facts.frozen else Found(why=_NOT_HERE)


@_quantity("parameters", "none", once=True)
def parameters_frozen(subject: Subject) -> Found:
    """Number of scalar parameters that their owner froze."""
    facts = subject.untrained.parameters()
    return Found(value=float(facts.frozen)) if facts.tensors or facts.frozen else Found(why=_NOT_HERE)


@_quantity("rows per parameter", "none", "higher", once=True)
def samples_per_parameter(subject: Subject) -> Found:
    """Rows of the train split for each trained parameter."""
    train, facts = subject.open_split("train"), subject.untrained.parameters()
    if train is None or train.rows is None:
        return Found(why="the case has no train= data" if train is None else "nobody knows the length of train=")
    return Found(value=train.rows / facts.trainable) if facts.trainable else Found(why=_NOT_HERE)


# ----------------------------------------------------------------------------------------------- what holds or does not


def _holds(answer: bool | None, why: str = _NOT_HERE) -> Found:
    return Found(why=why) if answer is None else Found(value=float(answer))


#: steps that two runs from one seed are compared for, at most
_SAME_STEPS = 10


@_quantity(YES_NO, "two times 10 steps on one batch", "higher", once=True)
def determinism(subject: Subject) -> Found:
    """Two new models from the same seed have the same losses to the bit, for the first 10 steps on the batch."""
    first, second = (subject.make_learner().train(_SAME_STEPS) for _ in range(2))
    return _holds(first == second)


@_quantity(YES_NO, "two forward passes", "higher", once=True)
def eval_twice(subject: Subject) -> Found:
    """Two forward passes of the same batch in evaluation mode agree but for rounding."""
    return _holds(eval_forwards_agree(subject.untrained, len(subject.untrained.inputs[0])), _NO_OUTPUTS)


_NO_OUTPUTS = "the model's outputs cannot be asked for"


def _same(pair: Any) -> bool | None:
    if pair is None or not pair[0]:
        return None
    return len(pair[0]) == len(pair[1]) and all(close(a, b) for a, b in zip(*pair, strict=True))


@_quantity(YES_NO, "`k` steps, a new model, two forward passes", "higher", once=True)
def save_load(subject: Subject) -> Found:
    """A new model that takes over the saved state, after `k` steps, answers the batch as the saved one does.

    torch: `state_dict` through a file image, loaded with `weights_only=True`. Keras: `save_weights`. The new model
    starts from another seed, so that whatever is not saved shows.
    """
    return _holds(_same(subject.inspect(subject.stepped, "saved_and_loaded")))


@_quantity(YES_NO, "one forward pass a row, 16 at most, and two more", "higher", once=True)
def batch_size_invariance(subject: Subject) -> Found:
    """In evaluation mode a row gets the same answer alone, in an odd batch and in the whole batch."""
    import numpy as np

    learner = subject.untrained
    rows = len(learner.inputs[0])
    whole = learner.outputs_for(range(rows))
    if whole is None:
        return Found(why=_NO_OUTPUTS)
    kept = [number for number, each in enumerate(whole) if each.shape[:1] == (rows,)]
    if not kept or rows < 2:
        return Found(why="the batch has one row only" if rows < 2 else "no output has one entry a row")
    parts = [range(rows - 1 + rows % 2), *([row] for row in range(min(rows, 16)))]
    for part in parts:
        answer = learner.outputs_for(list(part))
        if answer is None:
            return Found(value=0.0)  # a model of one batch size only
        for number in kept:
            shown = np.concatenate([answer[number], np.delete(whole[number], list(part), axis=0)])
            wanted = np.concatenate([whole[number][list(part)], np.delete(whole[number], list(part), axis=0)])
            if not close(wanted, shown):  # beside all other rows, so that the spread is that of the batch
                return Found(value=0.0)
    return Found(value=1.0)


@_quantity(YES_NO, "two forward passes, one in float64", "higher", once=True)
def float64_agrees(subject: Subject) -> Found:
    """The untrained model computed in float64 answers as it does in float32, but for rounding."""
    return _holds(_same(subject.inspect(subject.untrained, "in_both_precisions")))
