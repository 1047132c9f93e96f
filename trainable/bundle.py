"""A finished model in a folder of its own: enough to classify new images without the data set it came from."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import yaml

from trainable.backbone import Backbone, load_backbone
from trainable.errors import InputError
from trainable.images import read_image
from trainable.threads import map_on_threads
from trainable.views import Preprocessing, plain_view

WEIGHTS, DESCRIPTION = "model.safetensors", "model.yaml"

EXPORTED = ("model.onnx", "model.pt2")
"""What `search.export` writes beside them."""
BATCH = 32
"""Images classified at once, where nothing else is said."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image."""

    path: Path
    probabilities: tuple[float, ...]
    """A probability a class, in the order of `Bundle.classes`."""

    @property
    def label(self) -> int:
        """The most probable class."""
        return max(range(len(self.probabilities)), key=self.probabilities.__getitem__)

    @property
    def confidence(self) -> float:
        """The probability of the most probable class."""
        return max(self.probabilities)


@dataclass(frozen=True)
class Bundle:
    """A classifier with the names of its classes."""

    backbone: Backbone
    classes: tuple[str, ...]
    description: Mapping[str, Any]
    """All of ``model.yaml``."""

    temperature: float = 1.0
    """What logits are divided by to give calibrated probabilities (Guo, Pleiss, Sun, Weinberger, *ICML* 2017)."""

    def predict(
        self,
        paths: Sequence[Path],
        batch_size: int = BATCH,
        skip: Callable[[Path, InputError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Classify image files, in their order, a batch at a time.

        Args:
            skip: told of each file that cannot be read as an image, which is left out; None: it ends the predictions.

        Raises:
            InputError: a file cannot be read as an image, and there is no ``skip``.
        """
        for start in range(0, len(paths), batch_size):
            images = {}
            for place, file in enumerate(paths[start : start + batch_size], start):
                try:
                    images[place] = read_image(file)
                except InputError as error:
                    if skip is None:
                        raise
                    skip(file, error)
            if images:
                logits = self.logits_of(list(images.values()))
                for place, row in zip(images, self.calibrate(logits).tolist(), strict=True):
                    yield Prediction(paths[place], tuple(row))

    def logits(self, paths: Sequence[Path]) -> Iterator[torch.Tensor]:
        """The logits of image files, in their order, float32 ``[B, classes]`` on the CPU.

        Raises:
            InputError: a file cannot be read as an image.
        """
        for start in range(0, len(paths), BATCH):
            yield self.logits_of(map_on_threads(read_image, paths[start : start + BATCH]))

    def logits_of(self, images: Sequence[torch.Tensor], device: torch.device | None = None) -> torch.Tensor:
        """The logits of decoded images, each uint8 ``[3, H, W]`` of any size: float32 ``[B, classes]`` on the CPU.

        Args:
            device: where to compute; None: on the GPU, if there is one.
        """
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.backbone.to(device)
        model = self.backbone.model.eval()
        views = map_on_threads(lambda image: plain_view(image, self.backbone.preprocessing), images)
        with torch.no_grad():
            return model(self.backbone.preprocessing.normalise(torch.stack(views).to(device))).float().cpu()

    def calibrate(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities from logits, both ``[B, classes]``."""
        return (logits / self.temperature).softmax(1)


def save_bundle(folder: Path, backbone: Backbone, classes: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Write the backbone's model as it is now. What was exported from another one there goes.

    Args:
        facts: what else ``model.yaml`` should say: temperature (see `Bundle`), metrics, settings, digests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous().cpu() for name, tensor in backbone.model.state_dict().items()}
    description = {
        "backbone": backbone.name,
        "classes": list(classes),
        "preprocessing": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(backbone.preprocessing).items()
        },
        **facts,
    }
    made = {
        WEIGHTS: safetensors.torch.save(state),
        DESCRIPTION: yaml.safe_dump(description, sort_keys=False, allow_unicode=True).encode(),
    }
    if any(not (folder / name).is_file() or (folder / name).read_bytes() != content for name, content in made.items()):
        for name in EXPORTED:
            (folder / name).unlink(missing_ok=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle.

    Raises:
        InputError: it is not one, or it is damaged.
    """
    try:
        description = yaml.safe_load((folder / DESCRIPTION).read_text())
        state = safetensors.torch.load_file(folder / WEIGHTS)
        backbone = load_backbone(description["backbone"], "random", len(description["classes"]))
        backbone.model.load_state_dict(state)
        given = description["preprocessing"]
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        preprocessing = Preprocessing(**fields)
        temperature = _temperature(description)
    except FileNotFoundError as error:
        raise InputError(
            f"a model bundle is a folder with {DESCRIPTION} and {WEIGHTS}; {folder} lacks "
            f"{Path(error.filename or WEIGHTS).name}"
        ) from error
    except (safetensors.SafetensorError, yaml.YAMLError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the model bundle in {folder} must be whole; it is damaged: {error}") from error
    loaded = Backbone(
        backbone.name, backbone.model, backbone.stages, preprocessing, backbone.pristine, f"the bundle {folder}"
    )
    return Bundle(loaded, tuple(description["classes"]), description, temperature)


def _temperature(description: Mapping[str, Any]) -> float:
    temperature = float(description.get("temperature", 1.0))
    if not 0 < temperature < math.inf:  # written so that NaN is refused too
        raise ValueError(f"temperature must be a number above 0; got {temperature}")
    return temperature
