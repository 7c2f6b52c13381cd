"""Do the regularisers that were found do anything? Plain values in, a judgement out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from pytest_overfit.adapters.regularizer_effects.names import listed
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Finding, FindingOutcome, Judgement, diagnoses_of
from pytest_overfit.probes.inert_regularizer.causes import of_data, of_noise, of_shrinkage

#: steps of a training run that `min_decay` is counted over
RUN = 10_000

#: what is looked for, for the verdict where nothing was found
LOOKED_FOR = (
    "dropout, stochastic depth, modules that draw random numbers, augmentation in the model or the data, weight decay, "
    "penalties in the loss"
)

#: a share of the weights' length that is as good as none, whatever limit was set
_NOTHING = 1e-3

_OUTCOMES = ("failed", "passed", "inconclusive")

Values = Mapping[str, Any]


class Limits(Protocol):
    """The limits of the probe."""

    @property
    def min_decay(self) -> float: ...


def judge_regularizers(measured: Values, limits: Resolved[Any]) -> Judgement:
    """Failed where one of them does nothing, or does it in evaluation too; the reason names it."""
    noises = [_noise(each, measured["always_on"]) for each in measured["noises"]]
    shrinkages = [_shrinkage(each, limits) for each in measured["shrinkages"]]
    data = [_split(each) for each in measured["data"]]
    judged = [*noises, *shrinkages, *data]
    findings = (*judged, *_remarks(measured))
    bad, good, unclear = ([each for each in judged if each.outcome == outcome] for outcome in _OUTCOMES)
    if good and not bad:
        found = diagnoses_of(findings)
        return Judgement(outcome="passed", summary=_works(good, len(unclear)), findings=findings, diagnoses=found)
    judgement = Judgement.of(findings, lambda: _nothing(measured, judged), "not_applicable")
    if len(bad) < 2:
        return judgement
    return dataclasses.replace(judgement, summary=f"{judgement.summary} (and {len(bad) - 1} more)")


def _works(good: Sequence[Finding], unclear: int) -> str:
    counts: dict[str, int] = {}
    for each in good:
        counts[each.name] = counts.get(each.name, 0) + 1
    text = ", ".join(name if count == 1 else f"{name} ({count} places)" for name, count in counts.items())
    rest = f"; of {unclear} more this batch cannot tell" if unclear else ""
    return f"every regulariser that could be measured works: {text}{rest}"


def _nothing(measured: Values, judged: Sequence[Finding]) -> str:
    off = measured["off"]
    zero = f"; with probability or size 0: {listed(off)}" if off else ""
    idle = [each.message for each in judged if each.name in ("weight decay", "penalty")]
    if idle:
        zero += f"; {idle[0]}"
    return f"no regulariser found in the model, its optimizer, its loss and its data (looked for: {LOOKED_FOR}){zero}"


def _remarks(measured: Values) -> Iterator[Finding]:
    if measured["off"]:
        yield Finding.note(f"probability or size 0, so nothing is dropped or added: {listed(measured['off'])}")
    yield from map(Finding.note, measured["remarks"])


# ------------------------------------------------------------------ dropout, noise, augmentation layers


def _noise(noise: Values, always_on: bool) -> Finding:
    outcome, text = _noise_judged(noise, always_on)
    return Finding(
        name=noise["kind"],
        value=noise["training"],
        limit=0.0 if noise["rate"] is None else f"{_unit(noise)} {noise['rate']:g}",
        relation="",
        source="declared",
        outcome=outcome,
        message=text,
        cause=of_noise(noise, outcome, always_on),
    )


def _noise_judged(noise: Values, always_on: bool) -> tuple[FindingOutcome, str]:
    name = noise["name"]
    declared = "" if noise["rate"] is None else f" ({_unit(noise)} = {noise['rate']:g})"
    if noise["evaluation"] and not always_on:
        if noise["training"] == 0.0:
            why = "is the condition on its mode the wrong way round?"
            return "failed", f"{name}{declared} changes its input in evaluation, and not in training: {why}"
        return "failed", (
            f"{name}{declared} changes its input in evaluation too: {noise['why'] or _forgot(noise)}; if that is meant "
            '(Monte Carlo dropout), say so: options={"inert_regularizer": {"always_on": True}}'
        )
    return _not_judged(noise, f"{name}{declared}") or _in_training(noise, f"{name}{declared}")


def _not_judged(noise: Values, name: str) -> tuple[FindingOutcome, str] | None:
    """What was not called, stays in evaluation by design, or does not regularise; None: training shows what it does."""
    if not noise["called"]:
        if noise["rate"] is None or not noise["reached"]:
            return "note", f"{name} was not reached by this batch, so it was not looked at"
        text = f"{name} is inert: it is made, but never called in a training pass"
        return ("warning", f"{text} of its library's module") if noise["of_library"] else ("failed", text)
    if noise["frozen"]:
        return "note", f"{name} is in a part of the model that is frozen, or kept in evaluation mode as a whole"
    if noise["fixed"]:
        return "note", (
            f"{noise['name']} is not a regulariser, whatever its name says: it gives the same for one input each time, "
            "in training and in evaluation"
        )
    if noise["training"] is None:
        return "inconclusive", f"{name}: undetermined: {noise['doubt']}"
    return None


def _in_training(noise: Values, name: str) -> tuple[FindingOutcome, str]:
    if noise["training"] > 0:
        if noise["used"] is False:
            return "failed", (
                f"{name} is inert: it drops, but no output of the model depends on its result; is that thrown away?"
            )
        evaluation = noise["evaluation"]
        rest = "; evaluation could not be looked at" if evaluation is None else _in_evaluation(evaluation)
        return "passed", f"{noise['name']} changes its input in training{rest}"
    if noise["switched_off"]:
        return "failed", f"{name} is inert: it was in evaluation mode while the model trained; {noise['why']}"
    if noise["held_back"]:
        why = f"{noise['held_back']}, which it is made from, changes the same input if it is called with training=True"
        return "failed", f"{name} is inert: in training it changes nothing; {why}"
    if noise["rate"] is None:
        return "note", f"{name} made the same of one input each time, and declares no probability of anything else"
    does = "adds" if noise["kind"] == "noise" else "drops"
    why = noise["why"] or "one input gets the same output each time"
    return "failed", f"{name} is inert: in training it {does} nothing; {why}"


def _in_evaluation(effect: float) -> str:
    return " and, as it is meant to, in evaluation" if effect else " and not in evaluation"


def _unit(noise: Values) -> str:
    return "size" if noise["kind"] == "noise" else "p"


def _forgot(noise: Values) -> str:
    if noise["name"].startswith("scaled_dot_product_attention"):
        return "its dropout_p holds in every mode, write dropout_p=p if self.training else 0.0"
    if " in " in noise["name"]:
        return "a function drops by default; write training=self.training"
    return "it does not look at the mode of the model"


# ------------------------------------------------------------------ weight decay and penalties


def _shrinkage(given: Values, limits: Resolved[Any]) -> Finding:
    least = limits.values.min_decay
    rate = given["rate"]
    total = None if rate is None else -math.expm1(-RUN * max(rate, 0.0))
    outcome, text = _shrinkage_judged(given, total, least)
    return Finding(
        name=given["kind"],
        value=total,
        limit=least,
        relation=">=",
        source=limits.source("min_decay"),
        outcome=outcome,
        message=text,
        cause=of_shrinkage(given, outcome, total is not None and total < _NOTHING),
    )


def _shrinkage_judged(given: Values, total: float | None, least: float) -> tuple[FindingOutcome, str]:
    name, rate, why = given["name"], given["rate"], given["why"]
    if total is None or rate is None:
        text = f"{name}: what it does could not be measured" + (f"; {why}" if why else "")
        return ("note" if given["by_default"] else "inconclusive"), text
    some = "" if given["reached"] in (0, given["tensors"]) else _partly(given)
    share = "" if given["share"] is None else f"; it is {given['share']:.2g} of the training loss"
    if total >= least:
        return "passed", f"{name} halves the weights in {_count(math.log(2) / rate)} steps{_scaled(given)}{share}{some}"
    if given["learning_rate"] == 0:
        why = "the learning rate is 0 (lr_zero)"
    elif not given["reached"] and not why:
        count = given["tensors"]
        why = (
            f"none of its {count} tensors has a gradient, so the optimizer passes over them (frozen_parameters, "
            "unused_parameters)"
        )
    if not why:
        why = _too_slow(given, total, least)
    if given["by_default"] and given["reached"]:
        return "note", f"{name}, the optimizer's own default, does next to nothing: {why}"
    return "failed", f"{name} is {'inert' if total < _NOTHING else 'weaker than min_decay'}: {why}"


def _too_slow(given: Values, total: float, least: float) -> str:
    text = f"over {RUN:,} steps it takes {total:.1g} of the weights' length"
    nominal = given["nominal"]
    if not nominal:
        return text
    text += f"; learning rate times decay is {nominal:.1g} a step"
    enough = -math.expm1(-RUN * nominal) >= least
    if not enough:
        return text
    if nominal < given["rounding"]:
        return f"{text}, which the rounding of weights in low precision swallows"
    return f"{text}, but the optimizer's steps do not take it"


def _partly(given: Values) -> str:
    return f"; it reaches {given['reached']} of {given['tensors']} tensors, the others have no gradient"


def _scaled(given: Values) -> str:
    """Where decay is added to the gradient, momentum multiplies it and an adaptive optimizer divides it."""
    if not given["nominal"] or not given["rate"]:
        return ""
    times = given["rate"] / given["nominal"]
    if 0.8 < times < 1.25:
        return ""
    return f" ({times:.2g} times what the same number does in a decoupled optimizer such as AdamW)"


def _count(steps: float) -> str:
    digits = max(0, int(math.log10(max(steps, 1))) - 1)
    return f"{round(steps / 10**digits) * 10**digits:,}"


# ------------------------------------------------------------------ augmentation in the data


def _split(given: Values) -> Finding:
    name, varies = given["split"], given["varies"]
    outcome: FindingOutcome = "note"
    if given["trains"]:
        text = f"{name}=: a sample read again is another one: augmentation works"
        outcome = "passed"
        if not varies:
            outcome, text = "failed", f"{name}=: its transform is inert: {given['how']}"
    elif varies:
        outcome, text = (
            "failed",
            (
                f"{name}=: the same sample, read twice, was not the same ({given['how']}): random augmentation in "
                "evaluation makes its score a matter of chance"
            ),
        )
    else:
        text = f"{name}=: a sample read again is the same"
    kind = "augmentation" if given["trains"] else "evaluation data"
    return Finding(name=kind, value=given["how"], outcome=outcome, message=text, cause=of_data(given))
