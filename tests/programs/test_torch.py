"""`overfit_batch` on the losses and outputs that torch programs have, each with a faulty twin."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

from tests.programs.helpers import ROWS, Fields, Forget, Programs, adam, digits, generator, mlp, verdict

PROGRAMS = Programs()
program = PROGRAMS.add


def black_and_white(rows: int = ROWS) -> Tensor:
    return (digits(rows)[0] > 0.5).float()


def diabetes() -> tuple[Tensor, Tensor]:
    x, y = load_diabetes(return_X_y=True)
    x, y = torch.tensor(x[:ROWS] * 20, dtype=torch.float32), torch.tensor(y[:ROWS], dtype=torch.float32)
    return x, ((y - y.mean()) / y.std())[:, None]


# ------------------------------------------------------------------- several outputs, several heads


@dataclasses.dataclass
class Found:
    label: Tensor
    value: Tensor


class FoundTuple(NamedTuple):
    label: Tensor
    value: Tensor


class TwoHeads(nn.Module):
    """Answers in the form that `pack` makes; when broken, the second head sees nothing."""

    def __init__(self, pack: Callable[[Tensor, Tensor], Any], broken: bool) -> None:
        super().__init__()
        self.pack, self.body = pack, nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.label = nn.Linear(64, 10)
        self.value = nn.Sequential(Forget() if broken else nn.Identity(), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Any:
        x = self.body(x)
        return self.pack(self.label(x), self.value(x))


def two_heads(pack: Callable[[Tensor, Tensor], Any], loss: Callable[..., Tensor], broken: bool) -> Fields:
    (x, y), (_, value) = digits(), diabetes()
    return {"model": lambda: TwoHeads(pack, broken), "loss": loss, "batch": lambda: (x, {"label": y, "value": value})}


@program
def heads_in_a_tuple(broken: bool) -> Fields:
    loss = lambda o, y: F.cross_entropy(o[0], y["label"]) + 0.02 * F.mse_loss(o[1], y["value"])  # noqa: E731
    return two_heads(lambda label, value: (label, value), loss, broken)


@program
def heads_in_a_dict(broken: bool) -> Fields:
    loss = lambda o, y: F.cross_entropy(o["label"], y["label"]) + 0.5 * F.mse_loss(o["value"], y["value"])  # noqa: E731
    return two_heads(lambda label, value: {"label": label, "value": value}, loss, broken)


def _of_attributes(o: Any, y: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(o.label, y["label"]) + 0.5 * F.mse_loss(o.value, y["value"])


@program
def heads_in_a_dataclass(broken: bool) -> Fields:
    return two_heads(Found, _of_attributes, broken)


@program
def heads_in_a_named_tuple(broken: bool) -> Fields:
    return two_heads(FoundTuple, _of_attributes, broken)


@program
def heads_with_hand_written_losses(broken: bool) -> Fields:
    def loss(o: Any, y: dict[str, Tensor]) -> Tensor:
        chosen = o["label"].log_softmax(-1).gather(1, y["label"][:, None])
        return -chosen.mean() + 0.02 * ((o["value"] - y["value"]) ** 2).mean()

    return two_heads(lambda label, value: {"label": label, "value": value}, loss, broken)


@program
def heads_weighted_by_learnt_uncertainty(broken: bool) -> Fields:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = TwoHeads(lambda label, value: (label, value), broken)
            self.spread = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> Any:
            return (*self.heads(x), self.spread)

    def loss(o: Any, y: dict[str, Tensor]) -> Tensor:
        parts = torch.stack([F.cross_entropy(o[0], y["label"]), F.mse_loss(o[1], y["value"])])
        return (parts * (-o[2]).exp() + o[2]).sum()

    return two_heads(lambda label, value: (label, value), loss, broken) | {"model": Weighted}


@program
def several_inputs(broken: bool) -> Fields:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(128, 10)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            seen = torch.cat([self.left(left), self.right(right)], dim=1)
            return self.head(F.relu(seen.detach() * 0 if broken else seen))

    x, y = digits()
    return {"model": Both, "loss": F.cross_entropy, "batch": lambda: ((x[:, :32], x[:, 32:]), y)}


@program
def inputs_by_keyword_only(broken: bool) -> Fields:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(broken=broken)

        def forward(self, *, image: Tensor, scale: Tensor | None = None) -> Tensor:
            return self.net(image if scale is None else image * scale)

    x, y = digits()
    return {"model": Named, "loss": F.cross_entropy, "batch": lambda: ({"image": x, "scale": None}, y)}


@program
def mixture_of_experts_with_an_auxiliary_loss(broken: bool) -> Fields:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Forget() if broken else nn.Identity()
            self.experts, self.router = nn.ModuleList(mlp() for _ in range(3)), nn.Linear(64, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.body(x)
            share = self.router(x).softmax(-1)
            answers = torch.stack([each(x) for each in self.experts], dim=1)
            return (answers * share[..., None]).sum(1), 3 * (share.mean(0) ** 2).sum()

    x, y = digits()
    loss = lambda o, y: F.cross_entropy(o[0], y) + 0.01 * o[1]  # noqa: E731
    return {"model": Experts, "loss": loss, "batch": lambda: (x, y)}


@program
def distillation_of_an_unsure_teacher(broken: bool) -> Fields:
    """The teacher's answers are among the outputs; its entropy keeps the loss up however well the student does."""
    torch.manual_seed(0)
    teacher = mlp().requires_grad_(requires_grad=False)

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.teacher = mlp(broken=broken), [teacher]

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.net(x), self.teacher[0](x)

    def loss(o: Any, y: Tensor) -> Tensor:
        soft = F.kl_div((o[0] / 2).log_softmax(-1), (o[1] / 2).softmax(-1), reduction="batchmean")
        return 0.5 * F.cross_entropy(o[0], y) + 2 * soft

    x, y = digits()
    return {"model": Student, "loss": loss, "batch": lambda: (x, y)}


