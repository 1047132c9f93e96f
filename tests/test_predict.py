"""A finished model classifies new images: the bundle, and the command."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from search.predict import main
from trainable.bundle import load_bundle, save_bundle
from trainable.errors import InputError
from trainable.images import ImageSet

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def bundle(lite0, tmp_path_factory) -> Path:
    lite0.reset(0, seed=1)
    folder = tmp_path_factory.mktemp("bundle")
    save_bundle(folder, lite0, ["defective", "functional"], {"temperature": 0.5, "trial": 3})
    return folder


@pytest.fixture(scope="module")
def photos(cells) -> list[Path]:
    return [record.path for record in ImageSet.load(cells).records[:5]]


@pytest.fixture
def damaged(tmp_path, photos) -> list[Path]:
    """A truncated photograph, a text, and an empty file."""
    (tmp_path / "cut.png").write_bytes(photos[0].read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    return [tmp_path / name for name in ("cut.png", "text.jpg", "empty.png")]


# --- the bundle ---


def test_what_was_exported_from_another_model_goes_and_others_can_read_it(lite0, tmp_path):
    lite0.reset(0, seed=1)
    for temperature, kept in ((0.5, False), (0.5, True), (0.6, False)):
        exported = [tmp_path / "model.onnx", tmp_path / "model.pt2"]
        for file in exported:
            file.touch()
        save_bundle(tmp_path, lite0, ["defective", "functional"], {"temperature": temperature})
        assert [file.exists() for file in exported] == [kept, kept]
    modes = {(tmp_path / name).stat().st_mode for name in ("model.safetensors", "model.yaml")}
    assert len(modes) == 1


def test_the_temperature_calibrates_probabilities_and_leaves_logits_alone(bundle, photos):
    cold = load_bundle(bundle)
    assert cold.temperature == 0.5
    logits = torch.cat(list(cold.logits(photos)))
    for temperature in (0.5, 1.0, 3.0):
        model = replace(cold, temperature=temperature)
        assert torch.equal(torch.cat(list(model.logits(photos))), logits)
        given = torch.tensor([p.probabilities for p in model.predict(photos)])
        assert torch.allclose(given, torch.softmax(logits / temperature, 1), atol=1e-6)


def test_a_bundle_without_a_temperature_has_one_of_1(bundle, tmp_path):
    copy_with(bundle, tmp_path, temperature=None)
    assert load_bundle(tmp_path).temperature == 1


@pytest.mark.parametrize("temperature", [0, -1, ".nan", ".inf", "warm"])
def test_a_temperature_must_be_a_number_above_0(bundle, tmp_path, temperature):
    copy_with(bundle, tmp_path, temperature=yaml.safe_load(str(temperature)))
    with pytest.raises(InputError, match="it is damaged: .*(temperature must be a number above 0|warm)"):
        load_bundle(tmp_path)


def copy_with(bundle: Path, folder: Path, **facts: object) -> None:
    """A bundle with other facts; None: without."""
    description = {**yaml.safe_load((bundle / "model.yaml").read_text()), **facts}
    (folder / "model.yaml").write_text(yaml.safe_dump({k: v for k, v in description.items() if v is not None}))
    (folder / "model.safetensors").symlink_to(bundle / "model.safetensors")


def test_predictions_do_not_depend_on_the_batch_or_on_what_is_skipped(bundle, photos, damaged):
    model = load_bundle(bundle)
    expected = list(model.predict(photos))
    assert [p.path for p in expected] == photos
    mixed = [damaged[0], *photos[:2], damaged[1], *photos[2:], damaged[2]]
    for batch_size in (1, 2, 100):
        skipped: list[Path] = []
        given = list(model.predict(mixed, batch_size, lambda file, _, seen=skipped: seen.append(file)))
        assert [p.path for p in given] == photos
        assert skipped == damaged
        for one, other in zip(given, expected, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_without_a_skip_the_first_unreadable_image_is_an_error(bundle, photos, damaged):
    with pytest.raises(InputError, match="text.jpg cannot be decoded: no image of a kind that is read"):
        list(load_bundle(bundle).predict([*photos, damaged[1]]))


def test_no_more_images_are_read_than_a_batch(bundle, photos, tmp_path):
    """So many images fit in any memory: those behind the first batch need not even be there yet."""
    late = tmp_path / "late.png"
    stream = load_bundle(bundle).predict([*photos[:2], late], 2)
    assert next(stream).path == photos[0]
    late.write_bytes(photos[2].read_bytes())
    assert [p.path for p in stream] == [photos[1], late]


# --- the command ---


def test_what_cannot_be_read_is_named_and_the_rest_is_classified(bundle, photos, damaged, tmp_path, capsys):
    table, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    given = [*photos[:2], damaged[0], photos[2], photos[0]]  # the first one twice
    code = main([str(bundle), *map(str, given), "--csv", str(table), "--jsonl", str(lines), "--batch-size", "2"])
    said = capsys.readouterr()
    assert code == 1
    first, last = said.err.splitlines()
    assert first.startswith(f"skipped: {damaged[0]} cannot be decoded: ")
    assert last == "1 of 5 images were skipped: they cannot be read"
    read = [str(p) for p in given if p != damaged[0]]
    assert [line.split("  ")[0] for line in said.out.splitlines()] == read
    rows, objects = pd.read_csv(table), [json.loads(line) for line in lines.read_text().splitlines()]
    assert rows["path"].tolist() == [o["path"] for o in objects] == read
    assert rows["class"].tolist() == [o["class"] for o in objects]
    for o, p in zip(objects, load_bundle(bundle).predict([Path(name) for name in read]), strict=True):
        assert list(o) == ["path", "class", "confidence", "probabilities"]
        assert list(o["probabilities"]) == ["defective", "functional"]
        assert list(o["probabilities"].values()) == pytest.approx(p.probabilities, abs=1e-5)
        assert o["confidence"] == max(o["probabilities"].values())
    assert rows["defective"].tolist() == pytest.approx([o["probabilities"]["defective"] for o in objects], abs=1e-6)


def test_where_nothing_can_be_read_the_command_says_so(bundle, damaged, capsys):
    assert main([str(bundle), *map(str, damaged)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("skipped: ") == 3
    assert said.err.endswith("error: none of the 3 images given can be read, so none was classified\n")


@pytest.mark.parametrize("top, shown", [(1, 1), (2, 2), (7, 2)])
def test_the_most_probable_classes_are_printed_with_their_probabilities(bundle, photos, capsys, top, shown):
    assert main([str(bundle), str(photos[0]), "--top", str(top)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    path, *pairs = line.split("  ")
    (prediction,) = load_bundle(bundle).predict(photos[:1])
    ranked = sorted(zip(prediction.probabilities, ["defective", "functional"], strict=True), reverse=True)[:shown]
    assert pairs == [text for p, name in ranked for text in (name, f"{p:.3f}")]


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--top", "0"], "--top must be at least 1; got 0"),
        (["--batch-size", "-2"], "--batch-size must be at least 1; got -2"),
        (["--csv", "x", "--jsonl", "x"], "--csv and --jsonl must name two files; both are x"),
        (["--csv", "no/such/folder/x"], "--csv must name a file that can be written; got no/such/folder/x: No such file"),
        (["--jsonl", "."], "--jsonl must name a file that can be written; got .: Is a directory"),
        (["--explain", "/dev/null"], "--explain must name a folder that can be written to; got /dev/null"),
    ],
)  # fmt: skip
def test_mistakes(bundle, photos, capsys, wrong, message):
    assert main([str(bundle), str(photos[0]), *wrong]) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_a_full_disk_is_one_message(bundle, photos, capsys):
    assert main([str(bundle), str(photos[0]), "--csv", "/dev/full"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: --csv must name a file that can be written; got /dev/full: No space"
    )


def test_ctrl_c_leaves_what_was_done(bundle, photos, tmp_path):
    table, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    many = [str(photos[i % len(photos)]) for i in range(5000)]
    command = [sys.executable, "-m", "search.predict", str(bundle), *many, "--csv", str(table), "--jsonl", str(lines)]
    with subprocess.Popen(
        [*command, "--batch-size", "4"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for _ in range(6):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors == ""
    rows, objects = pd.read_csv(table), [json.loads(line) for line in lines.read_text().splitlines()]
    assert 5 <= len(rows) < 5000
    assert abs(len(rows) - len(objects)) <= 1
    assert rows["path"].tolist()[: len(objects)] == [o["path"] for o in objects][: len(rows)]


def test_explanations_have_names_of_their_own(bundle, photos, tmp_path, capsys):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cell.png").write_bytes(photos[folder == "two"].read_bytes())
    lines, why = tmp_path / "out.jsonl", tmp_path / "why" / "deep"
    given = [tmp_path / "one", tmp_path / "two", tmp_path / "one" / "cell.png"]
    assert main([str(bundle), *map(str, given), "--explain", str(why), "--jsonl", str(lines)]) == 0
    named = [Path(json.loads(line)["explanation"]) for line in lines.read_text().splitlines()]
    assert named[0] == named[2] != named[1]
    assert sorted(why.iterdir()) == sorted(set(named))
    for file in named:
        with Image.open(file) as picture:
            assert (picture.size, picture.mode) == ((224, 224), "RGB")


@pytest.mark.skipif(os.name != "posix", reason="only there can file names be no text")
def test_a_path_that_is_no_text(bundle, photos, tmp_path, capsys):
    odd = tmp_path / os.fsdecode(b"caf\xe9.png")
    odd.write_bytes(photos[0].read_bytes())
    table, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    assert main([str(bundle), str(odd), "--csv", str(table), "--jsonl", str(lines)]) == 0
    assert b"caf\xe9.png" in table.read_bytes()
    assert json.loads(lines.read_text())["path"] == str(odd)
