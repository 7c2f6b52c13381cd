"""Quantities that are numbers: each a function of one seed's models."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_overfit.core.errors import CaseError, did_you_mean
from pytest_overfit.measures.memorising.extension import STEPS
from pytest_overfit.measures.predictions.scores import Scores
from pytest_overfit.measures.training_runs import TrainingRun
from pytest_overfit.probes.bounds.quantities.calibration_error import calibration_found
from pytest_overfit.probes.bounds.quantities.registry import quantity
from pytest_overfit.probes.bounds.quantities.theory import constant_loss, untrained_loss
from pytest_overfit.probes.bounds.subject import NO_OUTPUTS, NOT_HERE, Found, Subject

# -------------------------------------------------------------------------------------------------- losses on one batch


@quantity("loss", "one forward pass", "lower", anchors=("theory", "constant_loss"))
def initial_loss(subject: Subject) -> Found:
    """Loss of the untrained model on the case's batch, penalties off.

    Dropout off, batch normalisation on the batch's statistics. A custom loop whose loss cannot be read apart:
    the loss that its first step returns. `theory` is the loss of an uninformed model, `constant_loss` what one
    has that knows how often each answer is wanted.
    """
    loss = subject.first.loss
    if loss is None:
        return Found(value=subject.make_learner().train(1)[0])
    known = untrained_loss(subject.first.heads)
    if known is None or subject.untrained.samples:
        return Found(value=loss)
    constant = constant_loss(subject.first.heads)
    anchors = {"theory": known[0], "constant_loss": constant[0]}
    return Found(value=loss, anchors=anchors, theory=f"{known[1]}; of the best constant: {constant[1]}")


@quantity("loss", "`k` training steps on one batch", "lower", anchors=("theory", "constant_loss"))
def loss_after_k_steps(subject: Subject) -> Found:
    """Loss on the case's batch after `k` training steps on it (limit `k`, default 50), read as initial_loss is."""
    found = initial_loss(subject)
    if subject.counts.k == 0:
        return found
    loss = subject.stepped.read("fit").loss
    return dataclasses.replace(found, value=subject.first_losses[-1] if loss is None else loss, theory="")


@quantity("steps", "as probe overfit_batch", "lower")
def steps_to_memorise(subject: Subject) -> Found:
    """Optimizer steps until the batch is memorised by the rules and limits of overfit_batch, `steps` at most.

    Known to the next reading: 5 steps at first, 25 later. Without `steps` those of overfit_batch.
    """
    run = subject.memorising
    if isinstance(run, str):
        return Found(why=run)
    if run.stop == "fits":
        return Found(value=float(len(run.losses)), resolution=5.0)
    most = max(len(run.losses), subject.criteria.steps or STEPS)  # a run without hope ends earlier
    return Found(why=f"not memorised within {most} steps", above=float(most))


# -------------------------------------------------------------------------------------------------- whole training runs