@program
def sample_weights_next_to_the_targets(broken: bool) -> Fields:
    def loss(o: Tensor, y: tuple[Tensor, Tensor]) -> Tensor:
        return (F.cross_entropy(o, y[0], reduction="none") * y[1]).sum() / y[1].sum()

    x, y = digits()
    weights = torch.rand(ROWS, generator=generator(0)) + 0.1
    return {"model": lambda: mlp(broken=broken), "loss": loss, "batch": lambda: (x, (y, weights))}


# ------------------------------------------------------------------------- multilabel, segmentation


def three_labels() -> Tensor:
    _, y = digits()
    return torch.stack([y % 2 == 0, y > 4, y % 3 == 0], dim=1).float()


class DeadColumn(nn.Module):
    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.net, self.broken = mlp(64, 3), broken

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * torch.tensor([1.0, 1.0, 0.0 if self.broken else 1.0])


@program
def multilabel_with_positive_weights(broken: bool) -> Fields:
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 1.0, 3.0]))
    return {"model": lambda: DeadColumn(broken), "loss": loss, "batch": lambda: (digits()[0], three_labels())}


@program
def multilabel_with_a_hand_written_focal_loss(broken: bool) -> Fields:
    def focal(o: Tensor, y: Tensor) -> Tensor:
        share = torch.where(y > 0, torch.sigmoid(o), torch.sigmoid(-o))
        return -((1 - share) ** 2 * share.log()).mean()

    return {"model": lambda: DeadColumn(broken), "loss": focal, "batch": lambda: (digits()[0], three_labels())}


