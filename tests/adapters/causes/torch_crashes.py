"""Programs of PyTorch that crash: each with the fault that its crash shows, and words of its evidence and its cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Crashes(NamedTuple):
    """A program, and what is to be said of it; a fault of "" : nothing, because the message does not show the cause."""

    run: Callable[[], Any]
    fault: str
    evidence: str = ""
    cure: str = ""


class Net(nn.Module):
    """Layers under names, and a forward pass that is given."""

    def __init__(self, forward: Callable[[Any, Any], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.steps = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Any) -> Any:
        return self.steps(self, x)


def chain(**layers: nn.Module) -> Net:
    """One after the other."""

    def forward(net: Any, x: Any) -> Any:
        for name in layers:
            x = getattr(net, name)(x)
        return x

    return Net(forward, **layers)


ROWS = torch.linspace(-1, 1, 8 * 60).reshape(8, 60)
IMAGES = torch.linspace(-1, 1, 8 * 28 * 28).reshape(8, 1, 28, 28)
STEPS = torch.linspace(-1, 1, 3 * 8 * 7).reshape(3, 8, 7)


def grad(*shape: int) -> torch.Tensor:
    return torch.linspace(0.1, 0.9, torch.Size(shape).numel()).reshape(shape).requires_grad_()


THREE = grad(3)


def labels(value: int, *shape: int) -> torch.Tensor:
    return torch.full(shape or (8,), value)


def view(net: Any, x: torch.Tensor) -> torch.Tensor:
    x = net.conv(x)
    x = x.view(-1, 400)
    return net.fc(x)


def join(net: Any, x: torch.Tensor) -> torch.Tensor:
    short = net.fc(x)[:4]
    return torch.cat([x, short], dim=1)


def joined_twice(net: Any, x: torch.Tensor) -> torch.Tensor:
    wide = net.fc(x)
    return x + wide


def batch_of_two_sizes() -> torch.Tensor:
    return torch.utils.data.default_collate([torch.ones(3), torch.ones(4)])


linear = nn.Linear
SHAPES = {
    "linear": Crashes(
        lambda: chain(a=linear(60, 64), b=linear(32, 10))(ROWS),
        "shape_mismatch",
        "layer b (Linear) takes 32 features in the last axis, got (8, 64)",
        "in_features=64 in b",
    ),
    "not flattened": Crashes(
        lambda: chain(fc=linear(784, 10))(IMAGES), "shape_mismatch", "(8, 1, 28, 28)", "flatten the rows before fc"
    ),
    "after a convolution": Crashes(
        lambda: chain(conv=nn.Conv2d(1, 2, 5), fc=linear(100, 10))(IMAGES),
        "shape_mismatch",
        "takes 100 features",
        "write in_features=1152 in fc",
    ),
    "features not last": Crashes(
        lambda: chain(fc=linear(8, 2))(STEPS),
        "shape_mismatch",
        "(3, 8, 7)",
        "x.transpose(1, -1) where these are the features",
    ),
    "channels": Crashes(
        lambda: chain(conv=nn.Conv2d(3, 4, 3))(IMAGES), "shape_mismatch", "takes 3 channels", "in_channels=1 in conv"
    ),
    "channels last": Crashes(
        lambda: chain(conv=nn.Conv2d(3, 4, 3))(torch.ones(8, 28, 28, 3)), "shape_mismatch", "", "x.permute(0, 3, 1, 2)"
    ),
    "no channels": Crashes(
        lambda: chain(conv=nn.Conv2d(1, 4, 3))(IMAGES[:, 0]), "shape_mismatch", "(8, 28, 28)", "x.unsqueeze(1)"
    ),
    "a table into a convolution": Crashes(
        lambda: chain(conv=nn.Conv2d(1, 4, 3))(ROWS), "shape_mismatch", "(8, 60)", "write Linear in its place"
    ),
    "transposed": Crashes(
        lambda: chain(up=nn.ConvTranspose2d(3, 4, 3))(IMAGES), "shape_mismatch", "up (ConvTranspose2d) takes 3", ""
    ),
    "one axis": Crashes(lambda: chain(c=nn.Conv1d(3, 4, 3))(STEPS), "shape_mismatch", "got (3, 8, 7)", "in_channels=8"),
    "kernel": Crashes(
        lambda: chain(c=nn.Conv2d(1, 4, 5))(IMAGES[..., :3, :3]), "shape_mismatch", "(3 x 3)", "larger inputs"
    ),
    "pooled away": Crashes(
        lambda: chain(p=nn.MaxPool2d(32))(IMAGES), "shape_mismatch", "p (MaxPool2d)", "take out a pooling"
    ),
    "batch norm": Crashes(
        lambda: chain(norm=nn.BatchNorm1d(64))(ROWS), "shape_mismatch", "takes 64 channels", "num_features=60 in norm"
    ),
    "batch norm of images": Crashes(
        lambda: chain(norm=nn.BatchNorm2d(60))(ROWS), "shape_mismatch", "of 4 axes, got (8, 60)", "BatchNorm1d"
    ),
    "layer norm": Crashes(
        lambda: chain(norm=nn.LayerNorm(64))(ROWS), "shape_mismatch", "last axes to be (64,)", "normalized_shape=(60,)"
    ),
    "group norm": Crashes(
        lambda: chain(norm=nn.GroupNorm(2, 64))(ROWS), "shape_mismatch", "takes 64 channels", "num_channels=60"
    ),
    "instance norm": Crashes(
        lambda: chain(n=nn.InstanceNorm2d(3, affine=True))(IMAGES), "shape_mismatch", "takes 3 channels", ""
    ),
    "recurrent": Crashes(lambda: chain(rnn=nn.LSTM(10, 5))(STEPS), "shape_mismatch", "takes 10", "input_size=7 in rnn"),
    "cell": Crashes(lambda: chain(cell=nn.RNNCell(10, 5))(STEPS[0]), "shape_mismatch", "takes 10", "input_size=7"),
    "recurrent axes": Crashes(
        lambda: chain(r=nn.GRU(7, 5))(STEPS[None]), "shape_mismatch", "Expected input to be 2D", ""
    ),
    "state": Crashes(
        lambda: Net(lambda net, x: net.rnn(x, torch.zeros(1, 3, 5)), rnn=nn.RNN(7, 5))(STEPS),
        "shape_mismatch",
        "Expected hidden size (1, 8, 5), got [1, 3, 5]",
        "batch_first=True",
    ),
    "attention": Crashes(
        lambda: Net(lambda net, x: net.att(x, x, x), att=nn.MultiheadAttention(8, 2))(STEPS),
        "shape_mismatch",
        "takes 8 features in the last axis, got (3, 8, 7)",
        "embed_dim=7 in att",
    ),
    "key and value": Crashes(
        lambda: Net(lambda net, x: net.att(x, x, x[:2]), att=nn.MultiheadAttention(7, 1))(STEPS),
        "shape_mismatch",
        "does not match value shape",
    ),
    "encoder": Crashes(
        lambda: chain(block=nn.TransformerEncoderLayer(8, 2))(STEPS), "shape_mismatch", "block.self_attn (Multihead", ""
    ),
    "tokens": Crashes(
        lambda: chain(words=nn.Embedding(10, 4))(torch.tensor([[1, 12]])),
        "shape_mismatch",
        "takes indices from 0 to 9, got 1 to 12",
        "num_embeddings=13",
    ),
    "negative tokens": Crashes(
        lambda: chain(words=nn.Embedding(10, 4))(torch.tensor([[1, -1]])), "shape_mismatch", "got -1 to 1", "from 0"
    ),
    "view": Crashes(
        lambda: Net(view, conv=nn.Conv2d(1, 8, 3), fc=linear(400, 10))(IMAGES),
        "shape_mismatch",
        "`x = x.view(-1, 400)`, where x is (8, 8, 26, 26)",
        "x.flatten(1)",
    ),
    "cat": Crashes(
        lambda: Net(join, fc=linear(60, 60))(ROWS), "shape_mismatch", "x is (8, 60), short is (4, 60)", "torch.cat([x"
    ),
    "sum": Crashes(lambda: Net(joined_twice, fc=linear(60, 64))(ROWS), "shape_mismatch", "wide is (8, 64)", "x + wide"),
    "matmul": Crashes(lambda: ROWS @ torch.ones(64, 10), "shape_mismatch", "(8x60 and 64x10)", "ROWS @"),
    "einsum": Crashes(lambda: torch.einsum("ij,jk->ik", ROWS, torch.ones(4, 5)), "shape_mismatch", "subscript j", ""),
    "bmm": Crashes(lambda: torch.bmm(STEPS, STEPS), "shape_mismatch", "batch2", ""),
    "expand": Crashes(lambda: ROWS.expand(4, 60), "shape_mismatch", "expanded size", ""),
    "axis": Crashes(lambda: ROWS.sum(2), "shape_mismatch", "Dimension out of range", "change the axis"),
    "mask": Crashes(lambda: ROWS[torch.ones(3, dtype=torch.bool)], "shape_mismatch", "shape of the mask", ""),
    "collate": Crashes(batch_of_two_sizes, "shape_mismatch", "[3] at entry 0 and [4] at entry 1", "collate_fn="),
    "weights of another size": Crashes(
        lambda: linear(3, 4).load_state_dict(linear(3, 5).state_dict()),
        "shape_mismatch",
        "size mismatch for weight",
        "",
    ),
    "class weights": Crashes(
        lambda: F.cross_entropy(grad(8, 10), labels(1), weight=torch.ones(3)), "shape_mismatch", "all 10 classes", ""
    ),
}

DTYPES = {
    "integers": Crashes(
        lambda: chain(fc=linear(60, 10))(ROWS.long()),
        "dtype_mismatch",
        "layer fc (Linear) has weights of dtype float32, got (8, 60) int64",
        "x.to(torch.float32) before fc",
    ),
    "double": Crashes(lambda: chain(fc=linear(60, 10))(ROWS.double()), "dtype_mismatch", "got (8, 60) float64", ""),
    "half": Crashes(lambda: chain(fc=linear(60, 10))(ROWS.half()), "dtype_mismatch", "float16", ""),
    "half weights": Crashes(
        lambda: chain(fc=linear(60, 10).double())(ROWS), "dtype_mismatch", "dtype float64, got (8, 60) float32", ""
    ),
    "bytes": Crashes(lambda: chain(c=nn.Conv2d(1, 4, 3))(IMAGES.byte()), "dtype_mismatch", "uint8", "before c"),
    "norm": Crashes(lambda: chain(n=nn.BatchNorm2d(1))(IMAGES.long()), "dtype_mismatch", "n (BatchNorm2d)", ""),
    "recurrent": Crashes(lambda: chain(r=nn.LSTM(7, 5))(STEPS.double()), "dtype_mismatch", "r (LSTM)", ""),
    "tokens": Crashes(
        lambda: chain(words=nn.Embedding(10, 4))(torch.ones(2, 3)),
        "dtype_mismatch",
        "takes integers",
        "words(x.long())",
    ),
    "softmax": Crashes(lambda: torch.softmax(ROWS.long(), 1), "dtype_mismatch", "not implemented for 'Long'", ""),
    "mean": Crashes(lambda: ROWS.long().mean(), "dtype_mismatch", "Got: Long", ".float()"),
    "bool": Crashes(lambda: (ROWS > 0) - (ROWS > 1), "dtype_mismatch", "bool tensors", ""),
    "product": Crashes(lambda: ROWS @ ROWS.double().T, "dtype_mismatch", "float != double", ""),
    "array": Crashes(lambda: chain(fc=linear(60, 10))(ROWS.numpy()), "dtype_mismatch", "a numpy.ndarray instead", ""),
    "array into a convolution": Crashes(
        lambda: chain(c=nn.Conv2d(1, 4, 3))(IMAGES.numpy()), "dtype_mismatch", "a numpy.ndarray instead", "as_tensor"
    ),
    "parameter": Crashes(lambda: nn.Parameter(labels(1)), "dtype_mismatch", "can require gradients", ""),
}

TARGETS = {
    "label": Crashes(
        lambda: F.cross_entropy(grad(8, 10), labels(12)),
        "label_out_of_range",
        "from 12 to 12, and the outputs (8, 10)",
        "",
    ),
    "negative label": Crashes(lambda: F.cross_entropy(grad(8, 10), labels(-1)), "label_out_of_range", "-1", "from 0"),
    "from one": Crashes(
        lambda: F.nll_loss(grad(8, 3), torch.tensor([1, 2, 3, 1, 2, 3, 1, 2])), "label_out_of_range", "1 to 3", "y - 1"
    ),
    "margin": Crashes(lambda: F.multi_margin_loss(grad(8, 3), labels(3)), "label_out_of_range", "3 units", ""),
    "one hot": Crashes(
        lambda: F.one_hot(labels(12), 10), "label_out_of_range", "smaller than num_classes", "F.one_hot"
    ),
    "labels as floats": Crashes(
        lambda: F.cross_entropy(grad(8, 10), torch.ones(8)), "dtype_mismatch", "labels of dtype int64", "targets.long()"
    ),
    "quantities": Crashes(
        lambda: F.cross_entropy(grad(8, 10), torch.full((8,), 0.5)), "wrong_loss", "with fractions", "mse_loss"
    ),
    "labels in a column": Crashes(
        lambda: F.cross_entropy(grad(8, 10), labels(1, 8, 1)), "shape_mismatch", "(8, 1) int64", "targets.squeeze(1)"
    ),
    "one-hot integers": Crashes(
        lambda: F.cross_entropy(grad(8, 10), labels(1, 8, 10)), "dtype_mismatch", "probabilities", "targets.float()"
    ),
    "probabilities of other classes": Crashes(
        lambda: F.cross_entropy(grad(8, 10), torch.ones(8, 3)), "wrong_output_units", "10 units for 3", "targets of 10"
    ),
    "rows": Crashes(
        lambda: F.cross_entropy(grad(4, 10), labels(1)), "shape_mismatch", "outputs (4, 10) and targets (8,)", "one row"
    ),
    "classes last": Crashes(
        lambda: F.cross_entropy(grad(8, 5, 10), labels(1, 8, 5)), "shape_mismatch", "last axis", "movedim(-1, 1)"
    ),
    "one label for an image of classes": Crashes(
        lambda: F.cross_entropy(grad(8, 10, 4, 4), labels(1)), "shape_mismatch", "takes targets (8, 4, 4)", "pool"
    ),
    "binary column": Crashes(
        lambda: F.binary_cross_entropy_with_logits(grad(8, 1), torch.ones(8)), "shape_mismatch", "(8, 1)", "squeeze(1)"
    ),
    "binary width": Crashes(
        lambda: F.binary_cross_entropy_with_logits(grad(8, 3), torch.ones(8, 4)),
        "wrong_output_units",
        "3 units for 4",
        "",
    ),
    "binary of many classes": Crashes(
        lambda: F.binary_cross_entropy_with_logits(grad(8, 4), torch.arange(8.0) % 4),
        "wrong_loss",
        "0 to 3",
        "cross_entr",
    ),
    "no probabilities": Crashes(
        lambda: F.binary_cross_entropy(grad(8, 1) * 9, torch.ones(8, 1)), "missing_sigmoid", "got 0.9 to 8.1", "sigmoid"
    ),
    "binary labels beyond": Crashes(
        lambda: F.binary_cross_entropy(grad(8, 1), torch.ones(8, 1) * 3), "label_out_of_range", "got 3 to 3", ""
    ),
    "binary integers": Crashes(
        lambda: F.binary_cross_entropy_with_logits(grad(8, 1), labels(1, 8, 1)), "dtype_mismatch", "int64", ".float()"
    ),
    "squared width": Crashes(
        lambda: F.mse_loss(grad(8, 10), torch.ones(8, 3)), "wrong_output_units", "10 units for 3 numbers", ""
    ),
    "squared column": Crashes(
        lambda: F.mse_loss(grad(8, 10), torch.linspace(0, 1, 8)), "wrong_output_units", "10 units for 1 number", ""
    ),
}


def through_hidden_state() -> None:
    cell, state = nn.RNN(2, 3), None
    for _ in range(2):
        out, state = cell(torch.ones(4, 1, 2), state)
        out.sum().backward()


class Keeps(nn.Module):
    """A recurrent model that goes on from where it was."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.state = nn.RNN(2, 3), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, self.state = self.cell(x, self.state)
        return out


