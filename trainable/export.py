"""A finished model as one file for other programs: ONNX, or a program of torch.export."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import Dim, ExportedProgram

from trainable.bundle import Bundle
from trainable.errors import InputError
from trainable.portable import PortableModel

INPUT, OUTPUT = "images", "probabilities"
"""uint8 ``[batch, height, width, 3]``, RGB and upright, of any size; float32 ``[batch, classes]``."""

METADATA = "metadata.json"
"""The file inside an exported program that holds `metadata`."""

_MOST_BYTES = 2**31 - 2**24
"""Of weights in one ONNX file, which Protocol Buffers end at 2 GiB."""

Classifier = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""An exported file at work: images ``[N, H, W, 3]`` to probabilities ``[N, classes]``."""


def write_onnx(bundle: Bundle, file: Path) -> None:
    """Export to ONNX.

    Raises:
        InputError: this model cannot be.
    """
    size = sum(tensor.nbytes for tensor in bundle.backbone.model.state_dict().values())
    if size > _MOST_BYTES:
        raise InputError(
            f"a model of one ONNX file must have less than 2 GB; this one has {size / 1e9:.1f} GB. Take --format "
            "torch_export"
        )
    program = _program(bundle)
    with _refusing(bundle, "torch.onnx.export"):
        exported = torch.onnx.export(
            program,
            dynamo=True,
            dynamic_shapes=_AXES,
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    exported.model.producer_name = "transfer-search"
    exported.model.metadata_props.update(metadata(bundle))
    exported.save(file)


def write_torch_export(bundle: Bundle, file: Path) -> None:
    """Export with ``torch.export``; ``torch.export.load(file).module()`` is the classifier.

    Raises:
        InputError: this model cannot be.
    """
    torch.export.save(_program(bundle), file, extra_files={METADATA: json.dumps(metadata(bundle))})


def open_onnx(file: Path) -> Classifier:
    """An ONNX file in ONNX Runtime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def open_torch_export(file: Path) -> Classifier:
    """An exported program, on the CPU."""
    model = torch.export.load(file).module()

    def classify(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()

    return classify


def metadata(bundle: Bundle) -> dict[str, str]:
    """What a file says of itself; ``classes`` is a JSON list, in the order of the probabilities."""
    facts: Mapping[str, Any] = {
        "classes": json.dumps(bundle.classes),
        "project": "transfer-search",
        "backbone": bundle.backbone.name,
        "temperature": bundle.temperature,
        INPUT: "uint8 [batch, height, width, 3], RGB, upright, of any size; all preprocessing is inside",
        OUTPUT: "float32 [batch, classes], calibrated",
        **{key: bundle.description[key] for key in ("weights", "trial", "data_digest") if key in bundle.description},
    }
    return {key: str(value) for key, value in facts.items()}


_AXES = ({0: Dim("batch"), 1: Dim("height"), 2: Dim("width")},)


def _program(bundle: Bundle) -> ExportedProgram:
    # A copy: it may lie on a GPU where predictions were made there, and files take tensors in PyTorch's usual layout.
    model = copy.deepcopy(PortableModel(bundle.backbone, bundle.temperature)).cpu().eval()
    model.to(memory_format=torch.contiguous_format)
    # Two images, neither square nor of the network's size: what the example has in common would become fixed.
    example = torch.zeros(2, 301, 403, 3, dtype=torch.uint8)
    with _refusing(bundle, "torch.export"), torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes=_AXES, strict=False)


@contextmanager
def _refusing(bundle: Bundle, exporter: str) -> Iterator[None]:
    """Both exporters raise all kinds of RuntimeError where a network holds what they cannot express."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the backbone must be one that {exporter} can export; {bundle.backbone.name} is not (--debug shows all): "
            f"{reason}"
        ) from error