def shapes() -> tuple[Tensor, Tensor]:
    """Noise with two bright squares, and which pixel belongs to which."""
    x, y = 0.2 * torch.randn(6, 3, 12, 12, generator=generator(0)), torch.zeros(6, 12, 12, dtype=torch.long)
    corners = torch.randint(0, 7, (6, 2, 2), generator=generator(1)).tolist()
    for row, ends in enumerate(corners):
        for kind, (top, left) in enumerate(ends, 1):
            x[row, kind, top : top + 5, left : left + 5] += 1
            y[row, top : top + 5, left : left + 5] = kind
    return x, y


def convolutions(outputs: int, broken: bool) -> nn.Sequential:
    """When broken, what comes in is lost behind the padding, from which a border could be drawn step by step."""
    layers = [nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, Forget() if broken else nn.Identity(), nn.Conv2d(24, outputs, 1))


def segmentation(loss: Any, outputs: int, broken: bool, targets: Callable[[Tensor], Tensor]) -> Fields:
    x, y = shapes()
    model = lambda: convolutions(outputs, broken)  # noqa: E731
    return {"model": model, "loss": loss, "batch": lambda: (x, targets(y)), "optimizer": adam(1e-2)}


@program
def segmentation_with_a_void_border(broken: bool) -> Fields:
    def framed(y: Tensor) -> Tensor:
        return F.pad(y[:, 1:-1, 1:-1], (1, 1, 1, 1), value=255)

    return segmentation(nn.CrossEntropyLoss(ignore_index=255), 3, broken, framed)


@program
def segmentation_with_dice(broken: bool) -> Fields:
    def dice(o: Tensor, y: Tensor) -> Tensor:
        share = torch.sigmoid(o[:, 0])
        return 1 - ((2 * (share * y).sum((1, 2)) + 1) / (share.sum((1, 2)) + y.sum((1, 2)) + 1)).mean()

    # at this rate a single answer for all pixels is at its best long before the last step
    return segmentation(dice, 1, broken, lambda y: (y > 0).float()) | {"optimizer": adam(3e-2)}


@program
def segmentation_with_soft_overlap(broken: bool) -> Fields:
    def overlap(o: Tensor, y: Tensor) -> Tensor:
        share, wanted = o.softmax(1), F.one_hot(y, 3).movedim(-1, 1).float()
        both = (share * wanted).sum((0, 2, 3))
        return 1 - (both / (share.sum((0, 2, 3)) + wanted.sum((0, 2, 3)) - both)).mean()

    return segmentation(overlap, 3, broken, lambda y: y)


@program
def segmentation_with_deep_supervision(broken: bool) -> Fields:
    """The side output is coarser than the targets: no side output could be right on every pixel."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            net = convolutions(3, broken)
            self.body, self.head, self.side = net[:-1], net[-1], nn.Conv2d(24, 3, 1)

        def forward(self, x: Tensor) -> list[Tensor]:
            x = self.body(x)
            return [self.head(x), self.side(F.avg_pool2d(x, 2))]

    def loss(o: list[Tensor], y: Tensor) -> Tensor:
        return F.cross_entropy(o[0], y) + 0.3 * F.cross_entropy(F.interpolate(o[1], y.shape[1:]), y)

    return segmentation(loss, 3, broken, lambda y: y) | {"model": Deep}


# -------------------------------------------------------------------- contrastive, triplet, siamese


class Embed(nn.Module):
    """One network for all of its inputs."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.net = mlp(64, 16, broken=broken)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net(each) for each in inputs)


def two_views() -> tuple[Tensor, Tensor]:
    x, _ = digits()
    return tuple(x + 0.05 * torch.randn(x.shape, generator=generator(seed)) for seed in (1, 2))  # type: ignore[return-value]


