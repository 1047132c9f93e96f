"""A finished model as one file, which must say what the model says."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search.card import model_card
from search.export import TOLERANCE, largest_difference, main
from trainable.bundle import Bundle, save_bundle
from trainable.errors import InputError
from trainable.export import write_torch_export
from trainable.images import ImageSet, read_image
from trainable.portable import PortableModel
from trainable.views import Preprocessing, plain_view

ROOT = Path(__file__).parent.parent
CLASSES = ["défective", "functional"]


@pytest.fixture(scope="module")
def bundle(lite0) -> Bundle:
    lite0.reset(0, seed=1)
    return Bundle(lite0, tuple(CLASSES), {}, temperature=0.1)  # far from even chances


@pytest.fixture(scope="module")
def run(bundle, cells, tmp_path_factory) -> Path:
    """What export needs of a run: the images and the model."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copy(cells, folder / "images.csv")
    save_bundle(folder / "best", bundle.backbone, CLASSES, {"temperature": 0.1, "trial": 3})
    return folder


@pytest.fixture(scope="module")
def onnx_file(run, photos) -> Path:
    """The model in ONNX, compared on images of our own."""
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    (run / "onnx.txt").write_text(said_by(run, "--format", "onnx", "--check", photos[0].parent))
    return run / "best" / "model.onnx"


@pytest.fixture(scope="module")
def torch_file(run) -> Path:
    """The model as an exported program, compared on the run's images."""
    (run / "torch.txt").write_text(said_by(run, "--format", "torch_export"))
    return run / "best" / "model.pt2"


def said_by(*arguments: object) -> str:
    with redirect_stdout(io.StringIO()) as stream:
        assert main([*map(str, arguments)]) == 0
    return stream.getvalue()


@pytest.fixture(params=["onnx_file", "torch_file"])
def exported(request):
    """An exported file at work."""
    from trainable.export import open_onnx, open_torch_export

    open_file = {"onnx_file": open_onnx, "torch_file": open_torch_export}[request.param]
    return open_file(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def photos(cells, tmp_path_factory) -> list[Path]:
    """JPEG files of all proportions."""
    folder = tmp_path_factory.mktemp("photos")
    records = ImageSet.load(cells).split("val")
    for number, (record, size) in enumerate(zip(records, [(300, 300), (640, 201), (97, 256), (31, 40)], strict=False)):
        with Image.open(record.path) as image:
            image.convert("RGB").resize(size).save(folder / f"{number}.jpg", quality=95)
    return sorted(folder.iterdir())


# --- the files ---


def test_images_of_any_size_and_number(exported, bundle, photos):
    for file, prediction in zip(photos, bundle.predict(photos), strict=True):
        pixels = read_image(file).permute(1, 2, 0).contiguous().numpy()
        for batch in (1, 2, 5):
            given = exported(np.stack([pixels] * batch))
            assert (given.shape, given.dtype) == ((batch, 2), np.float32)
            assert np.abs(given - np.array(prediction.probabilities)).max() <= TOLERANCE
            assert given.sum(1) == pytest.approx(1, abs=1e-5)


def test_images_of_a_batch_do_not_change_each_other(exported, bundle, photos):
    pixels = [read_image(file).permute(1, 2, 0)[:40, :31].contiguous() for file in photos]
    expected = bundle.calibrate(bundle.logits_of([image.permute(2, 0, 1) for image in pixels])).numpy()
    assert np.abs(exported(np.stack(pixels)) - expected).max() <= TOLERANCE
    assert np.ptp(expected[:, 0]) > 100 * TOLERANCE  # else nothing would have been seen


def test_a_file_that_says_something_else_is_found_out(exported, bundle, photos):
    images = [read_image(file) for file in photos]
    assert largest_difference(bundle, exported, images) <= TOLERANCE
    assert largest_difference(replace(bundle, temperature=0.102), exported, images) > TOLERANCE
    assert np.isnan(largest_difference(bundle, lambda x: exported(x) * np.nan, images))


def test_every_photograph_of_the_ants_and_bees(exported, bundle):
    if not os.environ.get("HYMENOPTERA_DATA"):
        pytest.skip("$HYMENOPTERA_DATA names no copy of the ants and bees")
    files = sorted(Path(os.environ["HYMENOPTERA_DATA"]).rglob("val/*/*.jpg"))
    assert len(files) == 153
    assert largest_difference(bundle, exported, map(read_image, files)) <= TOLERANCE


def test_an_onnx_file_says_what_it_is(onnx_file):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    session = onnxruntime.InferenceSession(onnx_file)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["classes"]) == CLASSES
    assert {k: said[k] for k in ("project", "backbone", "temperature", "trial")} == {
        "project": "transfer-search", "backbone": "tf_efficientnet_lite0", "temperature": "0.1", "trial": "3",
    }  # fmt: skip
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", "height", "width", 3])
    assert (probabilities.name, probabilities.shape) == ("probabilities", ["batch", 2])


def test_an_exported_program_says_what_it_is(torch_file):
    files = {"metadata.json": ""}
    torch.export.load(torch_file, extra_files=files)
    assert json.loads(json.loads(files["metadata.json"])["classes"]) == CLASSES


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def card() -> str:
    counts = {"val": dict.fromkeys(CLASSES, 3)}
    return model_card("x", data="", counts=counts, backbone="", weights="", epochs=1, settings={}, verdict=[],
                      temperature=1)  # fmt: skip


