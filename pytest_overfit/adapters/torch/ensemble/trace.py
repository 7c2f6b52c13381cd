"""The operations that a function makes of its tensors, written down once and made again without the function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_overfit.adapters.torch.ensemble.eligible import CannotJoinError

Tensor = torch.Tensor

_ATEN = torch.ops.aten

#: what leaves its input as it is where the shape stays
_SHAPES = (_ATEN.expand.default, _ATEN.view.default, _ATEN._unsafe_view.default)

#: multiplications of matrices, with the places of the two
_PRODUCTS = {_ATEN.mm: (0, 1), _ATEN.bmm: (0, 1), _ATEN.addmm: (1, 2), _ATEN.baddbmm: (1, 2)}


class TracedProgram:
    """Makes again what `function(*inputs)` did, on other tensors of the same shapes.

    It holds what reaches torch below everything that python, `torch.func` and the gradients do. So a step costs its
    operations alone. Raises `CannotJoinError` for random numbers, for values that go back to python, for changes of an
    input, and where it reads `weights`, which are not among the inputs, or others that are trained.
    """

    def __init__(
        self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], weights: Iterable[Tensor] = ()
    ) -> None:
        recorder = _Recorder(inputs, weights)
        with recorder:
            outputs = function(*inputs)
        #: multiplications of one number by another in products of matrices and convolutions
        self.products = recorder.products
        graph, held = recorder.graph, recorder.held
        graph.output([recorder.node_of(each) for each in outputs])
        if not recorder.writes:
            _hold_constants(graph, held)
            _simplify(graph)
            graph.eliminate_dead_code()
        self._module = fx.GraphModule(held, graph)
        self.run: Callable[..., list[Tensor]] = self._module.forward


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes operations into a graph while they are made."""

    def __init__(self, inputs: Sequence[Tensor], weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph, self.held = fx.Graph(), torch.nn.Module()
        self.products, self.writes = 0, False
        self._weights = {each.untyped_storage().data_ptr() for each in weights}
        self._inputs = {id(each) for each in inputs}
        self._nodes = {id(each): self._placed(number, each) for number, each in enumerate(inputs)}
        self._alive = list(inputs)  # an id is its tensor's own for as long as the tensor lives

    def _placed(self, number: int, tensor: Tensor) -> fx.Node:
        node = self.graph.placeholder(f"given_{number}")
        node.meta["shape"] = tuple(tensor.shape)
        return node

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node of a tensor; one that was not made inside is held as it is."""
        if id(tensor) not in self._nodes:
            if tensor.requires_grad or tensor.untyped_storage().data_ptr() in self._weights:
                raise CannotJoinError("weights of one of the models are read past its forward pass, as by a penalty")
            name = f"held_{len(self._alive)}"
            self.held.register_buffer(name, tensor.detach())
            self._nodes[id(tensor)] = self.graph.get_attr(name)
            self._nodes[id(tensor)].meta["shape"] = tuple(tensor.shape)
            self._alive.append(tensor)
        return self._nodes[id(tensor)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise CannotJoinError(f"{func} draws random numbers")
        self._see_writing(func, args)
        output = func(*args, **kwargs)
        if func is _ATEN.detach.default:
            self._nodes[id(output)] = self.node_of(args[0])
            self._alive.append(output)
            return output
        node = self.graph.call_function(func, *pytree.tree_map(self._as_node, (args, kwargs)))
        self._count(func, args, output)
        self._note(output, node)
        return output

    def _as_node(self, value: Any) -> Any:
        return self.node_of(value) if isinstance(value, Tensor) else value

    def _see_writing(self, func: Any, args: Any) -> None:
        if not func._schema.is_mutable:
            return
        self.writes = True
        for argument, value in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, Tensor) and (id(value) in self._inputs or id(value) not in self._nodes):
                raise CannotJoinError(f"{func} changes what it was given")

    def _note(self, output: Any, node: fx.Node) -> None:
        if isinstance(output, Tensor):
            self._nodes[id(output)] = node
            node.meta["shape"] = tuple(output.shape)
            self._alive.append(output)
        elif isinstance(output, (tuple, list)):
            for number, each in enumerate(output):
                if isinstance(each, Tensor):
                    self._note(each, self.graph.call_function(_item, (node, number)))
        elif output is not None:
            raise CannotJoinError(f"a value of {node.target} goes back to python")

    def _count(self, func: Any, args: Any, output: Any) -> None:
        if func.overloadpacket in _PRODUCTS:
            first, second = (args[place] for place in _PRODUCTS[func.overloadpacket])
            self.products += first.numel() * second.shape[-1]
        elif func is _ATEN.convolution.default:
            self.products += output.numel() * args[1][0].numel()
        elif func is _ATEN.convolution_backward.default:
            self.products += 2 * args[0].numel() * args[2][0].numel()


def _item(values: Sequence[Any], number: int) -> Any:
    return values[number]


def _simplify(graph: fx.Graph) -> None:
    """Leave out what does nothing, and join what torch can do in one operation; nothing inside writes in place."""
    for rule in (_nothing_done, _turned_product, _product_and_sum):
        for node in list(graph.nodes):
            if node.op == "call_function" and (other := rule(graph, node)) is not None:
                other.meta.setdefault("shape", node.meta.get("shape"))
                node.replace_all_uses_with(other)
                graph.erase_node(node)


def _hold_constants(graph: fx.Graph, held: torch.nn.Module) -> None:
    for number, node in enumerate(list(graph.nodes)):
        if node.target is _ATEN.scalar_tensor.default:
            held.register_buffer(f"constant_{number}", node.target(*node.args, **node.kwargs))
            with graph.inserting_before(node):
                other = graph.get_attr(f"constant_{number}")
            node.replace_all_uses_with(other)
            graph.erase_node(node)


def _nothing_done(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    del graph
    same = node.target in _SHAPES and node.meta["shape"] == node.args[0].meta["shape"]  # type: ignore[union-attr]
    once = node.target is _ATEN.mul.Scalar and node.args[1] == 1
    return node.args[0] if same or once else None  # type: ignore[return-value]


def _is_turned(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is _ATEN.transpose.int and node.args[1:] in ((1, 2), (2, 1))


def _turned_product(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """(A B)ᵀ is Bᵀ Aᵀ, which comes out in the order of the weights."""
    if not _is_turned(node):
        return None
    inner = node.args[0]
    if _is_turned(inner):
        return inner.args[0]  # type: ignore[union-attr,return-value]
    if inner.target is not _ATEN.bmm.default or len(inner.users) > 1:  # type: ignore[union-attr]
        return None

    def turned(each: Any) -> Any:
        return each.args[0] if _is_turned(each) else graph.call_function(_ATEN.transpose.int, (each, 1, 2))

    with graph.inserting_before(node):
        first, second = inner.args  # type: ignore[union-attr]
        return graph.call_function(_ATEN.bmm.default, (turned(second), turned(first)))


def _product_and_sum(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    if node.target is not _ATEN.add.Tensor or len(node.args) != 2 or node.kwargs:
        return None
    for term, product in (node.args, node.args[::-1]):
        if not isinstance(product, fx.Node) or not isinstance(term, fx.Node) or len(product.users) > 1:
            continue
        if product.target is _ATEN.bmm.default and product.meta.get("shape") == node.meta["shape"]:
            with graph.inserting_before(node):
                return graph.call_function(_ATEN.baddbmm.default, (term, *product.args))
    return None
