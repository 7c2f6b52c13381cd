"""Parameters that must learn and are not reached: frozen, in no optimizer, cut off, or under gradients that pile up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_overfit.adapters.programs import Change, Cut, WeightFacts
from pytest_overfit.diagnosis.hypotheses import BROKEN, SUSPECT, Hypothesis
from pytest_overfit.diagnosis.levels import level
from pytest_overfit.diagnosis.symptoms import Symptoms

_MOST_NAMES = 3

#: operations without a slope, in words
_FLAT = {
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne", "greater", "less"), "a comparison"),
    **dict.fromkeys(("long", "int", "to", "type", "short", "byte", "bool"), "a cast to whole numbers"),
    "where": "a choice by a condition",
    "argmax": "argmax",
    "argmin": "argmin",
}


def suspected(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """By the parameters' own state."""
    frozen = [each for each in symptoms.anatomy.weights if not each.trainable]
    loose = [each for each in symptoms.anatomy.weights if each.trainable and each.held is False]
    if frozen:
        yield _not_trained(symptoms, frozen, "frozen_parameters", "frozen", "leave requires_grad (trainable) at True")
    if loose:
        cure = "hand model.parameters() to the optimizer"
        yield _not_trained(symptoms, loose, "optimizer_wrong_params", "in no optimizer", cure)
    unknown = symptoms.anatomy.unregistered
    if unknown:
        yield _unregistered(symptoms, unknown)
    yield from _cut(symptoms)
    yield from _not_made(symptoms)
    yield Hypothesis(
        fault="missing_zero_grad",
        family="gradients",
        what="gradients pile up from step to step",
        observed=level(symptoms),
        change=Change(kind="zero_grad"),
        changed="with gradients at zero before each step",
        cure="call optimizer.zero_grad() in each step, before backward()",
        rank=SUSPECT - 4,
    )


def _names(weights: Sequence[WeightFacts]) -> str:
    more = f" and {len(weights) - _MOST_NAMES} more" if len(weights) > _MOST_NAMES else ""
    return ", ".join(each.name for each in weights[:_MOST_NAMES]) + more


def _not_made(symptoms: Symptoms) -> Iterator[Hypothesis]:
    """A step of the user's own that leaves everything as it is, although gradients come."""
    reached = [each for each in symptoms.matrices if each.gradient]
    still = symptoms.moved == 0 or symptoms.measured["stop"] == "no_update"
    if not still or symptoms.anatomy.optimizer is not None or not reached:
        return
    given = "and no optimizer makes a step with it" if symptoms.anatomy.kept is None else "and its update is undone"
    yield Hypothesis(
        fault="update_skipped",
        family="gradients",
        what=f"a gradient reaches {_names(reached)}, {given}",
        observed=f"nothing changed in {symptoms.steps} steps",
        cure="call optimizer.step() in each step, and look for what writes the weights back",
        rank=BROKEN + 1,
        broken=True,
    )


def _unregistered(symptoms: Symptoms, names: Sequence[str]) -> Hypothesis:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return Hypothesis(
        fault="unregistered_parameters",
        family="trained parameters",
        what=f"the forward pass uses {', '.join(names[:_MOST_NAMES])}{more}, which the model does not know",
        observed=level(symptoms),
        change=Change(kind="all_trained"),
        changed="with all of them registered and trained",
        cure="keep layers in nn.ModuleList or nn.ModuleDict, and tensors in nn.Parameter",
        rank=BROKEN + 1,
        broken=True,
    )


def _not_trained(symptoms: Symptoms, which: Sequence[WeightFacts], fault: str, how: str, cure: str) -> Hypothesis:
    count, of = len(which), len(symptoms.anatomy.weights)
    return Hypothesis(
        fault=fault,
        family="trained parameters",
        what=f"{count} of {of} parameters {'is' if count == 1 else 'are'} {how}: {_names(which)}",
        observed=level(symptoms),
        change=Change(kind="all_trained"),
        changed="with all of them trained",
        cure=f"{cure} ({_names(which)})",
        rank=BROKEN + 1,
    )


def _cut(symptoms: Symptoms) -> Iterator[Hypothesis]:
    anatomy = symptoms.anatomy
    unreached = [each for each in symptoms.matrices if each.trainable and not each.gradient]
    names = {each.name for each in unreached}
    cuts = [each for each in anatomy.cuts if names & set(each.behind)]
    flat = [each for each in cuts if not each.smooth]
    if flat:
        yield _without_slope(symptoms, flat[0], unreached)
    elif cuts:
        yield _detached(symptoms, f"{_cut_words(cuts[0])} cuts the graph", unreached, shown=True)
    elif anatomy.depends is False:
        out = "".join(f", which {each}() took out of the graph" for each in anatomy.taken_out[-1:])
        yield _detached(symptoms, f"what is differentiated depends on no parameter{out}", unreached, shown=True)
    elif unreached and any(each.gradient for each in symptoms.matrices):
        yield _detached(symptoms, "the graph is cut behind them", unreached)


def _without_slope(symptoms: Symptoms, cut: Cut, unreached: Sequence[WeightFacts]) -> Hypothesis:
    what = _FLAT.get(cut.operation, cut.operation)
    return Hypothesis(
        fault="non_differentiable",
        family="gradients",
        what=f"{what}{f' in {cut.where}' if cut.where else ''} has no slope, so no gradient reaches "
        f"{_names(unreached)}",
        observed=level(symptoms),
        change=Change(kind="attached"),
        changed="with a slope in its place",
        cure=f"leave {what} out of what is differentiated: use scores or probabilities there, or pass a gradient "
        "through it (straight-through)",
        rank=BROKEN,
        broken=True,
    )


def _detached(symptoms: Symptoms, how: str, unreached: Sequence[WeightFacts], shown: bool = False) -> Hypothesis:
    return Hypothesis(
        fault="detached_graph",
        family="gradients",
        what=f"no gradient reaches {_names(unreached)}: {how}",
        observed=level(symptoms),
        change=Change(kind="attached"),
        changed="with nothing detached or rounded in the forward pass",
        cure="remove detach(), .data, item(), numpy() or no_grad() between them and the loss",
        rank=BROKEN + (0 if shown else 2),
        broken=shown,
    )


def _cut_words(cut: Cut) -> str:
    name = cut.operation if cut.operation.startswith(".") else f"{cut.operation}()"
    return f"{name} in {cut.where}" if cut.where else name