def through_kept_state(retain: bool = False) -> None:
    model = Keeps()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        loss = model(torch.ones(4, 1, 2)).sum()
        if retain:
            loss.backward(retain_graph=True)
        else:
            loss.backward()
        optimizer.step()


def written_over() -> None:
    made = grad(3).exp()
    made += 1
    made.sum().backward()


class Wrong(torch.autograd.Function):
    """A gradient of another shape than the input has."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1)

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def watched(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
    def run() -> None:
        with torch.autograd.set_detect_anomaly(True):
            function(torch.zeros(3, requires_grad=True)).sum().backward()

    return run


def frozen_loss() -> None:
    model = linear(3, 2).requires_grad_(False)
    model(torch.ones(2, 3)).sum().backward()


def cut_loss() -> None:
    model = linear(3, 2)
    model(torch.ones(2, 3)).detach().sum().backward()


def no_numbers_in() -> None:
    model = Net(lambda net, x: torch.distributions.Normal(net.fc(x), 1.0, validate_args=True), fc=linear(3, 2))
    model(torch.full((2, 3), float("nan")))


GRAPH = {
    "second backward": Crashes(through_hidden_state, "hidden_state_not_detached", "a second time", "h = h.detach()"),
    "state of the model": Crashes(
        through_kept_state,
        "hidden_state_not_detached",
        "state of the model still holds",
        "self.state = self.state.detach()",
    ),
    "state of the model, graph kept": Crashes(
        lambda: through_kept_state(retain=True), "hidden_state_not_detached", "weights have changed since", "self.state"
    ),
    "in place": Crashes(written_over, "inplace_modification", "the result of Exp was written over", "x = x + y"),
    "leaf in place": Crashes(lambda: grad(3).add_(1), "inplace_modification", "a leaf Variable", ""),
    "frozen": Crashes(frozen_loss, "frozen_parameters", "all 2 parameters are frozen", "requires_grad_(True)"),
    "cut": Crashes(cut_loss, "detached_graph", "`model(torch.ones(2, 3)).detach().sum().backward()`", "detach()"),
    "a float": Crashes(lambda: grad(3).sum().item().backward(), "detached_graph", "called on a float", ".item()"),
    "numpy": Crashes(lambda: grad(3).numpy(), "detached_graph", "leaves torch by numpy", "grad(3).numpy()"),
    "no scalar": Crashes(lambda: grad(3).mul(2).backward(), "wrong_reduction", "only for scalar outputs", ".mean()"),
    "own backward": Crashes(lambda: Wrong.apply(grad(2, 3)).sum().backward(), "wrong_backward", "got [2]", ""),
    "root": Crashes(watched(lambda x: x.sqrt() * 0), "sqrt_zero_gradient", "SqrtBackward0", "sqrt(x + 1e-8)"),
    "logarithm": Crashes(watched(lambda x: (x * x).log() * 0 + x), "log_of_zero", "LogBackward0", "clamp_min"),
    "quotient": Crashes(watched(lambda x: x / x), "division_by_zero", "DivBackward0", ""),
    "missing values": Crashes(no_numbers_in, "nan_in_input", "6 numbers of the model's inputs are NaN", "missing"),
    "division": Crashes(lambda: 1 / (ROWS.shape[0] - 8), "division_by_zero", "division by zero", ""),
}


def sgd(parameters: Any, **more: Any) -> Any:
    return torch.optim.SGD(parameters, **{"lr": 0.1, **more})


class Hidden(nn.Module):
    """Layers in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [linear(3, 4), linear(4, 2)]


