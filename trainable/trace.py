"""A network's computation as graphs, one of each mode, and what a dry run shows of every operation in them.

`trainable.stages` asks where they can be cut, and takes the parts out.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import timm.models
import torch
import torchvision
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import NodePathTracer

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

_BATCHES = (2, 3)
"""Images in the two dry runs: what differs between them depends on the size of the batch."""


@dataclass
class Trace:
    """The graph of one mode, with what a dry run on fake tensors of two batch sizes showed of every node."""

    module: nn.Module
    graph: fx.Graph
    path: dict[fx.Node, str]
    values: tuple[dict[fx.Node, Any], dict[fx.Node, Any]]
    flops: dict[fx.Node, int]
    nodes: list[fx.Node] = field(init=False)
    node_at: dict[str, fx.Node] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = list(self.graph.nodes)
        self.node_at = {path: node for node, path in self.path.items()}
        self.constant = self._constants()

    def _constants(self) -> set[fx.Node]:
        """Nodes that depend on no input: parameters, and what is computed from them alone."""
        constant: set[fx.Node] = set()
        for node in self.nodes:
            pure = node.op in ("get_attr", "call_function", "call_method")
            if pure and all(source in constant for source in node.all_input_nodes):
                constant.add(node)
        return constant

    def carries(self, node: fx.Node) -> bool:
        """Whether the node's value must be handed on (sizes can be recomputed, parameters are at hand)."""
        return node not in self.constant and _holds_tensor(self.values[0].get(node))

    def cuts(self) -> list[str]:
        """Paths of the nodes behind which the graph can be cut, in order."""
        last_use = {node: max((self.nodes.index(user) for user in node.users), default=-1) for node in self.nodes}
        alive: set[fx.Node] = set()
        found = []
        for position, node in enumerate(self.nodes):
            if node.op != "output" and self.carries(node):
                alive.add(node)
            alive = {other for other in alive if last_use[other] > position}
            if alive == {node} and node.op != "placeholder" and self._is_batch(node):
                found.append(self.path[node])
        return found

    def _is_batch(self, node: fx.Node) -> bool:
        return all(
            isinstance(values[node], torch.Tensor) and values[node].ndim >= 2 and len(values[node]) == batch
            for values, batch in zip(self.values, _BATCHES, strict=True)
        )

    def segment(self, begin: str | None, end: str | None) -> list[fx.Node]:
        """The nodes behind ``begin`` up to ``end``; None: from the input, to the output."""
        start = self.nodes.index(self.node_at[begin]) + 1 if begin else 0
        stop = self.nodes.index(self.node_at[end]) + 1 if end else len(self.nodes)
        return [n for n in self.nodes[start:stop] if n.op not in ("placeholder", "output") and n not in self.constant]

    def overwrites(self, source: fx.Node, segment: Sequence[fx.Node]) -> bool:
        """Whether an operation of the segment, whose input is ``source``, changes that in place."""
        memory = _memory(self.values[0][source])
        return any(
            self._is_in_place(node) and memory in (_memory(self.values[0].get(n)) for n in node.all_input_nodes)
            for node in segment
        )

    def _is_in_place(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return bool(getattr(self.module.get_submodule(str(node.target)), "inplace", False))
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        return str(name).endswith("_") and not str(name).endswith("__")

    def elements(self, end: str | None) -> int:
        """Numbers that one image has in the value behind which a cut was made; None: in the output."""
        value = self.values[0][self.node_at[end] if end else self.nodes[-1]]
        return value.numel() // _BATCHES[0]

    def is_dropout(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.module.get_submodule(str(node.target)), (nn.Dropout, nn.Identity))
        return node.target is nn.functional.dropout

    def extract(self, begin: str | None, end: str | None) -> fx.GraphModule:
        """The segment as a module of its own that shares the model's parameters."""
        source = self.node_at[begin] if begin else next(n for n in self.nodes if n.op == "placeholder")
        result = self.node_at[end] if end else next(n for n in self.nodes if n.op == "output").args[0]
        graph = fx.Graph()
        made: dict[fx.Node, fx.Node] = {source: graph.placeholder("x")}

        def provide(node: fx.Node) -> fx.Node:
            if node not in made:
                if node in self.constant or _is_attribute(node):
                    made[node] = graph.node_copy(node, provide if node in self.constant else lambda _: made[source])
                else:
                    size = _as_function_of_batch(node, *(values[node] for values in self.values))
                    made[node] = graph.call_function(_evaluate, (made[source], size))
            return made[node]

        segment = self.segment(begin, end)
        if self.overwrites(source, segment):
            # The input may be shared: a batch of activations is seen again by later epochs and other trials.
            made[source] = graph.call_method("clone", (made[source],))
        for node in segment:
            if node.target is not torch._assert:
                made[node] = graph.node_copy(node, provide)
        assert isinstance(result, fx.Node)
        graph.output(made[result])
        return fx.GraphModule(self.module, graph)


def trace_model(model: nn.Module, image_size: tuple[int, int]) -> dict[bool, Trace]:
    """``model`` in training mode (True) and in evaluation mode; sizes and FLOPs are for images of (H, W) pixels."""
    was_training = model.training
    traces: dict[bool, Trace] = {}
    for mode in (True, False):
        model.train(mode)
        tracer = _Tracer()
        graph = tracer.trace(model)
        _forbid_in_place(graph)
        # The values do not depend on the mode, but BatchNorm in training mode would move its statistics.
        model.eval()
        traces[mode] = _with_values(model, graph, dict(tracer.node_to_qualname), image_size, traces.get(True))
    model.train(was_training)
    return traces


def _with_values(
    model: nn.Module, graph: fx.Graph, paths: dict[fx.Node, str], image_size: tuple[int, int], other: Trace | None
) -> Trace:
    """What dry runs show, or, where the graph is that of the ``other`` mode, as it mostly is, what they have shown."""
    if other is not None and str(graph) == str(other.graph):
        same = dict(zip(graph.nodes, other.nodes, strict=True))
        first, second = ({node: values[same[node]] for node in graph.nodes} for values in other.values)
        return Trace(model, graph, paths, (first, second), {node: other.flops[same[node]] for node in graph.nodes})
    runs = [_DryRun(fx.GraphModule(model, graph)) for _ in _BATCHES]
    for run, batch in zip(runs, _BATCHES, strict=True):
        run.run_on_fake_images((batch, 3, *image_size), count_flops=run is runs[0])  # that takes longer than the run
    first, second = ({node: run.values.get(node) for node in graph.nodes} for run in runs)
    flops = {node: runs[0].flops.get(node, 0) // _BATCHES[0] for node in graph.nodes}
    return Trace(model, graph, paths, (first, second), flops)


def alike(first: Trace, second: Trace) -> set[str]:
    """Paths that mean the same operation in both traces.

    Operations of one kind are numbered within a module (``mul``, ``mul_1``), so where one mode has more of them a
    number means something else.
    """
    (counts, others) = (Counter(map(_kind, trace.node_at)) for trace in (first, second))
    return {path for path in first.node_at if counts[_kind(path)] == others[_kind(path)]}


class _Tracer(NodePathTracer):
    """torchvision's tracer, which records where each node comes from; layers of ``torch.nn`` and what timm and
    torchvision say must not be traced into stay leaves, and so do subclasses of ``torch.nn`` layers."""

    def __init__(self) -> None:
        super().__init__(
            autowrap_modules=(math, torchvision.ops), autowrap_functions=tuple(timm.models.get_notrace_functions())
        )
        self.leaves = (*timm.models.get_notrace_modules(), *_operations_of_torchvision())

    def is_leaf_module(self, m: nn.Module, module_qualname: str) -> bool:
        layer = any(
            c.__module__.startswith("torch.nn.modules") for c in type(m).__mro__ if c not in (nn.Module, *CONTAINERS)
        )
        return layer or isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualname)


def _operations_of_torchvision() -> tuple[type, ...]:
    members = (getattr(torchvision.ops, name) for name in torchvision.ops.__all__)
    return tuple(m for m in members if isinstance(m, type) and issubclass(m, nn.Module))


def _kind(path: str) -> str:
    return re.sub(r"_\d+$", "", path)


def _forbid_in_place(graph: fx.Graph) -> None:
    """A stage must not write into its input: it may be shared."""
    for node in graph.nodes:
        if node.kwargs.get("inplace") is True:
            node.update_kwarg("inplace", False)


class _DryRun(fx.Interpreter):
    """Runs a graph on fake tensors (no memory, no arithmetic), keeping every node's value and FLOPs."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}
        self.flops: dict[fx.Node, int] = {}

    def run_on_fake_images(self, shape: tuple[int, ...], count_flops: bool) -> None:
        self._count_flops = count_flops
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            self.run(torch.empty(shape))

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) if self._count_flops else nullcontext() as counter:
            self.values[n] = super().run_node(n)
        if counter is not None:
            self.flops[n] = counter.get_total_flops()
        return self.values[n]


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_holds_tensor(item) for item in value)
    return isinstance(value, torch.Tensor)


def _memory(value: Any) -> int | None:
    """What tensors that share their elements have in common."""
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _is_attribute(node: fx.Node) -> bool:
    return node.target is getattr and node.args[1] in ("device", "dtype")


def _as_function_of_batch(node: fx.Node, first: Any, second: Any) -> Any:
    """A size that crosses a cut, as (slope, offset) of the batch size; other values as they are."""
    if isinstance(first, (tuple, list)):
        return tuple(_as_function_of_batch(node, a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, int) and not isinstance(first, bool):
        slope = (second - first) // (_BATCHES[1] - _BATCHES[0])
        return {"slope": slope, "offset": first - slope * _BATCHES[0]}
    assert first == second, f"{node} crosses a cut with a value that is no size: {first} and {second}"
    return first


def _evaluate(x: torch.Tensor, size: Any) -> Any:
    """The inverse of `_as_function_of_batch`, for the batch ``x`` ``[B, …]``."""
    if isinstance(size, (tuple, list)):
        return tuple(_evaluate(x, item) for item in size)
    if isinstance(size, dict):
        return size["slope"] * x.shape[0] + size["offset"]
    return size
