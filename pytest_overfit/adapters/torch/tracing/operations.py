"""What a pass calls, in order: functions between layers, layers with weights, and which fed which."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, resolve_name

from pytest_overfit.adapters.programs import Function
from pytest_overfit.adapters.torch.records import tensors

Tensor = torch.Tensor

_BY_NAME: dict[Function, tuple[str, ...]] = {
    "relu": ("relu", "relu_", "relu6", "rrelu", "threshold"),
    "sigmoid": ("sigmoid", "sigmoid_", "hardsigmoid"),
    "tanh": ("tanh", "tanh_", "hardtanh", "hardtanh_", "softsign"),
    "softmax": ("softmax", "softmin"),
    "log_softmax": ("log_softmax",),
    "log_sigmoid": ("logsigmoid",),
    "softplus": ("softplus",),
    "other": (
        "leaky_relu",
        "gelu",
        "silu",
        "elu",
        "selu",
        "celu",
        "mish",
        "prelu",
        "hardswish",
        "softshrink",
        "hardshrink",
        "tanhshrink",
        "glu",
    ),
}


def _functions(name: str) -> list[Any]:
    places = (F, torch, Tensor)
    return [each for each in (getattr(place, name, None) for place in places) if callable(each)]


#: function of torch -> what it is to us
ACTIVATIONS: dict[Any, Function] = {
    each: kind for kind, names in _BY_NAME.items() for name in names for each in _functions(name)
}

_CONVOLUTIONS = {each for n in (1, 2, 3) for each in _functions(f"conv{n}d") + _functions(f"conv_transpose{n}d")}
WEIGHTED = {*_CONVOLUTIONS, F.linear, F.bilinear, torch.addmm}
#: names of what recurrent layers call
RECURRENT = frozenset(
    {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
)
NORMALISING = {F.batch_norm, torch.batch_norm, F.dropout, F.dropout2d, F.alpha_dropout, torch.dropout}
DROPPING = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, torch.dropout}

_RESHAPES = (
    "view", "reshape", "squeeze", "unsqueeze", "flatten", "unflatten", "contiguous", "float", "to", "permute",
    "transpose", "clone", "view_as", "reshape_as", "t", "double", "identity", "ravel", "movedim",
)  # fmt: skip
RESHAPING = {each for name in _RESHAPES for each in _functions(name)}

#: pooling keeps a chain of layers a chain
POOLING = {
    each
    for n in (1, 2, 3)
    for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
    for each in _functions(f"{kind}{n}d")
}

What = Literal["activation", "weighted", "passing", "other"]


class MadeBy(NamedTuple):
    """How a tensor came about."""

    what: What
    #: number of the activation, or the name of the module, that made it
    by: Any
    #: of which tensor it was made, first of all
    source: int


class Trace(TorchFunctionMode):
    """Sees every function of torch that a pass calls, and remembers what fed what. Holds every tensor of the pass."""

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.made: dict[int, MadeBy] = {}
        #: activations so far
        self.count = 0
        self._held: list[Any] = []
        #: modules that are being called, innermost last
        self.open: list[tuple[str, nn.Module]] = []
        self._names = {} if model is None else {each: name for name, each in model.named_modules()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        result = self.called(func, args, kwargs)
        self._remember(func, args, kwargs, result)
        self.count += func in ACTIVATIONS
        return result

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call it; `count` is the number of an activation."""
        return func(*args, **kwargs)

    def _remember(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        given = first_tensor(args, kwargs)
        if isinstance(result, Tensor) and given is not None:
            self._held.append((given, result))
            what: What = (
                "activation" if func in ACTIVATIONS
                else "weighted" if func in WEIGHTED
                else "passing" if func in RESHAPING or func in POOLING or func in NORMALISING
                else "other"
            )  # fmt: skip
            by = self.count if what == "activation" else self.where()
            if result is not given or what != "passing":
                self.made[id(result)] = MadeBy(what, by, id(given))

    def where(self) -> str:
        """The module that is being called."""
        return self.open[-1][0] if self.open else ""

    def origin(self, tensor: int, skip: tuple[What, ...] = ("passing",)) -> MadeBy | None:
        """What made a tensor, but for reshapes, pooling and normalisation."""
        found = self.made.get(tensor)
        seen = set()
        while found is not None and found.what in skip and found.source not in seen:
            seen.add(found.source)
            found = self.made.get(found.source)
        return found

    @contextlib.contextmanager
    def noting_modules(self, model: nn.Module) -> Iterator[None]:
        """Know which module is being called."""

        def enter(module: nn.Module, *_: Any) -> None:
            self.open.append((self._names.get(module, ""), module))

        def leave(*_: Any) -> None:
            if self.open:
                self.open.pop()

        with contextlib.ExitStack() as hooks:
            for module in model.modules():
                hooks.enter_context(module.register_forward_pre_hook(enter))
                hooks.enter_context(module.register_forward_hook(leave, always_call=True))
            yield


def first_tensor(args: Any, kwargs: Any) -> Tensor | None:
    """What a function of torch works on."""
    return next((each for each in tensors((args, kwargs)) if isinstance(each, Tensor)), None)


def name_of(func: Any) -> str:
    """What a function of torch is called, without its module: "log", "sqrt", "div"."""
    known = resolve_name(func) or getattr(func, "__name__", "")
    return str(known).rsplit(".", 1)[-1].strip("_")