def of_model(make: Callable[[nn.Module], Any], model: Callable[[], nn.Module]) -> Callable[[], Any]:
    def run() -> Any:
        built = model()
        return make(built)

    return run


OPTIMIZERS = {
    "hidden layers": Crashes(
        of_model(lambda model: sgd(model.parameters()), Hidden),
        "unregistered_parameters",
        "layers.0.weight",
        "ModuleList",
    ),
    "all frozen": Crashes(
        of_model(
            lambda model: sgd([each for each in model.parameters() if each.requires_grad]),
            lambda: linear(3, 2).requires_grad_(False),
        ),
        "frozen_parameters",
        "all 2 of the model are frozen",
    ),
    "none given": Crashes(
        of_model(lambda _: sgd([]), lambda: linear(3, 2)), "optimizer_wrong_params", "has 2", "Adam(m"
    ),
    "no leaf": Crashes(lambda: sgd([grad(3) * 2]), "optimizer_wrong_params", "non-leaf", "model.parameters()"),
    "modules": Crashes(lambda: sgd([linear(2, 2)]), "optimizer_wrong_params", "Linear", "model.parameters()"),
    "a tensor": Crashes(lambda: sgd(grad(3)), "optimizer_wrong_params", "iterable of Tensors", ""),
    "twice": Crashes(
        lambda: sgd([{"params": [THREE]}, {"params": [THREE]}]),
        "parameter_twice",
        "more than one",
        "",
    ),
    "negative rate": Crashes(lambda: sgd([grad(3)], lr=-0.1), "lr_negative", "the learning rate is -0.1", "lr=0.1"),
    "negative rate of Adam": Crashes(
        lambda: torch.optim.Adam([grad(3)], lr=-1e-3), "lr_negative", "is -0.001", "lr=0.001"
    ),
    "epsilon": Crashes(lambda: torch.optim.Adam([grad(3)], eps=-1.0), "bad_adam_epsilon", "epsilon is -1.0", "1e-8"),
    "percent dropped": Crashes(lambda: nn.Dropout(50), "excessive_dropout", "dropping is 50", "p=0.5"),
    "more than all dropped": Crashes(lambda: nn.Dropout(1.5), "excessive_dropout", "dropping is 1.5", "p=0.5"),
}

