"""The model card: what a person who is handed the model must know, as Markdown (Mitchell et al., *FAT\\** 2019)."""

import math
import re
from collections.abc import Mapping, Sequence

_USE = """\
In this folder, with transfer-search installed:

```sh
python -m search.predict . photo.jpg folder/ --csv out.csv   # --explain FOLDER shows where the network looked
python -m search.export . --format onnx                      # writes model.onnx; or --format torch_export
```

Without it, from the exported file:

```python
import json
import numpy
import onnxruntime
from PIL import Image, ImageOps

model = onnxruntime.InferenceSession("model.onnx")
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
(probabilities,) = model.run(None, {"images": numpy.asarray(photo)[None]})[0]
print(dict(zip(json.loads(model.get_modelmeta().custom_metadata_map["classes"]), probabilities.tolist())))
```"""


def model_card(
    title: str,
    *,
    data: str,
    counts: Mapping[str, Mapping[str, int]],
    backbone: str,
    weights: str,
    epochs: int,
    settings: Mapping[str, object],
    verdict: Sequence[str],
    temperature: float,
) -> str:
    """The card; all texts are plain texts, whatever characters they hold.

    Args:
        data: where the images came from, in words.
        counts: for each split (train, val, and test if there is one) the number of images of each class.
        backbone: as torchvision or timm call it.
        weights: where the pretrained weights came from, in words.
        settings: what it was trained with; those that are None are left out.
        verdict: how good it is: sentences, a paragraph an item.
        temperature: what the logits are divided by; 1: they were not calibrated.
    """
    classes = list(next(iter(counts.values())))
    named = _listed([f"“{_text(name)}”" for name in classes])
    shown = {name: value for name, value in settings.items() if value is not None}
    validated = sum(counts["val" if "val" in counts else "train"].values())  # with folds, all images validate
    parts = [
        f"# {_text(title)}",
        f"An image classifier: it says which of {len(classes)} classes an image shows, {named}, and how probable each "
        f"is. It is {_text(backbone)}, pretrained ({_text(weights)}) and fine-tuned on the images below.",
        "## How good it is",
        *map(_text, verdict),
        "## Intended use",
        f"To sort images like those that it was trained on into {named}. Whoever uses it for anything that matters "
        "should first measure it on images of their own.",
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(validated, temperature)),
        "## Data",
        _text(data),
        _table(["split", *classes, "all"], [[s, *n.values(), sum(n.values())] for s, n in counts.items()]),
        "## Training",
        f"{epochs} epoch{'s' if epochs != 1 else ''}, with settings from a hyperparameter search:",
        _table(["setting", "value"], [[name, value] for name, value in shown.items()]),
        "## How to use it",
        _USE,
        "## Licences",
        f"The weights began as: {_text(weights)}. Their licence, and that of the images, bind whoever uses the model "
        "or passes it on; fine-tuning changes neither. See where both came from.",
    ]
    return "\n\n".join(parts) + "\n"


def _limits(validated: int, temperature: float) -> list[str]:
    doubt = 100 * 1.96 * 0.5 / math.sqrt(validated)  # the normal approximation where it is widest, at one half
    calibrated = (
        f"Probabilities are calibrated: logits are divided by {temperature:.3g}, fitted on the same validation images. "
        "On images of another kind they can be far too sure."
        if temperature != 1
        else "Probabilities are not calibrated: the network tends to be surer than it should be."
    )
    return [
        "It knows its classes and nothing else: whatever an image shows, it names one of them.",
        f"The search judged it on {validated:,} validation images. A share measured on so many is uncertain by up to "
        f"{doubt:.1f} percentage points either way (95 %), and the best of many looks a little better than it is.",
        "Other cameras, light, backgrounds or places than the training images' can make it worse, and it does not say "
        "so.",
        calibrated,
    ]


def _listed(items: Sequence[str], most: int = 12) -> str:
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most:,} more"
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(c if c == '---' else _text(c) for c in map(str, line))} |" for line in lines)


def _text(value: object) -> str:
    """As Markdown that shows these very characters, on one line; lone surrogates of file names as question marks."""
    plain = " ".join(str(value).encode("utf-8", "replace").decode().split())
    return re.sub(r"[\\`*{}\[\]<>|#~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", plain)  # within a word "_" is itself
