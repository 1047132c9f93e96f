"""The frozen part of a network: from an image file to the activations behind so many stages.

Frozen stages run in evaluation mode and always in one batch shape, so that an image's activations depend on its view
alone: not on the trial, its batch size, or the image's neighbours. A convolution and the BatchNorm behind it are one
convolution here: the statistics of a frozen BatchNorm do not move (Jacob et al., *CVPR* 2018, section 3.2).
"""

import copy
import functools
import hashlib
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import get_worker_info

from trainable.backbone import Backbone
from trainable.images import Record, read_same_image
from trainable.settings import TrainSettings
from trainable.stages import Stage
from trainable.views import augmented_view, plain_view

CANONICAL_BATCH = 32
"""Images in every batch that the frozen stages see; a shorter one is filled up with zeros."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

_CPU_FACTS = (
    *("model name", "cpu family", "model", "stepping", "flags"),  # x86
    *("CPU implementer", "CPU variant", "CPU part", "Features"),  # ARM
)

_SWITCHES = ("ONEDNN_", "DNNL_", "MKL_", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32", "CUBLAS_WORKSPACE_CONFIG")

_DECODED_BYTES = 256 * 2**20
"""Decoded images that a process keeps: the first ones it reads, since every epoch reads all of them in turn."""


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` as fp32 or bf16: bf16 where the device has instructions for it, and is faster for them."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else "fp32"


@dataclass(frozen=True)
class FrozenPass:
    """The computation whose results are shared; the backbone's model lies on ``device``, with its pretrained weights in
    the stages that are frozen."""

    backbone: Backbone
    train: TrainSettings
    seed: int
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """That the frozen stages compute in, and that activations are stored in."""
        return PRECISIONS[resolve_precision(self.train.precision, self.device)]

    def view(self, record: Record, number: int | None) -> torch.Tensor:
        """uint8 ``[3, H, W]``; None: the plain view that validation sees."""
        image, train = _decoded(record), self.train
        if number is None:
            return plain_view(image, self.backbone.preprocessing)
        return augmented_view(
            image, record.digest, number, self.seed, train.augmentation, train.crop_scale, self.backbone.preprocessing
        )

    def run(self, x: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """From activations behind ``start`` stages (0: views) ``[B ≤ CANONICAL_BATCH, …]`` to those behind ``stop``,
        or, for ``stop`` 0, to the network's input in float32."""
        if stop == 0:
            return self.backbone.preprocessing.normalise(_moved(x, self.device))
        count = len(x)
        x = _moved(functional.pad(x, (0, 0) * (x.ndim - 1) + (0, CANONICAL_BATCH - count)), self.device)
        with torch.no_grad():
            x = self.backbone.preprocessing.normalise(x, self.dtype) if start == 0 else laid_out(x)
            for number in range(start, stop):
                x = laid_out(self._stage(number)(x))
        return x[:count]

    def _stage(self, number: int) -> nn.Module:
        stages, key = self.backbone.frozen, (number, self.dtype, self.device)
        if key not in stages:
            stages[key] = _frozen(self.backbone.stages[number], self.dtype).to(self.device)
        return stages[key]

    def key(self, records: Sequence[Record], number: int | None) -> str:
        """A digest of all that decides the bits of one view of these images."""
        train, view = self.train, None
        if number is not None and train.augmentation != "none":
            view = (number, self.seed, train.augmentation, train.crop_scale if train.augmentation == "crop" else None)
        parts = (
            _code(),
            CANONICAL_BATCH,
            self.backbone.name,
            self.backbone.digest,
            astuple(self.backbone.preprocessing),
            view,
            str(self.dtype),
            _hardware(self.device),
            torch.get_num_threads() if self.device.type == "cpu" else None,
            _versions(),
            _switches(),
            [record.digest for record in records],
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def laid_out(x: torch.Tensor) -> torch.Tensor:
    """One memory layout for all, whether computed or read: kernels, and so the last bits, depend on it."""
    return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.contiguous_format)


def _moved(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """To a GPU by way of pinned memory, from which it copies while the CPU goes on."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and not x.is_cuda else x.to(device)


def _frozen(stage: Stage, dtype: torch.dtype) -> nn.Module:
    """The stage in evaluation mode, in ``dtype``, its BatchNorms folded; itself where that changes nothing."""
    graph = stage.inference_graph
    pairs = _foldable(graph)
    if not pairs and dtype == torch.float32:
        return stage
    folded = copy.deepcopy(graph).requires_grad_(False).eval()
    for convolution, norm in pairs:
        first, second = folded.get_submodule(convolution), folded.get_submodule(norm)
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.BatchNorm2d)
        folded.set_submodule(convolution, fuse_conv_bn_eval(first, second))
        # timm's BatchNorm has its activation with it.
        folded.set_submodule(norm, getattr(second, "act", nn.Identity()))
    return folded.to(dtype).to(memory_format=torch.channels_last)


def _foldable(graph: fx.GraphModule) -> list[tuple[str, str]]:
    """Names of convolutions and of the BatchNorms that alone see their outputs."""
    uses = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    found = []
    for node in graph.graph.nodes:
        source = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        names = str(source.target), str(node.target)
        convolution, norm = (graph.get_submodule(name) for name in names)
        alone = len(source.users) == 1 and all(uses[name] == 1 for name in names)
        if (
            alone
            and isinstance(convolution, nn.Conv2d)
            and isinstance(norm, nn.BatchNorm2d)
            and norm.running_mean is not None
        ):
            found.append(names)
    return found


@functools.cache
def _code() -> str:
    """A digest of our own files in which a change can change bits, or where a network is cut."""
    names = ("frozen", "stages", "trace", "convolutions", "relu6", "views", "decode")
    sources = [Path(__file__).with_stem(name).read_bytes() for name in names]
    return hashlib.sha256(b"".join(sources)).hexdigest()


@functools.cache
def _versions() -> tuple[str, ...]:
    packages = ("torch", "torchvision", "timm", "pillow", "numpy")
    libraries = torch.version.cuda, torch.backends.cudnn.version()
    return (*(version(package) for package in packages), *map(str, libraries))


def _switches() -> list[tuple[str, str]]:
    """Environment variables that tell numerical libraries to compute otherwise."""
    return sorted((name, value) for name, value in os.environ.items() if name.startswith(_SWITCHES))


@functools.cache
def _hardware(device: torch.device) -> str:
    """The model of what computes: others have other kernels, and give other last bits."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_cpu()}"


def _cpu() -> str:
    """What Linux knows of the first CPU: its model, and the instructions that it has, in whatever words it uses."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return platform.processor()
    pairs = (line.partition(":") for line in first.splitlines())
    return repr([(name.strip(), value.strip()) for name, _, value in pairs if name.strip() in _CPU_FACTS])


class _DecodedImages:
    """Images as they were read, as long as there is room for more."""

    def __init__(self, room: int) -> None:
        self._images: dict[str, torch.Tensor] = {}
        self._room = room

    def __call__(self, record: Record) -> torch.Tensor:
        """uint8 ``[3, h, w]``."""
        image = self._images.get(record.digest)
        if image is None:
            image = read_same_image(record.path, record.digest)
            in_worker = get_worker_info() is not None  # which ends with its pass, and would have it for nothing
            if image.nbytes <= self._room and not in_worker:
                self._images[record.digest] = image
                self._room -= image.nbytes
        return image


_decoded = _DecodedImages(_DECODED_BYTES)
