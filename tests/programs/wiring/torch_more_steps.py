"""More torch programs whose outputs, starts or steps are wrong."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.helpers import generator
from tests.programs.wiring.corpus import Corpus, Fields
from tests.programs.wiring.torch_base import CE, ROWS, Mlp, case, rows, series, sgd, stepping, values
from tests.programs.wiring.torch_outputs import START, ending, yes_no
from tests.programs.wiring.torch_steps import BACKWARD, UP, Noisy
from tests.programs.wiring.torch_updates import hand_loop

PROGRAMS = Corpus()
twins = PROGRAMS.twins

# ------------------------------------------------------------------ outputs


@twins("softmax_wrong_axis", "lookahead", "batch_mixing", "missing_softmax", "wrong_loss")
def softmax_over_steps(broken: bool) -> Fields:
    """A tagger whose log_softmax goes over the steps."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).log_softmax(1 if broken else 2)

    x = series()[0]
    y = torch.randint(0, 4, x.shape[:2], generator=generator(3))
    return case(Model, batch=lambda: (x, y), loss=lambda o, y: F.nll_loss(o.flatten(0, 1), y.flatten()))


@twins("bounded_logits", "output_range")
def scores_of_unit_length(broken: bool) -> Fields:
    """F.normalize on the scores."""
    return case(ending((lambda o: F.normalize(o)) if broken else None))


@twins("bounded_logits", "output_range", "double_sigmoid")
def hard_sigmoid_before_the_loss(broken: bool) -> Fields:
    """hardsigmoid under binary_cross_entropy_with_logits, eight labels."""
    y = (torch.rand(ROWS, 8, generator=generator(4)) < 0.5).float()
    last = F.hardsigmoid if broken else None
    return case(ending(last, 8), batch=lambda: (rows()[0], y), loss=F.binary_cross_entropy_with_logits)


@twins("double_sigmoid", "bounded_logits")
def sigmoid_of_several_labels(broken: bool) -> Fields:
    """BCEWithLogitsLoss of six sigmoids."""
    y = (torch.rand(ROWS, 6, generator=generator(4)) < 0.5).float()
    return case(ending(torch.sigmoid if broken else None, 6), batch=lambda: (rows()[0], y), loss=nn.BCEWithLogitsLoss())


@twins("double_softmax", "bounded_logits")
def softmax_under_an_entropy_by_hand(broken: bool) -> Fields:
    """-log_softmax of probabilities, picked by hand."""

    def loss(o: Tensor, y: Tensor) -> Tensor:
        return -o.log_softmax(1)[torch.arange(len(y)), y].mean()

    return case(ending((lambda o: o.softmax(-1)) if broken else None), loss=loss)


@twins("double_sigmoid", "bounded_logits")
def sigmoid_under_an_entropy_by_hand(broken: bool) -> Fields:
    """softplus(o) - y * o of probabilities."""
    x, y = yes_no()
    return case(ending(torch.sigmoid if broken else None, 1), batch=lambda: (x, y), loss=_softplus)


def _softplus(o: Tensor, y: Tensor) -> Tensor:
    return (F.softplus(o) - y * o).mean()


@twins("softmax_without_log", "missing_softmax")
def divergence_of_probabilities(broken: bool) -> Fields:
    """KLDivLoss of probabilities instead of their logarithms."""
    x, y = rows()
    target = 0.8 * F.one_hot(y, 5).float() + 0.04
    last = (lambda o: o.softmax(-1)) if broken else (lambda o: o.log_softmax(-1))
    return case(ending(last), batch=lambda: (x, target), loss=nn.KLDivLoss(reduction="batchmean"))


@twins("label_out_of_range", "output_range", "wrong_loss")
def signs_as_targets_of_an_entropy(broken: bool) -> Fields:
    """Targets of -1 and 1 under binary_cross_entropy_with_logits."""
    x, y = yes_no()
    return case(ending(None, 1), batch=lambda: (x, 2 * y - 1 if broken else y), loss=F.binary_cross_entropy_with_logits)