def _read_at_end(
    subject: Subject, get: Callable[[TrainingRun], float | None], *, val: bool = True, split: str = ""
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


@quantity("loss", "one training run", "lower")
def train_loss(subject: Subject) -> Found:
    """Loss on the train split after `epochs` epochs, in evaluation mode."""
    return _read_at_end(subject, lambda run: run.train.loss, val=False)


@quantity("loss", "one training run", "lower")
def val_loss(subject: Subject) -> Found:
    """Loss on val (else test) after `epochs` epochs, in evaluation mode."""
    return _read_at_end(subject, lambda run: run.val.loss)


@quantity("score", "one training run", "higher", anchors=("chance",))
def train_score(subject: Subject) -> Found:
    """Accuracy, R2 or the case's own score on the train split after `epochs` epochs, in evaluation mode."""
    return _read_at_end(subject, lambda run: run.train.score, val=False, split="train")


@quantity("score", "one training run", "higher", anchors=("chance",))
def val_score(subject: Subject) -> Found:
    """Accuracy, R2 or the case's own score on val (else test) after `epochs` epochs, in evaluation mode."""
    return _read_at_end(subject, lambda run: run.val.score, split="val")


def _best(subject: Subject, split: str, get: Callable[[Scores], float | None], best: Callable[..., float]) -> Found:
    """The best value after any epoch; NaN where none was finite."""
    if split not in subject.by_epoch:
        return Found(why=f"the case has no {split if subject.by_epoch else 'train'}= data")
    read = subject.by_epoch[split]
    values = [value for each in read if (value := get(each)) is not None]
    if not values:
        return Found(why="it cannot be read off this model: give task= or score=")
    return Found(value=best((each for each in values if math.isfinite(each)), default=math.nan))


def _best_score(subject: Subject, split: str) -> Found:
    found = _best(subject, split, lambda each: each.score, max)
    if found.value is None:
        return found
    last = subject.by_epoch[split][-1]
    step = 1 / last.rows if last.metric == "accuracy" else 0.0
    return dataclasses.replace(found, resolution=step, anchors={} if last.chance is None else {"chance": last.chance})


@quantity("loss", "one training run", "lower")
def best_train_loss(subject: Subject) -> Found:
    """Least loss on the train split after any epoch, in evaluation mode."""
    return _best(subject, "train", lambda each: each.loss, min)


@quantity("loss", "one training run", "lower")
def best_val_loss(subject: Subject) -> Found:
    """Least loss on val (else test) after any epoch; it is chosen on the rows that it is read on."""
    return _best(subject, "val", lambda each: each.loss, min)


@quantity("score", "one training run", "higher", anchors=("chance",))
def best_train_score(subject: Subject) -> Found:
    """Best score on the train split after any epoch, in evaluation mode."""
    return _best_score(subject, "train")


@quantity("score", "one training run", "higher", anchors=("chance",))
def best_val_score(subject: Subject) -> Found:
    """Best score on val (else test) after any epoch; it is chosen on the rows that it is read on."""
    return _best_score(subject, "val")


@quantity("score", "one training run", "lower")
def gap(subject: Subject) -> Found:
    """Score on train minus score on val (else test) after `epochs` epochs."""
    found = _read_at_end(subject, lambda run: None if run.train.score is None else run.gap, split="val")
    return dataclasses.replace(found, anchors={})


@quantity("error", "one training run, and val read once more", "lower")
def calibration_error(subject: Subject) -> Found:
    """Expected calibration error on val (else test) after `epochs` epochs: 15 bins of the predicted class' probability.

    Mean distance between how sure a classifier is and how often it is right (Naeini et al. 2015; Guo et al. 2017). On
    few rows it is not 0 for a calibrated model either.
    """
    val = subject.open_split("val")
    if val is None or subject.trained is None:
        return Found(why=f"the case has no {'val' if val is None else 'train'}= data")
    return calibration_found(subject.trained.read(val), subject.task)


# -------------------------------------------------------------------------------------------------- gradients and units


@quantity("norm", "one training pass", layered=True)
def gradient_norm(subject: Subject, layer: str) -> Found:
    """Euclidean norm of the loss's gradient on the batch, untrained; gradient_norm[layer]: of one layer's weights."""
    norms = subject.inspect(subject.untrained, "gradient_norms")
    if norms is None:
        return subject.unanswered(subject.untrained, "gradient_norms", "the loss cannot be read apart from a step")
    if not layer:
        return Found(value=math.hypot(*norms.values()))
    if layer not in norms:
        raise CaseError(f"gradient_norm[{layer}]: no layer {layer!r} has parameters{did_you_mean(layer, norms)}")
    return Found(value=norms[layer])


@quantity("ratio", "one training step")
def update_to_weight(subject: Subject) -> Found:
    """Size of the first step's update over the size of the weights, all trainable parameters together."""
    learner = subject.make_learner()
    learner.train(1)
    moved = learner.parameters().moved
    return Found(why=NOT_HERE) if moved is None else Found(value=moved)


def _idle(subject: Subject, which: str, functions: str) -> Found:
    units = subject.inspect(subject.stepped, "idle_units")
    if units is None:
        return subject.unanswered(subject.stepped, "idle_units", NO_OUTPUTS)
    idle, of = units[which]
    return Found(value=idle / of, resolution=1 / of) if of else Found(why=f"the model has no {functions}")


@quantity("share", "`k` steps and a forward pass", "lower")
def dead_units(subject: Subject) -> Found:
    """Share of ReLU units (channels of convolutions) that are 0 on every row of the batch, after `k` steps on it."""
    return _idle(subject, "dead", "ReLU")


@quantity("share", "`k` steps and a forward pass", "lower")
def saturated_units(subject: Subject) -> Found:
    """Share of sigmoid and tanh units within 1 % of their ends on every row of the batch, after `k` steps on it.

    1 % of the range on either side. The model's own outputs are not counted: they are meant to be certain.
    """
    return _idle(subject, "saturated", "sigmoid and no tanh before its outputs")


# -------------------------------------------------------------------------------------------------------------- outputs


def _of_outputs(subject: Subject, get: Callable[[Any], float]) -> Found:
    flat = [each.astype(np.float64).ravel() for each in subject.first.outputs if each.dtype.kind in "fiu" and each.size]
    return Found(value=get(np.concatenate(flat))) if flat else Found(why="the model's outputs cannot be read")


@quantity("output", "one forward pass")
def output_mean(subject: Subject) -> Found:
    """Mean of the untrained model's outputs on the batch."""
    return _of_outputs(subject, lambda values: float(values.mean()))


@quantity("output", "one forward pass")
def output_std(subject: Subject) -> Found:
    """Standard deviation of the untrained model's outputs on the batch."""
    return _of_outputs(subject, lambda values: float(values.std()))


@quantity("output", "one forward pass")
def output_range(subject: Subject) -> Found:
    """Largest minus smallest of the untrained model's outputs on the batch."""
    return _of_outputs(subject, lambda values: float(values.max() - values.min()))


# ----------------------------------------------------------------------------------------------------------- parameters


@quantity("parameters", "none", once=True)
def parameters_trainable(subject: Subject) -> Found:
    """Number of scalar parameters that are trained."""
    facts = subject.untrained.parameters()
    return Found(value=float(facts.trainable)) if facts.tensors or facts.frozen else Found(why=NOT_HERE)


@quantity("parameters", "none", once=True)
def parameters_frozen(subject: Subject) -> Found:
    """Number of scalar parameters that their owner froze."""
    facts = subject.untrained.parameters()
    return Found(value=float(facts.frozen)) if facts.tensors or facts.frozen else Found(why=NOT_HERE)


@quantity("rows per parameter", "none", "higher", once=True)
def samples_per_parameter(subject: Subject) -> Found:
    """Rows of the train split for each trained parameter."""
    train, facts = subject.open_split("train"), subject.untrained.parameters()
    if train is None or train.rows is None:
        return Found(why="the case has no train= data" if train is None else "the length of train= is not known")
    return Found(value=train.rows / facts.trainable) if facts.trainable else Found(why=NOT_HERE)