#: the message shows that something is wrong, and not which fault it is
UNKNOWN = {
    "one row": lambda: chain(norm=nn.BatchNorm1d(60))(ROWS[:1]),
    "device": lambda: chain(fc=linear(60, 10))(ROWS.to("meta")),
    "nothing": lambda: chain(fc=linear(60, 10))(None),
    "a tuple": lambda: chain(rnn=nn.LSTM(7, 5), fc=linear(5, 2))(STEPS),
    "arguments": lambda: linear(60, 10)(ROWS, ROWS),
    "an index": lambda: ROWS[:, 70],
    "a condition": lambda: bool(ROWS > 0),
    "none": lambda: None + 1,
    "momentum": lambda: sgd([grad(3)], momentum=-1.0),
    "negative decay": lambda: sgd([grad(3)], weight_decay=-1.0),
    "negative dropout": lambda: nn.Dropout(-0.5),
    "no parameter anywhere": lambda: of_model(lambda model: sgd(model.parameters()), nn.Flatten)(),
    "attribute": lambda: linear(3, 2).wieght,
    "import": lambda: __import__("no_such_module"),
    "file": lambda: torch.load("no_such_file.pt"),
    "own": lambda: (_ for _ in ()).throw(RuntimeError("the sensor is off")),
    "unused": lambda: torch.autograd.grad(grad(3).sum(), grad(3)),
}

CRASHES = {
    f"{group}: {name}": crash
    for group, crashes in {
        "shapes": SHAPES, "dtypes": DTYPES, "targets": TARGETS, "graph": GRAPH, "optimizers": OPTIMIZERS
    }.items()
    for name, crash in crashes.items()
}  # fmt: skip
