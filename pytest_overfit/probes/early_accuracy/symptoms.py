"""What looks odd about the first epochs: the measurement asks which controls to run, the judgement what they show.

Pure: plain values in, plain values out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from pytest_overfit.probes.early_accuracy.estimates import clearly_above

Measured = Mapping[str, Any]

#: epochs to halve the loss at the pace measured, beyond which training makes no sense: the loss counts as flat
HALVING = 10_000.0
#: level of a second look at what a first one saw at `alpha`: trained on less, a slow model is not as sure of it
CONFIRMED = 0.005
#: an input is near unit scale when its standard deviation and mean are below this: raw pixels have 70 and 33 or more
FAR = 10.0


def related(estimate: Measured, alpha: float) -> bool:
    """Predictions go with the targets beyond luck."""
    return bool(estimate["related"] <= alpha)


def signal(estimate: Measured, alpha: float) -> bool:
    """Outputs or predictions go with the targets beyond luck: the more sensitive question."""
    return bool(min(estimate["related"], estimate["signal"]) <= alpha)


def knows(measured: Measured, alpha: float) -> bool:
    """Validation goes with the outputs, and with what the labels of train taught.

    Where a simple model learns from train what holds in validation, or the same model what holds in a part of train
    that was kept from it, the labels of train depend on their inputs. Else the outputs may go with validation as those
    of any function of the inputs do.
    """
    return signal(measured["after"]["val"], alpha) and teaches(measured, alpha) is not False


def teaches(measured: Measured, alpha: float) -> bool | None:
    """The labels of train depend on their inputs; None: nothing could be asked that would know."""
    asked = [baselines_signal(measured["baselines"], alpha), baselines_signal(measured["inside"], alpha)]
    if measured["kept_apart"] is not None:
        asked.append(signal(measured["kept_apart"], CONFIRMED))
    return any(asked) if any(each is not None for each in asked) else None


def best_baseline(baselines: Mapping[str, Measured]) -> tuple[str, Measured] | None:
    """The baseline with the highest score."""
    known = {name: each for name, each in baselines.items() if math.isfinite(each["score"])}
    return max(known.items(), key=lambda each: float(each[1]["score"]), default=None)


def bound(measured: Measured, alpha: float) -> float | None:
    """What is believable without asking further: the best baseline's score and what luck may add to it.

    Luck: the one-sided normal quantile of `alpha` times the errors of both scores. At most 1.
    """
    best = best_baseline(measured["baselines"])
    if best is None:
        return None
    luck = NormalDist().inv_cdf(1 - alpha) * math.hypot(best[1]["error"], measured["after"]["val"]["error"])
    return min(1.0, float(best[1]["score"]) + luck)


def too_good(measured: Measured, alpha: float) -> bool:
    """Validation is above the best baseline, beyond the errors of both."""
    best = best_baseline(measured["baselines"])
    return best is None or clearly_above(measured["after"]["val"], best[1], alpha)


def val_above_train(measured: Measured, alpha: float) -> bool:
    return clearly_above(measured["after"]["val"], measured["after"]["train"], alpha)


def _broken(after: Measured) -> bool:
    """The loss is not finite."""
    losses = [*after["losses"], after["end_loss"]]
    return any(each is not None and not math.isfinite(each) for each in losses)


def halving_epochs(after: Measured) -> float:
    """Epochs to halve the loss at the pace of the first ones; infinite where it did not fall."""
    return _halving(*_loss_ends(after), len(after["losses"]))


def _loss_ends(after: Measured) -> tuple[float, float]:
    """The first and the last loss that evaluation read, else the loop's own."""
    start, end, losses = after["start_loss"], after["end_loss"], after["losses"]
    if start is None or end is None:
        return (losses[0], losses[-1]) if len(losses) > 1 else (1.0, 0.5)
    return start, end


def _halving(start: float, end: float, epochs: int) -> float:
    if not (math.isfinite(start) and math.isfinite(end)) or end >= start:
        return math.inf
    if start <= 0 or end <= 0:  # a loss that may be negative has no half
        return math.log(2) / math.log1p((start - end) / max(abs(start), 1e-12)) * max(1, epochs)
    return max(1, epochs) * math.log(2) / math.log(start / end)


def printed_falls(after: Measured) -> bool:
    """The loss that the loop prints falls from epoch to epoch, at a pace worth waiting for."""
    losses = after["losses"]
    return len(losses) > 1 and _halving(losses[0], losses[-1], len(losses) - 1) < HALVING


def diverging(measured: Measured) -> bool:
    """The loss is not finite, or neither evaluation's nor the loop's own fell.

    Evaluation's alone may rise while batch statistics lag; the loop's alone may lie above it by dropout.
    """
    after = measured["after"]
    if _broken(after):
        return True
    start, end, losses = after["start_loss"], after["end_loss"], after["losses"]
    if printed_falls(after):
        return False
    if start is None or end is None:
        return len(losses) > 1
    return bool(end >= start and losses and min(losses) >= start)


def standing(measured: Measured, alpha: float) -> bool:
    """The loss hardly moves, up or down: halving it would take longer than `HALVING`; and train is not better.

    A loss that visibly rises is another matter: running statistics that lag do that at a healthy rate.
    """
    after = measured["after"]
    if _broken(after) or clearly_above(after["train"], measured["before"]["train"], alpha):
        return False
    start, end = _loss_ends(after)
    return min(halving_epochs(after), _halving(end, start, len(after["losses"]))) >= HALVING


