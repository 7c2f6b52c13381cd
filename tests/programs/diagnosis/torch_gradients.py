"""Torch programs in which the gradient does not reach the parameters."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.programs.diagnosis import data
from tests.programs.diagnosis.corpus import Corpus, Fields
from tests.programs.diagnosis.torch_base import adam, column, images, loop, mlp, tensors

PROGRAMS = Corpus()
pair = PROGRAMS.pair


@pair("detached_graph", "cut_gradient")
def loss_made_anew(broken: bool) -> Fields:
    """torch.tensor(loss.item(), requires_grad=True), for a plot."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        value = F.cross_entropy(outputs, y)
        return torch.tensor(value.item(), requires_grad=True) if broken else value

    return loop(lambda: mlp(64, 10), tensors(data.digits(32)), loss, adam())


@pair("detached_graph", "cut_gradient", "frozen_parameters")
def features_under_no_grad(broken: bool) -> Fields:
    """The encoder runs in no_grad, as it did while it was pretrained, and ends in two units."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 2))
            self.head = nn.Linear(2, 10)

        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not broken):
                features = self.encoder(x)
            return self.head(features)

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": tensors(data.digits(24))}


@pair("detached_graph", "cut_gradient")
def scores_through_numpy(broken: bool) -> Fields:
    """Outputs are rounded off by numpy, and made a tensor again."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(6, 1)

        def forward(self, x: Tensor) -> Any:
            answer = self.net(x)
            return torch.from_numpy(answer.detach().numpy()).requires_grad_() if broken else answer

    return {"model": Net, "loss": nn.MSELoss(), "optimizer": adam(0.01), "batch": tensors(data.surfaces())}


@pair("non_differentiable", "cut_gradient", "detached_graph")
def classes_by_argmax(broken: bool) -> Fields:
    """The loss compares class numbers, and argmax has no gradient."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        if broken:
            return F.mse_loss(outputs.argmax(1).float().requires_grad_(), y.float())
        return F.cross_entropy(outputs, y)

    return loop(lambda: mlp(13, 3), tensors(data.scaled("wine", 30)), loss, adam(0.01))


@pair("non_differentiable", "cut_gradient")
def hidden_steps(broken: bool) -> Fields:
    """Hidden units that fire or do not."""

    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x > 0).float() if broken else torch.sigmoid(x)

    return {
        "model": lambda: nn.Sequential(nn.Linear(2, 12), Step(), nn.Linear(12, 2)),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(0.05),
        "batch": tensors(data.spirals(24)),
    }


@pair("non_differentiable", "cut_gradient", "detached_graph")
def answers_rounded(broken: bool) -> Fields:
    """Probabilities are rounded to 0 or 1 before the loss."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(30, 1)

        def forward(self, x: Tensor) -> Tensor:
            p = torch.sigmoid(self.net(x))
            return torch.round(p) if broken else p

    return {
        "model": Net,
        "loss": F.mse_loss,
        "optimizer": adam(0.01),
        "batch": column(data.scaled("breast_cancer", 32)),
    }


@pair("frozen_parameters", "optimizer_wrong_params")
def backbone_frozen_without_pretraining(broken: bool) -> Fields:
    """Fine-tuning was copied, the weights to tune were not: a random backbone of four channels is frozen."""

    def model() -> nn.Module:
        net = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, stride=2), nn.Tanh(), nn.Conv2d(8, 4, 3), nn.Tanh()),
            *(nn.Flatten(), nn.Linear(4, 10)),
        )
        net[:4].requires_grad_(not broken)
        return net

    return {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(0.02),
        "batch": images(data.digits(16)),
    }


@pair("frozen_parameters", "update_skipped", "detached_graph", "cut_gradient")
def everything_frozen_by_a_loop(broken: bool) -> Fields:
    """The loop that freezes the embedding goes over all parameters; the loss only carries a constant's gradient."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(50, 32, padding_idx=0), nn.Linear(32, 3)
            for parameter in self.parameters() if broken else [self.words.weight]:
                parameter.requires_grad = False
            self.temperature = nn.Parameter(torch.ones(()))

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.words(ids).sum(1)) * self.temperature

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.02), "batch": tensors(data.texts())}


@pair("unregistered_parameters", "optimizer_wrong_params")
def layers_in_a_list(broken: bool) -> Fields:
    """Hidden layers in a Python list."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(64, 32), nn.Linear(32, 16), nn.Linear(16, 8)]
            self.layers: Any = layers if broken else nn.ModuleList(layers)
            self.out = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = torch.tanh(layer(x))
            return self.out(x)

    return {"model": Net, "loss": nn.CrossEntropyLoss(), "optimizer": adam(0.02), "batch": tensors(data.digits(24))}


@pair("unregistered_parameters", "optimizer_wrong_params")
def head_in_a_dict(broken: bool) -> Fields:
    """One head for each task, in a plain dict."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            heads = {"species": nn.Linear(2, 3)}
            self.body = nn.Sequential(nn.Linear(4, 2), nn.Tanh())
            self.heads: Any = heads if broken else nn.ModuleDict(heads)

        def forward(self, x: Tensor) -> Any:
            return self.heads["species"](self.body(x))

    return {"model": Net, "loss": F.cross_entropy, "optimizer": adam(0.05), "batch": tensors(data.scaled("iris", 15))}


@pair("unregistered_parameters", "optimizer_wrong_params", "frozen_parameters")
def positions_without_parameter(broken: bool) -> Fields:
    """A mixing matrix is a plain tensor with requires_grad, not an nn.Parameter."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            mixing = 0.3 * torch.randn(6, 40)
            self.mixing: Any = mixing.requires_grad_() if broken else nn.Parameter(mixing)
            self.out = nn.Linear(40, 1)

        def forward(self, x: Tensor) -> Any:
            return self.out(torch.tanh(x @ self.mixing))

    return {"model": Net, "loss": nn.MSELoss(), "optimizer": adam(0.02), "batch": tensors(data.surfaces(48))}


@pair("optimizer_wrong_params", "update_skipped")
def optimizer_of_another_model(broken: bool) -> Fields:
    """The model was built once more after the optimizer was."""

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        other = mlp(64, 10)
        return torch.optim.Adam(other.parameters() if broken else parameters, lr=3e-3)

    return {
        "model": lambda: mlp(64, 10),
        "loss": F.cross_entropy,
        "optimizer": optimizer,
        "batch": tensors(data.digits(32)),
    }


@pair("optimizer_wrong_params", "frozen_parameters")
def only_the_decoder_trains(broken: bool) -> Fields:
    """An autoencoder whose optimizer got decoder.parameters()."""
    x, _ = tensors(data.digits(16))

    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
            self.decoder = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64))

        def forward(self, x: Tensor) -> Any:
            return self.decoder(self.encoder(x))

    def optimizer(model: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW((model.decoder if broken else model).parameters(), lr=5e-3)

    return {"model": Autoencoder, "loss": nn.MSELoss(), "optimizer": optimizer, "batch": (x, x)}