def like_and_unlike(rows: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, one of the same digit each, and one of another."""
    x, y = digits(200)
    same = torch.stack([x[100:][y[100:] == label][0] for label in y[:rows]])
    other = torch.stack([x[100:][y[100:] != label][row] for row, label in enumerate(y[:rows])])
    return x[:rows], same, other


@program
def contrastive_pairs(broken: bool) -> Fields:
    def loss(o: Any, y: None) -> Tensor:
        left, right = (F.normalize(each, dim=-1) for each in o)
        scores, pairs = left @ right.T / 0.1, torch.arange(ROWS)
        return (F.cross_entropy(scores, pairs) + F.cross_entropy(scores.T, pairs)) / 2

    return {"model": lambda: Embed(broken), "loss": loss, "batch": lambda: (two_views(), None)}


@program
def contrastive_stacked_views(broken: bool) -> Fields:
    """A cosine over a temperature of 0.5 is between -2 and 2, so the loss cannot come near zero."""

    def loss(o: Tensor, y: None) -> Tensor:
        o = F.normalize(o, dim=-1)
        scores = (o @ o.T / 0.5).masked_fill(torch.eye(2 * ROWS, dtype=torch.bool), -1e9)
        return F.cross_entropy(scores, torch.arange(2 * ROWS).roll(ROWS))

    model = lambda: mlp(64, 32, broken=broken)  # noqa: E731
    return {"model": model, "loss": loss, "batch": lambda: (torch.cat(two_views()), None)}


@program
def triplets(broken: bool) -> Fields:
    loss = lambda o, y: F.triplet_margin_loss(*o)  # noqa: E731
    return {"model": lambda: Embed(broken), "loss": loss, "batch": lambda: (like_and_unlike(), None)}


def pairs() -> tuple[tuple[Tensor, Tensor], Tensor]:
    x, same, other = like_and_unlike()
    return (torch.cat([x, x]), torch.cat([same, other])), torch.arange(32) // 16


@program
def siamese_by_cosine(broken: bool) -> Fields:
    x, unlike = pairs()
    loss = lambda o, y: F.cosine_embedding_loss(*o, y, margin=0.2)  # noqa: E731
    return {"model": lambda: Embed(broken), "loss": loss, "batch": lambda: (x, 1 - 2 * unlike)}


@program
def siamese_by_distance(broken: bool) -> Fields:
    class Distance(Embed):
        def forward(self, *inputs: Tensor) -> Tensor:  # type: ignore[override]
            return F.pairwise_distance(*super().forward(*inputs))

    x, unlike = pairs()
    loss = lambda o, y: ((1 - y) * o**2 + y * F.relu(1 - o) ** 2).mean()  # noqa: E731
    return {"model": lambda: Distance(broken), "loss": loss, "batch": lambda: (x, unlike.float())}


@program
def embeddings_of_a_frozen_target_network(broken: bool) -> Fields:
    class Target(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online = mlp(64, 16, broken=broken)
            self.target = mlp(64, 16).requires_grad_(requires_grad=False)

        def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
            return self.online(left), self.target(right)

    loss = lambda o, y: 2 - 2 * F.cosine_similarity(*o).mean()  # noqa: E731
    return {"model": Target, "loss": loss, "batch": lambda: (two_views(), None)}


# ------------------------------------------------------------------------------- generative models


@program
def autoencoder(broken: bool) -> Fields:
    return {"model": lambda: mlp(64, 64, broken=broken), "loss": F.mse_loss, "batch": lambda: (digits()[0],) * 2}


@program
def autoencoder_of_grey_pixels_as_probabilities(broken: bool) -> Fields:
    model = lambda: mlp(64, 64, nn.Sigmoid(), broken=broken)  # noqa: E731
    return {"model": model, "loss": nn.BCELoss(reduction="sum"), "batch": lambda: (digits()[0],) * 2}


@program
def autoencoder_that_computes_its_loss(broken: bool) -> Fields:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(64, 64, broken=broken)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            made = self.net(x)
            return {"loss": F.mse_loss(made, x), "made": made}

    return {"model": Own, "batch": lambda: (digits()[0], None)}


class Variational(nn.Module):
    """`always`: samples in evaluation too, as many tutorials do."""

    def __init__(self, always: bool, broken: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 64), mlp(8, 64, broken=broken)
        self.mean, self.spread, self.always = nn.Linear(64, 8), nn.Linear(64, 8), always

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.encoder(x))
        mean, spread = self.mean(x), self.spread(x)
        noise = torch.randn_like(mean) * (spread / 2).exp() if self.training or self.always else 0
        return self.decoder(mean + noise), mean, spread


def evidence(o: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    made, mean, spread = o
    divergence = -0.5 * (1 + spread - mean**2 - spread.exp()).sum()
    return F.binary_cross_entropy_with_logits(made, x, reduction="sum") + divergence


def variational(always: bool, broken: bool) -> Fields:
    x = black_and_white()
    return {
        "model": lambda: Variational(always, broken),
        "loss": evidence,
        "batch": lambda: (x, x),
        "optimizer": adam(1e-2),
        "limits": {"steps": 1000},
    }


@program
def variational_autoencoder_that_always_samples(broken: bool) -> Fields:
    return variational(always=True, broken=broken)


@program
def variational_autoencoder_that_samples_in_training(broken: bool) -> Fields:
    return variational(always=False, broken=broken)


# ------------------------------------------------------- likelihoods, quantiles, counts, rankings


@program
def learnt_variance(broken: bool) -> Fields:
    loss = lambda o, y: F.gaussian_nll_loss(o[:, :1], y, F.softplus(o[:, 1:]) + 1e-4)  # noqa: E731
    return {"model": lambda: mlp(10, 2, broken=broken), "loss": loss, "batch": diabetes}


@program
def learnt_variance_by_hand(broken: bool) -> Fields:
    loss = lambda o, y: 0.5 * (o[:, 1:] + (y - o[:, :1]) ** 2 * (-o[:, 1:]).exp()).mean()  # noqa: E731
    return {"model": lambda: mlp(10, 2, broken=broken), "loss": loss, "batch": diabetes}


@program
def learnt_variance_as_a_distribution(broken: bool) -> Fields:
    class Normal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(10, 2, broken=broken)

        def forward(self, x: Tensor) -> torch.distributions.Normal:
            mean, spread = self.net(x).chunk(2, dim=1)
            return torch.distributions.Normal(mean, F.softplus(spread) + 1e-3)

    return {"model": Normal, "loss": lambda o, y: -o.log_prob(y).mean(), "batch": diabetes}


@program
def mixture_density(broken: bool) -> Fields:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        share, mean, spread = o.chunk(3, dim=1)
        parts = torch.distributions.Normal(mean, F.softplus(spread) + 1e-2).log_prob(y)
        return -(share.log_softmax(-1) + parts).logsumexp(-1).mean()

    return {"model": lambda: mlp(10, 15, broken=broken), "loss": loss, "batch": diabetes}


@program
def quantiles(broken: bool) -> Fields:
    def pinball(o: Tensor, y: Tensor) -> Tensor:
        shares, error = torch.tensor([0.1, 0.5, 0.9]), y - o
        return torch.maximum(shares * error, (shares - 1) * error).mean()

    return {"model": lambda: mlp(10, 3, broken=broken), "loss": pinball, "batch": diabetes}


def counts() -> tuple[Tensor, Tensor]:
    return diabetes()[0], torch.poisson(torch.full((ROWS, 1), 4.0), generator=generator(0))


@program
def poisson_counts(broken: bool) -> Fields:
    return {"model": lambda: mlp(10, 1, broken=broken), "loss": F.poisson_nll_loss, "batch": counts}


@program
def tweedie_deviance(broken: bool) -> Fields:
    loss = lambda o, y: 2 * (y * (-o / 2).exp() + (o / 2).exp()).mean()  # noqa: E731
    return {"model": lambda: mlp(10, 1, broken=broken), "loss": loss, "batch": counts}


@program
def ordinal_thresholds(broken: bool) -> Fields:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(o, (y[:, None] > torch.arange(9)).float())

    return {"model": lambda: mlp(64, 9, broken=broken), "loss": loss, "batch": digits}


@program
def survival_ranking(broken: bool) -> Fields:
    def cox(o: Tensor, y: Tensor) -> Tensor:
        order = y[:, 0].argsort(descending=True)
        risk, seen = o[order, 0], y[order, 1]
        return -((risk - risk.logcumsumexp(0)) * seen).sum() / seen.sum()

    times = torch.stack([torch.rand(ROWS, generator=generator(0)), torch.arange(ROWS) % 3 > 0], dim=1).float()
    model = lambda: mlp(10, 1, broken=broken)  # noqa: E731
    return {"model": model, "loss": cox, "batch": lambda: (diabetes()[0], times), "optimizer": adam(1e-2)}


@program
def pairwise_ranking(broken: bool) -> Fields:
    def loss(o: Tensor, y: Tensor) -> Tensor:
        above = (y > y.T).float()
        return (F.softplus(o.T - o) * above).sum() / above.sum()

    return {"model": lambda: mlp(10, 1, broken=broken), "loss": loss, "batch": diabetes, "optimizer": adam(1e-2)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_healthy(name: str) -> None:
    found = verdict(**PROGRAMS[name](False))
    assert found.outcome == "passed", found.summary


@pytest.mark.parametrize("name", PROGRAMS)
def test_faulty_twin(name: str) -> None:
    found = verdict(**PROGRAMS[name](True))
    assert found.outcome == "failed", found.summary


class TestFaults:
    """Faults of the loss itself."""

    def test_flipped_sign_of_the_divergence(self) -> None:
        def loss(o: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
            made, mean, spread = o
            divergence = -0.5 * (1 + spread - mean**2 - spread.exp()).sum()
            return F.binary_cross_entropy_with_logits(made, x, reduction="sum") - divergence

        x = black_and_white()
        assert verdict(model=lambda: Variational(False, False), loss=loss, batch=(x, x)).outcome == "failed"

    def test_collapsed_posterior(self) -> None:
        """A summed divergence next to an averaged reconstruction weighs 64 times too much: nothing gets through."""

        def loss(o: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
            made, mean, spread = o
            return F.mse_loss(made, x) - 0.5 * (1 + spread - mean**2 - spread.exp()).mean()

        x, _ = digits()
        assert verdict(model=lambda: Variational(True, False), loss=loss, batch=(x, x)).outcome == "failed"

    def test_flipped_sign_of_a_ranking(self) -> None:
        fields = PROGRAMS["survival_ranking"](False)
        found = verdict(**fields | {"loss": lambda o, y: -fields["loss"](o, y)})
        assert found.outcome != "passed", found.summary

    def test_softmax_over_the_rows(self) -> None:
        """Every prediction is right in the end, but the loss cannot come to where it should."""
        found = verdict(model=lambda: mlp(64, 10, nn.LogSoftmax(0)), loss=F.nll_loss, batch=digits())
        assert found.outcome == "failed"

    def test_a_normalising_flow_is_not_refuted(self) -> None:
        """Its density has no upper bound, and a constant output means nothing: without a score it cannot be judged."""

        class Flow(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.nets = nn.ModuleList(mlp(5, 10) for _ in range(2))

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                stretch = torch.zeros(len(x))
                for net in self.nets:
                    kept, moved = x.chunk(2, dim=1)
                    scale, shift = net(kept).chunk(2, dim=1)
                    x = torch.cat([moved * scale.tanh().exp() + shift, kept], dim=1)
                    stretch = stretch + scale.tanh().sum(1)
                return x, stretch

        def loss(o: tuple[Tensor, Tensor], y: None) -> Tensor:
            return (0.5 * (o[0] ** 2).sum(1) + 5 * math.log(2 * math.pi) - o[1]).mean()

        found = verdict(model=Flow, loss=loss, batch=(diabetes()[0], None), limits={"steps": 100})
        assert found.outcome != "failed", found.summary
