"""A pretrained classifier as an ordered list of stages, with a new head for the data's classes."""

import copy
import difflib
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from trainable.convolutions import speed_up_convolutions
from trainable.errors import InputError
from trainable.model_zoo import build_classifier
from trainable.relu6 import share_outputs_of_relu6
from trainable.stages import Stage, cut_into_stages
from trainable.views import Preprocessing


@dataclass(frozen=True)
class Backbone:
    """A classifier and its stages, which share the classifier's parameters; the last stage is the head."""

    name: str
    model: nn.Module
    stages: tuple[Stage, ...]
    preprocessing: Preprocessing
    pristine: Mapping[str, torch.Tensor]
    """The state dict as it was loaded, head included, to start every trial from."""
    weights_note: str
    """Where the weights came from, in words."""
    frozen: dict[tuple[int, torch.dtype, torch.device], nn.Module] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Its stages as they compute when frozen, by number, as far as they were needed: see `trainable.frozen`."""

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal digits, of the names and values of the pretrained weights (not of the new head)."""
        sha = hashlib.sha256()
        head = self.state_names(len(self.stages) - 1)
        for key, value in self.pristine.items():
            if key not in head:
                sha.update(key.encode())
                sha.update(value.contiguous().numpy().tobytes())
        return sha.hexdigest()

    def depth(self, freeze_depth: int | str) -> int:
        """The ordinal of a freeze depth: an ordinal, ``all``, or the name of a stage, block or module inside.

        Raises:
            InputError: beyond the backbone's stages, or no such stage.
        """
        deepest = len(self.stages) - 1
        if isinstance(freeze_depth, int):
            if 0 <= freeze_depth <= deepest:
                return freeze_depth
            raise InputError(
                f"freeze_depth must be between 0 and {deepest} (or all) for {self.name}, which has "
                f"{deepest} stages before its head; got {freeze_depth}"
            )
        if freeze_depth == "all":
            return deepest
        inside = [i for i, stage in enumerate(self.stages[:-1]) if stage.contains(freeze_depth)]
        if inside:
            return inside[-1] + 1
        names = [stage.name for stage in self.stages[:-1]]
        near = difflib.get_close_matches(freeze_depth, names, 3, 0.4) or names
        raise InputError(
            f"freeze_depth must be an ordinal, all, or the name of a stage of {self.name}; "
            f"got {freeze_depth!r}. The nearest: {', '.join(near)}"
        )

    def reset(self, depth: int, seed: int) -> None:
        """Back to the pretrained weights, a fresh head drawn from ``seed``, the first ``depth`` stages frozen."""
        # A GPU draws other numbers from the same seed, and the model may lie there since its last use.
        self.to(torch.device("cpu"))
        self.model.load_state_dict(self.pristine)
        self.model.zero_grad()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.stages[-1].modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    module.reset_parameters()
        for i, stage in enumerate(self.stages):
            stage.requires_grad_(i >= depth)
            stage.eval()

    def to(self, device: torch.device) -> None:
        """Move the model, and what the graphs of its stages hold of their own: constants, and buffers by name."""
        for module in (self.model, *self.stages):
            module.to(device)

    def state_names(self, depth: int) -> tuple[str, ...]:
        """The names in the model's state dict that belong to the stages from ``depth`` on."""
        inside = {id(t) for stage in self.stages[depth:] for t in (*stage.parameters(), *stage.buffers())}
        return tuple(k for k, v in self.model.state_dict(keep_vars=True).items() if id(v) in inside)


def load_backbone(name: str, weights: str, classes: int) -> Backbone:
    """Build the torchvision or timm classifier ``name`` with a head of ``classes`` outputs.

    Args:
        name, weights: see `trainable.model_zoo.build_classifier`, which raises what can be wrong with them.

    Raises:
        InputError: the classifier does not end in a layer that can be replaced.
    """
    model, note, preprocessing = build_classifier(name, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the new layer's first values, which `Backbone.reset` draws again
        classifier = _replace_classifier(model, classes)
    speed_up_convolutions(model)
    share_outputs_of_relu6(model)
    model = model.to(memory_format=torch.channels_last)
    stages = cut_into_stages(model, classifier, preprocessing.image_size)
    return Backbone(name, model, stages, preprocessing, copy.deepcopy(model.state_dict()), note)


@functools.lru_cache(maxsize=2)
def load_cached_backbone(name: str, weights: str, classes: int) -> Backbone:
    """`load_backbone`, and kept for the next one who asks in this process: whoever takes it must reset it."""
    return load_backbone(name, weights, classes)


def _replace_classifier(model: nn.Module, classes: int) -> str:
    """Put a new layer in the place of the one that gives the logits, and return its qualified name."""
    name = _classifier_name(model)
    old = model.get_submodule(name)
    if isinstance(old, nn.Linear):
        new: nn.Module = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    elif isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, classes, 1, bias=old.bias is not None)
    else:
        raise InputError(
            f"the backbone must end in a linear layer or a 1×1 convolution; this one ends in {name}, a "
            f"{type(old).__name__}"
        )
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    return name


def _classifier_name(model: nn.Module) -> str:
    names = getattr(model, "default_cfg", {}).get("classifier")
    if isinstance(names, str):
        return names
    if names is not None:
        raise InputError(f"the backbone must have one classifier; this one has {len(names)}: {', '.join(names)}")
    return [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
