"""A finished model in a folder of its own: enough to classify new images without the data set it came from."""

from collections.abc import Iterator, Mapping, Sequence
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
from trainable.views import Preprocessing, plain_view

WEIGHTS, DESCRIPTION = "model.safetensors", "model.yaml"
_BATCH = 32


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

    def predict(self, paths: Sequence[Path]) -> Iterator[Prediction]:
        """Classify image files, in their order.

        Raises:
            InputError: a file cannot be read as an image.
        """
        rows = (row for logits in self.logits(paths) for row in logits.softmax(1).tolist())
        for file, row in zip(paths, rows, strict=True):
            yield Prediction(file, tuple(row))

    def logits(self, paths: Sequence[Path]) -> Iterator[torch.Tensor]:
        """The logits of image files, in their order, float32 ``[B, classes]`` on the CPU.

        Raises:
            InputError: a file cannot be read as an image.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = self.backbone.model.to(device).eval()
        for start in range(0, len(paths), _BATCH):
            files = paths[start : start + _BATCH]
            views = torch.stack([plain_view(read_image(file), self.backbone.preprocessing) for file in files])
            with torch.no_grad():
                yield model(self.backbone.preprocessing.normalise(views.to(device))).float().cpu()


def save_bundle(folder: Path, backbone: Backbone, classes: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Write the backbone's model as it is now.

    Args:
        facts: what else ``model.yaml`` should say: metrics, settings, digests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous().cpu() for name, tensor in backbone.model.state_dict().items()}
    safetensors.torch.save_file(state, folder / WEIGHTS)
    description = {
        "backbone": backbone.name,
        "classes": list(classes),
        "preprocessing": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(backbone.preprocessing).items()
        },
        **facts,
    }
    (folder / DESCRIPTION).write_text(yaml.safe_dump(description, sort_keys=False, allow_unicode=True))


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
    except FileNotFoundError as error:
        raise InputError(
            f"a model bundle is a folder with {DESCRIPTION} and {WEIGHTS}; {folder} lacks "
            f"{Path(error.filename or WEIGHTS).name}"
        ) from error
    except (safetensors.SafetensorError, yaml.YAMLError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"the model bundle in {folder} must be whole; it is damaged: {error}") from error
    loaded = Backbone(
        backbone.name, backbone.model, backbone.stages, preprocessing, backbone.pristine, f"the bundle {folder}"
    )
    return Bundle(loaded, tuple(description["classes"]), description)