@twins("output_range")
def sigmoid_for_pixels_up_to_255(broken: bool) -> Fields:
    """An autoencoder of bytes."""
    x = (rows()[0].clamp(-2, 2) + 2) * 63
    scale = 1.0 if broken else 255.0
    return case(ending(torch.sigmoid, 20), batch=lambda: (x / 255, x / scale), loss=F.mse_loss)


@twins("target_broadcast", "shape_mismatch")
def mean_absolute_error_of_a_column(broken: bool) -> Fields:
    """Huber's loss of [N, 1] and [N], as the library computes it with a warning."""
    x, y = values()
    return case(ending(None, 1), batch=lambda: (x, y[:, 0] if broken else y), loss=lambda o, y: _huber(o, y))


def _huber(o: Tensor, y: Tensor) -> Tensor:
    gap = (o - y).abs()
    return torch.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean()


@twins("wrong_reduction")
def absolute_errors_added(broken: bool) -> Fields:
    """L1Loss(reduction="sum")."""
    return case(ending(None, 2), batch=lambda: values(outputs=2), loss=nn.L1Loss(reduction="sum" if broken else "mean"))


@twins("label_off_by_one", "wrong_output_units")
def labels_from_one_in_two_classes(broken: bool) -> Fields:
    """Seven classes from 1 to 7, eight units."""
    x, y = rows(classes=7)
    return case(ending(None, 8 if broken else 7), batch=lambda: (x, y + broken))


# -------------------------------------------------------------------- start


@twins(*START)
def temperature_of_a_hundredth(broken: bool) -> Fields:
    """Scores divided by 0.01."""
    return case(ending(lambda o: o / (0.01 if broken else 1.0)))


@twins(*START)
def certain_of_one_class(broken: bool) -> Fields:
    """The bias of one class starts at 50."""

    def model() -> nn.Module:
        made = Mlp()
        with torch.no_grad():
            made.head.bias[2] = 50.0 if broken else 0.0
        return made

    return case(model)


@twins(*START)
def embeddings_of_deviation_a_hundred(broken: bool) -> Fields:
    def model() -> nn.Module:
        words = nn.Embedding(30, 16)
        nn.init.normal_(words.weight, std=100.0 if broken else 0.1)
        return nn.Sequential(words, nn.Flatten(), nn.Linear(192, 5))

    ids = torch.randint(0, 30, (ROWS, 12), generator=generator(0))
    return case(model, batch=lambda: (ids, rows()[1]))


# ------------------------------------------------------------------ descent


@twins(*UP)
def rate_below_zero_by_schedule(broken: bool) -> Fields:
    """A factor of 1 - step that begins at -1."""
    schedule = lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: -1.0 if broken else 1.0)  # noqa: E731
    return case(optimizer=sgd, scheduler=schedule)


@twins(*UP)
def gradients_negated_in_the_loop(broken: bool) -> Fields:
    """Every gradient times -1 before the step."""

    def before(model: Any) -> None:
        for each in model.parameters():
            each.grad.mul_(-1 if broken else 1)

    return stepping(hand_loop(before=before))


