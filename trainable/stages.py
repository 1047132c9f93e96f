"""A network cut into stages: at every point where exactly one tensor carries everything downstream.

The network is traced with ``torch.fx``, once in each mode, since tracing bakes in what ``forward`` reads of
``self.training``. Walking the nodes in order, a cut is possible behind a node when no other tensor computed so far is
still needed. Of the possible cuts within one block (one residual block, one transformer layer, one convolution with
its normalisation and activation) the last is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from trainable.trace import CONTAINERS, Trace, alike, trace_model


class Stage(nn.Module):
    """A consecutive part of a network that takes one tensor and gives one tensor, images along the first dimension.

    Composing all stages of a network gives the network's output bit for bit, in both modes.
    """

    def __init__(
        self, name: str, paths: Sequence[str], flops: int, elements: int, graphs: dict[bool, fx.GraphModule]
    ) -> None:
        super().__init__()
        self.name = name
        self.elements = elements
        """Numbers in one image's output."""
        self.paths = tuple(paths)
        """Qualified names of the modules and operations inside, in the order of execution."""
        self.flops = flops
        """Floating-point operations of one image's forward pass (a multiply-add counts as two)."""
        self.training_graph, self.inference_graph = graphs[True], graphs[False]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take ``[B, …]`` and give ``[B, …]``."""
        return self.training_graph(x) if self.training else self.inference_graph(x)

    def contains(self, name: str) -> bool:
        """Whether the module or block ``name`` lies, at least in part, in this stage."""
        return any(path == name or path.startswith(name + ".") for path in (self.name, *self.paths))

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.parameters())
        return f"Stage({self.name}, {parameters:,} parameters, {self.flops / 1e6:,.1f} MFLOP)"


def cut_into_stages(model: nn.Module, classifier: str, image_size: tuple[int, int]) -> tuple[Stage, ...]:
    """Cut ``model`` into its stages; the last is the head.

    Args:
        model: takes images ``[B, 3, H, W]``, gives logits ``[B, classes]``. It keeps its parameters: stages share them.
        classifier: the qualified name of the module that gives the logits; the head begins at it, or at the dropout
            just before it.
        image_size: (H, W) in pixels, for which sizes and FLOPs are computed.
    """
    traces = trace_model(model, image_size)
    evaluated = traces[False]
    possible = set(evaluated.cuts()) & set(traces[True].cuts()) & alike(*traces.values())
    blocks = _find_blocks(model, evaluated, possible, _head_begins(evaluated, possible, classifier))
    cuts = [block.cut for block in blocks]
    stages = []
    for name, begin, end in zip(
        [*(block.name for block in blocks), classifier], [None, *cuts], [*cuts, None], strict=True
    ):
        nodes = evaluated.segment(begin, end)
        graphs = {mode: trace.extract(begin, end) for mode, trace in traces.items()}
        paths, flops = [evaluated.path[n] for n in nodes], sum(evaluated.flops[n] for n in nodes)
        stages.append(Stage(name, paths, flops, evaluated.elements(end), graphs))
    return tuple(stages)


@dataclass
class _Block:
    """A run of consecutive operations that should stay together; it ends at the operation ``cut``."""

    owner: str
    """The innermost module around that is numbered, or else more than a container; "" for the network itself."""
    name: str
    cut: str
    flops: int

    def takes(self, other: "_Block") -> bool:
        """Whether ``other`` goes on with this block: the same module, or, in a plain chain of layers, anything but a
        second layer with weights."""
        return self.owner == other.owner and (self.owner != "" or not (self.flops and other.flops))

    def extend(self, other: "_Block") -> None:
        self.name = self.name if self.flops else other.name
        self.cut, self.flops = other.cut, self.flops + other.flops


def _find_blocks(model: nn.Module, trace: Trace, possible: set[str], head: str) -> list[_Block]:
    """The blocks before the head, each ending at the last possible cut in it."""
    blocks: list[_Block] = []
    pending: list[fx.Node] = []
    for node in trace.segment(None, head):
        pending.append(node)
        if trace.path[node] not in possible:
            continue
        owner = _owner(model, trace.path[node])
        weighted = [trace.path[n] for n in pending if trace.flops[n]]
        block = _Block(
            owner, owner or (weighted or [trace.path[node]])[0], trace.path[node], sum(trace.flops[n] for n in pending)
        )
        pending = []
        if blocks and blocks[-1].takes(block):
            blocks[-1].extend(block)
        else:
            blocks.append(block)
    return _merge_idle(blocks)


def _merge_idle(blocks: list[_Block]) -> list[_Block]:
    """Blocks that compute nothing to speak of (a pooling, a normalisation) join the one before, the first the next."""
    merged: list[_Block] = []
    for block in blocks:
        if merged and (block.flops == 0 or merged[-1].flops == 0):
            merged[-1].extend(block)
        else:
            merged.append(block)
    return merged


def _owner(model: nn.Module, path: str) -> str:
    parts = path.split(".")[:-1]
    while parts and type(model.get_submodule(".".join(parts))) in CONTAINERS:
        parts.pop()
    numbered = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbered[-1] + 1] if numbered else parts)


def _head_begins(trace: Trace, possible: set[str], classifier: str) -> str:
    """The last cut before the classifier with nothing but dropout between them."""
    before = trace.segment(None, classifier)[:-1]
    while before and (trace.is_dropout(before[-1]) or trace.path[before[-1]] not in possible):
        before.pop()
    assert before, f"no place to cut before the classifier {classifier}"
    return trace.path[before[-1]]