@pytest.mark.parametrize("text, file", [(readme, "results/RUN/best/model.onnx"), (card, "model.onnx")])
def test_the_snippet_classifies_a_photograph_as_it_stands(onnx_file, bundle, photos, tmp_path, text, file):
    (snippet,) = (code for code in re.findall(r"```python\n(.*?)```", text(), re.DOTALL) if "onnxruntime" in code)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(onnx_file, tmp_path / file)
    shutil.copy(photos[1], tmp_path / "photo.jpg")
    script = snippet + "\nimport sys\nassert not {'torch', 'torchvision', 'search', 'trainable'} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, encoding="utf-8", cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (prediction,) = bundle.predict([photos[1]])
    pairs = re.findall(r"'(.*?)': ([0-9.e-]+)", done.stdout)
    assert [name for name, _ in pairs] == CLASSES
    assert [float(p) for _, p in pairs] == pytest.approx(prediction.probabilities, abs=TOLERANCE)


# --- resizing ---


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "resize, crop", [((64,), (56, 56)), ((64,), (64, 64)), ((60, 75), (56, 70)), ((333,), (224, 225))]
)
def test_resizing_in_the_graph_gives_the_very_pixels(bundle, photos, interpolation, resize, crop):
    """Larger and smaller, and sides that leave an odd number to crop."""
    preprocessing = replace(bundle.backbone.preprocessing, image_size=crop, resize=resize, interpolation=interpolation)
    model = PortableModel(replace(bundle.backbone, preprocessing=preprocessing), 1)
    for image in map(read_image, photos):
        for cut in (0, 1, 2, 3):
            part = image[:, cut:, : image.shape[2] - cut // 2]
            given = model.view(part.permute(1, 2, 0)[None])
            assert torch.equal(given[0].to(torch.uint8), plain_view(part, preprocessing))


# --- the command ---


def test_the_command_says_what_it_compared(run, onnx_file, torch_file, photos):
    pattern = r"""the largest difference in probability from the model, on {}: \d\.\de-\d\d
exported {}, \d+\.\d MB: uint8 images \[batch, height, width, 3\] in, probabilities \[batch, 2\] out
"""
    on = {"onnx": "4 given images", "torch": "7 validation images"}
    for name, file in (("onnx", onnx_file), ("torch", torch_file)):
        assert re.fullmatch(pattern.format(on[name], re.escape(str(file))), (run / f"{name}.txt").read_text())
    assert sorted(p.name for p in onnx_file.parent.iterdir()) == [
        "model.onnx", "model.pt2", "model.safetensors", "model.yaml",
    ]  # fmt: skip


def test_what_does_not_agree_is_not_left(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("search.export.TOLERANCE", -1.0)
    (tmp_path / "model.pt2").write_text("an earlier one")
    assert main([str(run / "best"), "--format", "torch_export", "--out", str(tmp_path / "model.pt2")]) == 1
    said = capsys.readouterr()
    assert f"error: it must be -1 at most, so {tmp_path / 'model.pt2'} was not written" in said.err
    assert "on random images alone (--check names real ones): " in said.out
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("model.pt2", "an earlier one")]


@pytest.mark.parametrize("out", ["model.bin", "no/such/model.pt2"])
def test_an_output_must_have_a_place_and_the_right_ending(run, tmp_path, capsys, out):
    assert main([str(run), "--format", "torch_export", "--out", str(tmp_path / out)]) == 2
    expected = f"error: --out must name a file *.pt2 in a folder that exists; got {tmp_path / out}"
    assert expected in capsys.readouterr().err


def test_without_the_extra_the_command_says_what_to_install(run):
    script = "import sys; sys.modules['onnxscript'] = None\nfrom search.export import main\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}sys.exit(main([{str(run)!r}, '--format', 'onnx']))"],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "error: --format onnx needs the extra onnx, and there is no onnxscript here: pip install onnxscript\n"
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"interpolation": "nearest"}, "if its images are resized bilinear or bicubic; .* resizes them nearest"),
        ({"resize": (200,)}, "if it crops no more than it resizes to; .* resizes to 200 and crops 224 × 224"),
        ({"resize": (224, 223)}, "resizes to 224 × 223 and crops 224 × 224"),
    ],
)
def test_preprocessing_that_cannot_be_exported(bundle, change, message):
    preprocessing: Preprocessing = replace(bundle.backbone.preprocessing, **change)
    with pytest.raises(InputError, match=message):
        PortableModel(replace(bundle.backbone, preprocessing=preprocessing), 1)


class Fickle(torch.nn.Module):
    """What it computes depends on the image, as no exported graph can say."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3)))


def test_a_network_that_cannot_be_exported(bundle, tmp_path):
    fickle = replace(bundle, backbone=replace(bundle.backbone, name="fickle", model=Fickle()))
    with pytest.raises(
        InputError, match=r"must be one that torch.export can export; fickle is not \(--debug shows all"
    ):
        write_torch_export(fickle, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