def stuck(measured: Measured, alpha: float) -> bool:
    """Nothing is learnt: the loss goes nowhere or up, train is as it was, and validation below a simple model's."""
    after = measured["after"]
    if _broken(after):
        return True
    if diverging(measured):
        return below_baseline(measured, alpha)
    if clearly_above(after["train"], measured["before"]["train"], alpha):
        return False
    return halving_epochs(after) >= HALVING and below_baseline(measured, alpha)


def blank(measured: Measured, alpha: float) -> bool:
    """Answers go with the targets neither on train nor on validation."""
    after = measured["after"]
    return not signal(after["train"], alpha) and not signal(after["val"], alpha)


def below_baseline(measured: Measured, alpha: float) -> bool:
    """A simple model is clearly better on validation, or this one has no signal there at all."""
    after, best = measured["after"]["val"], best_baseline(measured["baselines"])
    return not signal(after, alpha) or (best is not None and clearly_above(best[1], after, alpha))


def cured(before: Measured, now: Measured, alpha: float) -> bool:
    """With one thing changed the loss falls in the same epochs, and train is clearly better than it was without."""
    if _broken(now) or now["train"] is None:
        return False
    falls = halving_epochs(now) < HALVING or printed_falls(now)
    return falls and clearly_above(now["train"], before["train"], alpha)


def far_from_unit(scale: Measured | None) -> bool:
    """Raw pixels, prices, ages: inputs whose spread or offset is far above 1."""
    return scale is not None and max(scale["largest_spread"], abs(scale["mean"]), scale["std"]) > FAR


def memorised(measured: Measured, alpha: float, share: float) -> bool:
    """Train has come the share of the way from chance to perfect; validation has no signal and is clearly below."""
    after, constant = measured["after"], measured["baselines"].get("constant")
    chance = measured["chance"]["train"] if constant is None else max(measured["chance"]["train"], constant["score"])
    high = after["train"]["score"] - chance >= share * (1.0 - chance)
    return high and not knows(measured, alpha) and clearly_above(after["train"], after["val"], alpha)


def random_labels_beat_chance(runs: Sequence[Measured], alpha: float) -> bool:
    """Every training on permuted labels beats chance on validation, and what the weights did before any training."""
    return bool(runs) and all(
        related(each["val"], alpha) and clearly_above(each["val"], each["before"]["val"], alpha) for each in runs
    )


def known_before(measured: Measured, alpha: float) -> bool:
    """Before any training validation went with its targets, better than train did, and training added nothing.

    A pretrained model knows rows of both splits alike, and gains by training. So do random weights, unless the labels
    of train say nothing about its inputs: then no weights know any, and whatever goes with validation looks so.
    """
    before, after, drawn = measured["before"], measured["after"], beyond_redrawn(measured, alpha)
    return (
        clearly_above(before["val"], before["train"], alpha)
        and not clearly_above(after["val"], before["val"], alpha)
        and (bool(teaches(measured, alpha)) if drawn is None else drawn and teaches(measured, alpha) is not False)
    )


def suspected_before(measured: Measured, alpha: float) -> bool:
    """Before any training validation was above a constant answer, and answers went with its targets."""
    before = measured["before"]["val"]
    constant = measured["baselines"].get("constant", before)
    return related(before, alpha) and clearly_above(before, constant, alpha)


def beyond_redrawn(measured: Measured, alpha: float) -> bool | None:
    """Before any training validation was above where the same weights drawn again come; None: they were not.

    Above the one-sided normal prediction bound of those draws: any function of correlated inputs goes with the classes,
    and some go far.
    """
    from scipy.special import stdtrit

    scores, before = measured["redrawn"], measured["before"]["val"]
    if scores is None or not all(map(math.isfinite, scores)):
        return None
    mean, draws = sum(scores) / len(scores), len(scores)
    spread = math.sqrt(sum((each - mean) ** 2 for each in scores) / (draws - 1))
    above = float(stdtrit(draws - 1, 1 - alpha)) * math.sqrt(1 + 1 / draws)
    return bool(before["score"] > mean + above * max(spread, before["error"]))


def fits_random_labels(measured: Measured, alpha: float) -> bool:
    """Permuted labels are fitted as fast as the true ones."""
    runs = measured["permuted"]
    return bool(runs) and not clearly_above(measured["after"]["train"], runs[0]["train"], alpha)


def baselines_signal(baselines: Mapping[str, Measured], alpha: float) -> bool | None:
    """A linear model or the nearest neighbour finds something; None: neither could be asked."""
    asked = [each for name, each in baselines.items() if name != "constant"]
    return any(signal(each, alpha) for each in asked) if asked else None


def unseen_by_luck(train: Mapping[str, int], val: Mapping[str, int]) -> list[dict[str, Any]]:
    """Classes of val that train has none of, and the chance that a random cut would do that."""
    rows_val, rows = sum(val.values()), sum(val.values()) + sum(train.values())
    return [
        {"class": name, "rows": count,
         "p": math.exp(sum(math.log((rows_val - each) / (rows - each)) for each in range(count)))}
        for name, count in val.items() if name not in train
    ]  # fmt: skip
