"""Is evaluation the model that was trained? Read in other modes, and judged on plain values."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_overfit.core.figures import hundredths
from pytest_overfit.core.limits import Resolved
from pytest_overfit.core.verdict import Cause, Finding
from pytest_overfit.probes.early_accuracy import controls, symptoms
from pytest_overfit.probes.early_accuracy.epochs import EpochsRun
from pytest_overfit.probes.early_accuracy.estimates import clearly_above
from pytest_overfit.probes.early_accuracy.words import counted, interval

Measured = Mapping[str, Any]

#: share of the way that running statistics may still have to go before they count as settled
_SETTLED = 0.05
#: of its first mean a loss that has fallen to this share says that most rows are known, where it is a loss of classes
_KNOWN = 0.1
#: share of its first mean that is more than the noise of a loss that stands
_FELL = 0.9


def measure_evaluation(
    run: EpochsRun, measured: Measured, control: controls.ControlRun, alpha: float
) -> dict[str, Any] | None:
    """Some rows of train in every mode, and, where evaluation is far below the others, what becomes of it.

    None: evaluation is as good as a simple model and no statistics stand still, so nothing is asked.
    """
    best, train = symptoms.best_baseline(measured["baselines"]), measured["after"]["train"]
    running, steps = run.trainer.statistics(), measured["steps"]
    stands = any(each.remaining == 1.0 for each in running)
    learnt = symptoms.signal(train, alpha) and not (best is not None and clearly_above(best[1], train, alpha))
    if learnt and not stands:
        return None
    found: dict[str, Any] = {"modes": run.in_modes()}
    if found["modes"] is None or not apart(found["modes"], measured["chance"]["train"], alpha):
        return None
    found["layers"] = [each.name for each in running]
    found["stands"] = stands
    momenta = [each.momentum for each in running if each.momentum is not None]
    found["remaining"] = max(((1.0 - momentum) ** steps for momentum in momenta), default=0.0)
    settled = found["remaining"] <= _SETTLED and not found["stands"]
    found["later"] = controls.longer(control, steps, max(controls.ENOUGH, 2 * steps)) if settled else None
    return found


def apart(modes: Measured, chance: float, alpha: float) -> bool:
    """In evaluation the same rows are clearly worse, by more than a tenth of the way from chance."""
    here, there = modes["eval"], _trained(modes)
    return clearly_above(there, here, alpha) and _below(0.9, here["score"], there["score"], chance)


def _trained(modes: Measured) -> Measured:
    """The better of two readings: training as it is, and without what is random in it."""
    best: Measured = max((modes["fit"], modes["train"]), key=lambda each: float(each["score"]))
    return best


def _below(share: float, score: float, best: float, chance: float) -> bool:
    """The score is not even this share of the way from chance to the best one."""
    return score - chance < share * (best - chance)


def of_evaluation(measured: Measured, limits: Resolved[Any]) -> Iterator[Finding]:
    """Rows that training knows and evaluation does not: statistics on their way, or an evaluation that never comes."""
    found = measured["evaluation"]
    if found is not None:
        yield _differing(found, measured, limits.values.alpha)
        return
    beside = _unread(measured, limits.values.alpha)
    if beside:
        losses = measured["losses"]
        message = (
            f"the loop's loss fell from {losses[0]:.4g} to {losses[-1]:.4g}, but {beside}: are they answers of the "
            "model that is trained?"
        )
        yield Finding(name="evaluation_differs", value=measured["after"]["train"]["score"], outcome="inconclusive",
                      message=message)  # fmt: skip


def _differing(found: Measured, measured: Measured, alpha: float) -> Finding:
    here, there, later = found["modes"]["eval"], _trained(found["modes"]), found["later"]
    chance, steps = measured["chance"]["train"], counted(measured["steps"], "update")
    parts = "on the batch's own statistics" if found["layers"] else "as it is trained"
    text = f"train is at {interval(here)} in evaluation after {steps}, at {interval(there)} {parts}"
    name = "batchnorm_eval_mismatch" if found["layers"] else "evaluation_differs"
    cause = _of_statistics(found["layers"])
    if found["stands"]:
        message = f"{text}: running statistics of {found['layers'][0]} never move"
        return Finding.failed(name, here["score"], message, cause)
    if later is None:
        text = f"{text}: running statistics have {found['remaining']:.0%} of their way to go, as their momentum has it"
        return Finding(name="evaluation_lags", value=found["remaining"], limit=_SETTLED, relation="<=",
                       source="theory", outcome="warning", message=f"{text}; give more epochs=")  # fmt: skip
    told = f"{text}, and at {hundredths(later['train']['score'])} in evaluation after {later['steps']}"
    # the middle one: statistics of other data wander, and come near by luck
    if not _below(0.5, statistics.median(later["curve"][len(measured["losses"]) + 1 :]), there["score"], chance):
        message = f"{told}: evaluation lags; give more epochs="
        return Finding(name="evaluation_lags", value=here["score"], outcome="warning", message=message)
    if later["curve"][-1] >= max(later["curve"]) and clearly_above(later["train"], here, alpha):
        message = f"{told}: it rises, but slowly; give more epochs="
        return Finding(name="evaluation_lags", value=here["score"], outcome="inconclusive", message=message)
    why = "running statistics are not those of these rows" if found["layers"] else "a part of the model differs there"
    return Finding.failed(name, here["score"], f"evaluation never comes: {told}: {why}", cause)


def _of_statistics(layers: Sequence[str]) -> Cause | None:
    if not layers:
        return None
    return Cause("batchnorm_eval_mismatch", f"let {layers[0]} see the rows that are evaluated in training mode, with a "
                 "momentum above 0 (0.1 in PyTorch, 0.99 or less in Keras), or use a layer without running "
                 "statistics: LayerNorm, GroupNorm")  # fmt: skip


def _unread(measured: Measured, alpha: float) -> str:
    """What evaluation shows that cannot be, where the loop's own loss falls; "": nothing.

    A loss of classes that has all but gone says that their rows are known. A loss that fell at all was made by answers
    that changed.
    """
    losses, train = measured["losses"], measured["after"]["train"]
    share = losses[-1] / losses[0] if len(losses) > 1 and losses[0] > 0 < losses[-1] else 1.0
    if train["varies"] and not measured["moved"] and share <= _FELL:
        return "evaluation gives every row the answer that it gave before training"
    if share <= _KNOWN and measured["metric"] == "accuracy" and not symptoms.signal(train, alpha):
        return f"evaluation's answers to the same rows are at chance ({interval(train)})"
    return ""