@twins(*BACKWARD)
def backward_transposed(broken: bool) -> Fields:
    """A hand-written square layer whose gradient takes the weight for its transpose."""

    class Times(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            ctx.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            x, w = ctx.saved_tensors
            return gradient @ (w if broken else w.T), x.T @ gradient

    class Model(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.middle = nn.Parameter(torch.randn(32, 32) / 6)

        def forward(self, x: Tensor) -> Any:
            return self.head(Times.apply(self.body(x), self.middle))

    return case(Model, optimizer=sgd)


@twins("excessive_weight_decay", "lr_too_high", "gradient_ascent")
def decoupled_decay_of_a_rate(broken: bool) -> Fields:
    """AdamW(lr=0.1, weight_decay=5): a step takes half of the weights."""
    return case(
        optimizer=lambda p: torch.optim.AdamW(p, lr=0.1 if broken else 0.01, weight_decay=5.0 if broken else 0.01)
    )


@twins("lr_too_low", "wrong_reduction", "accumulation_not_divided")
def loss_divided_by_a_million(broken: bool) -> Fields:
    """Divided by the number of pixels of another dataset."""
    return case(loss=lambda o, y: CE(o, y) / (1e6 if broken else 1.0), optimizer=sgd)


@twins("grad_clip_too_small", "lr_too_low")
def clipped_by_value_to_nothing(broken: bool) -> Fields:
    """clip_grad_value_(1e-8)."""
    clip = lambda model: nn.utils.clip_grad_value_(model.parameters(), 1e-8 if broken else 1.0)  # noqa: E731
    return stepping(hand_loop(before=clip))


@twins("lr_too_low", "lr_zero", "update_skipped")
def rate_next_to_nothing_in_a_loop(broken: bool) -> Fields:
    """A loop of one's own with lr=1e-9."""

    def make(model: Any) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9 if broken else 0.1)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    return stepping(make)


# --------------------------------------------------------------------- step


@twins("missing_zero_grad")
def zeroed_once_at_the_start(broken: bool) -> Fields:
    """zero_grad() before the loop instead of within it; Adam."""

    def make(model: Any) -> Any:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        optimizer.zero_grad()

        def step(x: Any, y: Any) -> Any:
            if not broken:
                optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    return stepping(make)


@twins("missing_zero_grad")
def gradients_pile_up_and_are_clipped(broken: bool) -> Fields:
    """The same behind clip_grad_norm_, which hides the growth."""

    def make(model: Any) -> Any:
        optimizer = sgd(model.parameters())

        def step(x: Any, y: Any) -> Any:
            if not broken:
                optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

        return step

    return stepping(make)


@twins("missing_zero_grad")
def model_zeroed_instead_of_its_parts(broken: bool) -> Fields:
    """zero_grad of the encoder alone."""

    def make(model: Any) -> Any:
        optimizer = sgd(model.parameters())

        def step(x: Any, y: Any) -> Any:
            (model.body if broken else model).zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    return stepping(make)


@twins("accumulation_not_divided", "lr_too_high")
def gradients_of_four_calls_added(broken: bool) -> Fields:
    """Accumulation over four calls, whose losses are not divided."""

    def make(model: Any) -> Any:
        optimizer, count = sgd(model.parameters()), [0]

        def step(x: Any, y: Any) -> Any:
            loss = CE(model(x), y)
            (loss if broken else loss / 4).backward()
            count[0] += 1
            if count[0] % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
            return loss

        return step

    return stepping(make)


@twins("schedule_kills_rate", "lr_too_low", "lr_zero")
def schedule_stepped_in_the_loop(broken: bool) -> Fields:
    """A decay for epochs, stepped in each call."""

    def make(model: Any) -> Any:
        optimizer = sgd(model.parameters())
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1 if broken else 5000, gamma=0.5)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            optimizer.step()
            schedule.step()
            return loss

        return step

    return stepping(make)


@twins("step_in_eval_mode", "batchnorm_eval_mismatch", "inert_regularizer")
def evaluated_first_and_never_set_back(broken: bool) -> Fields:
    """A score is read in evaluation at the beginning of each call."""

    def make(model: Any) -> Any:
        optimizer = sgd(model.parameters())

        def step(x: Any, y: Any) -> Any:
            model.eval()
            with torch.no_grad():
                model(x)
            if not broken:
                model.train()
            optimizer.zero_grad()
            loss = CE(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return step

    return stepping(make, model=Noisy)


@twins("ema_overwrite", "lr_too_low", "update_skipped")
def average_loaded_for_a_validation(broken: bool) -> Fields:
    """The average is loaded to validate, and the weights are never loaded back."""
    kept: dict[int, Any] = {}

    def after(model: Any) -> None:
        average = kept.setdefault(id(model), {name: each.clone() for name, each in model.state_dict().items()})
        for name, each in model.state_dict().items():
            average[name].lerp_(each, 0.02)
        if broken:
            model.load_state_dict(average)

    return stepping(hand_loop(after=after))


@twins("loss_not_scaled", "lr_too_low")
def scaler_steps_an_unscaled_loss(broken: bool) -> Fields:
    """scaler.step without scale, at the usual factor of 65536, and no clipping."""

    def make(model: Any) -> Any:
        optimizer, scaler = sgd(model.parameters()), torch.amp.GradScaler("cpu")

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = CE(model(x), y)
            scaled = scaler.scale(loss)
            (loss if broken else scaled).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        return step

    return stepping(make)
