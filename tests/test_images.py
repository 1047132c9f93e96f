"""Images read, checked and split; every data set here is made by the tests, but for elpv."""

import importlib.util
import itertools
import os
import random
import shutil
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from trainable.errors import InputError
from trainable.images import ImageSet, find_images, read_image
from trainable.listing import EXTENSIONS
from trainable.sources import find_source
from trainable.splits import apportion


def find(*sources: Path | str, **options) -> ImageSet:
    defaults = {"limit": None, "test": None, "val": 0.25, "seed": 0, "skip_unreadable": False, "progress": print}
    return find_images(find_source([str(source) for source in sources], print), **(defaults | options))


def photograph(path: Path, seed: object = None) -> Path:
    """A small image that no other seed has (the path, if None)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.Random(str(path if seed is None else seed)).randbytes(6 * 5 * 3)
    Image.frombytes("RGB", (6, 5), pixels).save(path, format="PNG")
    return path


def folder(top: Path, **counts: int) -> Path:
    """Images by "split/class" or "class"; in names __ stands for /."""
    for place, count in counts.items():
        for number in range(count):
            photograph(top / place.replace("__", "/") / f"{number:03}.png", f"{place} {number}")
    return top


def sizes(images: ImageSet) -> dict[str, int]:
    return dict(Counter(f"{record.split} {images.classes[record.label]}" for record in images.records))


def where(images: ImageSet) -> dict[str, str]:
    return {record.digest: record.split for record in images.records}


RGB = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [255, 255, 255], [128, 64, 32]]], np.uint8)
GRAY = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)
COLOUR = Image.fromarray(RGB)
ALPHA = Image.fromarray(np.dstack([RGB, [[255, 255, 0], [0, 255, 255]]]).astype(np.uint8))
ON_WHITE = np.array([[[255, 0, 0], [0, 255, 0], [255, 255, 255]], [[255, 255, 255], [255] * 3, [128, 64, 32]]])
GRAY_3 = np.repeat(GRAY[:, :, None], 3, axis=2)
DEEP = GRAY.astype(np.uint16) * 257


def _palette_with_transparency() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    return image


MODES = {
    "RGB": (COLOUR, "png", {}, RGB),
    "bilevel": (Image.fromarray(GRAY > 127), "png", {}, np.where(GRAY_3 > 127, 255, 0)),
    "gray": (Image.fromarray(GRAY), "png", {}, GRAY_3),
    "gray and alpha": (
        Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(np.array([[255, 0, 255], [255, 255, 0]], np.uint8))]),
        "png",
        {},
        np.where([[[0], [1], [0]], [[0], [0], [1]]], 255, GRAY_3),
    ),
    "gray, one value transparent": (Image.fromarray(GRAY), "png", {"transparency": 127}, np.where(GRAY_3 == 127, 255, GRAY_3)),
    "palette": (COLOUR.quantize(6), "png", {}, RGB),
    "palette, one entry transparent": (_palette_with_transparency(), "png", {"transparency": 1}, [[[255, 0, 0], [255] * 3]]),
    "palette with alphas": (
        _palette_with_transparency(), "png", {"transparency": b"\x80\xff"}, [[[255, 127, 127], [0, 0, 255]]]
    ),
    "RGBA": (ALPHA, "png", {}, ON_WHITE),
    "RGBA, webp": (ALPHA, "webp", {"lossless": True}, ON_WHITE),
    "CMYK": (COLOUR.convert("CMYK"), "tiff", {}, RGB),
    "16-bit gray": (Image.fromarray(DEEP), "png", {}, GRAY_3),
    "16-bit gray, tiff": (Image.fromarray(DEEP), "tiff", {}, GRAY_3),
    "16-bit gray, big-endian": (Image.fromarray(DEEP.astype(">u2")), "tiff", {}, GRAY_3),
    "32-bit gray": (Image.fromarray(DEEP.astype(np.int32)), "tiff", {}, GRAY_3),
    "floats 0-1": (Image.fromarray((GRAY / 255).astype(np.float32)), "tiff", {}, GRAY_3),
    "floats 0-255": (Image.fromarray(GRAY.astype(np.float32)), "tiff", {}, GRAY_3),
    "animation": (COLOUR, "webp", {"lossless": True, "save_all": True, "append_images": [COLOUR.rotate(180)]}, RGB),
    "animated gif": (
        COLOUR.quantize(6), "gif", {"save_all": True, "append_images": [COLOUR.rotate(180).quantize(6)]}, RGB
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODES)
def test_every_mode_is_read_right(tmp_path, name):
    image, extension, options, expected = MODES[name]
    image.save(tmp_path / f"image.{extension}", **options)
    read = read_image(tmp_path / f"image.{extension}")
    assert read.dtype == torch.uint8 and read.is_contiguous()
    np.testing.assert_array_equal(read.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr", "L"])
def test_jpegs_are_read_nearly_right(tmp_path, mode):
    flat = Image.new("RGB", (16, 8), (200, 80, 40)).convert(mode)
    flat.save(tmp_path / "image.jpg", quality=95)
    expected = torch.tensor(flat.convert("RGB").getpixel((0, 0)))
    assert (read_image(tmp_path / "image.jpg").int() - expected[:, None, None]).abs().max() <= 3


@pytest.mark.parametrize("image", [Image.fromarray(RGB), Image.fromarray(GRAY), Image.fromarray(DEEP)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, image, orientation):
    back = [[], [1], [1, 0], [0], "T", ["T", 1], ["T", 1, 0], ["T", 0]][orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "image.png", exif=exif)
    expected = RGB if image.mode == "RGB" else GRAY_3
    for step in back:  # from the EXIF standard: what brings the stored rows and columns upright
        expected = expected.transpose(1, 0, 2) if step == "T" else np.flip(expected, step)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png").permute(1, 2, 0).numpy(), expected)


def test_16_bit_pgm_is_read_right(tmp_path):
    (tmp_path / "image.pgm").write_bytes(b"P5 3 2 65535\n" + DEEP.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "image.pgm").permute(1, 2, 0).numpy(), GRAY_3)


def _broken(path: Path, kind: str) -> None:
    photograph(path)
    whole = path.read_bytes()
    if kind == "truncated":
        noise = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3))
        noise.save(path, format="JPEG")
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "corrupt":
        path.write_bytes(whole[:45] + bytes([whole[45] ^ 255]) + whole[46:])
    elif kind == "link":
        path.unlink()
        path.symlink_to("nowhere.png")
    elif kind == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif kind == "bomb":
        header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
        path.write_bytes(whole[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + whole[33:])
    elif kind == "range":
        Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(path, format="TIFF")
    elif kind == "nan":
        Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(path, format="TIFF")


BROKEN = {
    "truncated": "image file is truncated",
    "empty": r"the file is empty \(0 bytes\)",
    "text": r"no image of a kind that is read \(JPEG, PNG, PPM, BMP, TIFF, WEBP, GIF\)",
    "corrupt": "",
    "link": "a broken link",
    "pipe": "not a file",
    "bomb": "",  # here a warning, made an error; the next test is for when it is not
    "range": "values from 70000 to 70000 are no 16-bit gray: save it with 8 or 16 bits",
    "nan": "floating-point values must lie in 0 to 1 or 0 to 255, not nan to nan",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_decoded_completely_is_refused(tmp_path, kind):
    _broken(tmp_path / "image.png", kind)
    with pytest.raises(InputError, match=rf"image\.png cannot be decoded: {BROKEN[kind]}"):
        read_image(tmp_path / "image.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_enormous_images_are_refused_not_only_warned_of(tmp_path):
    _broken(tmp_path / "image.png", "bomb")
    with pytest.raises(
        InputError, match="10000 x 10000 pixels are more than 89,478,485, Pillow's limit: scale it down"
    ):
        read_image(tmp_path / "image.png")


def test_the_extensions_are_those_of_torchvision():
    assert EXTENSIONS == torchvision.datasets.folder.IMG_EXTENSIONS


def test_given_splits_are_kept_in_a_canonical_order(tmp_path):
    top = folder(tmp_path, train__bees=3, train__ants=4, val__ants=2, val__bees=1, test__ants=1, test__bees=1)
    images = find(top)
    assert images.source == str(top) and images.classes == ("ants", "bees") and images.notes == ()
    assert [(r.split, r.label, r.digest) for r in images.records] == sorted(
        (r.split, r.label, r.digest) for r in images.records
    )
    assert sizes(images) == {
        "test ants": 1, "test bees": 1, "train ants": 4, "train bees": 3, "val ants": 2, "val bees": 1
    }  # fmt: skip
    assert len(images.split("val")) == 3
    assert repr(images) == f"ImageSet({top}: ants, bees; train 7, val 3, test 2)"


def test_the_digest_is_of_the_content_not_of_the_names(tmp_path):
    first = find(folder(tmp_path / "a", train__ants=3, train__bees=3, val__ants=1, val__bees=1))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    Image.open(tmp_path / "b/train/ants/000.png").save(tmp_path / "b/train/ants/zzz.bmp")
    (tmp_path / "b/train/ants/000.png").unlink()
    assert find(tmp_path / "b").digest == first.digest
    photograph(tmp_path / "b/train/ants/new.png")
    assert find(tmp_path / "b").digest != first.digest


def test_a_saved_table_is_read_back(tmp_path):
    images = find(folder(tmp_path / 'with, "quotes"', ants=9, bees=9), test=0.25)
    images.save(tmp_path / "images.csv")
    again = ImageSet.load(tmp_path / "images.csv")
    assert (again.records, again.classes, again.digest) == (images.records, images.classes, images.digest)
    assert (tmp_path / "images.csv").read_text().startswith("split,class,path,digest\n")


def test_a_table_whose_images_have_gone(tmp_path):
    find(folder(tmp_path / "data", ants=4, bees=4)).save(tmp_path / "images.csv")
    (tmp_path / "data/ants/001.png").unlink()
    with pytest.raises(InputError, match=r"(?s)images named in .*images\.csv have gone; put them back.*ants/001\.png$"):
        ImageSet.load(tmp_path / "images.csv")
    find(folder(tmp_path / "many", ants=12, bees=12)).save(tmp_path / "many.csv")
    shutil.rmtree(tmp_path / "many")
    with pytest.raises(InputError, match=r"(?s)have gone;.*\n  - and 14 more$"):
        ImageSet.load(tmp_path / "many.csv")
    with pytest.raises(InputError, match=r"none\.csv, the table of the data set, cannot be read: No such file"):
        ImageSet.load(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="must have the columns split, class, path, digest, not"):
        ImageSet.load(tmp_path / "other.csv")


def test_a_folder_of_classes_is_split_by_content(tmp_path):
    images = find(folder(tmp_path, ants=200, bees=100), test=0.2)
    counts = sizes(images)
    assert sum(counts.values()) == 300
    assert 30 <= counts["val ants"] <= 50 and 12 <= counts["val bees"] <= 28  # 40 and 20, give or take
    assert 28 <= counts["test ants"] <= 52 and 12 <= counts["test bees"] <= 28
    assert images.notes == (
        "test (sealed): about 0.2 of each class's training images, set aside by their content",
        "val: about 0.25 of each class's training images, set aside by their content",
    )


def test_adding_files_moves_no_other(tmp_path):
    before = where(find(folder(tmp_path, ants=60, bees=60), test=0.2))
    after = where(find(folder(tmp_path, ants=120, bees=90, wasps=30), test=0.2))
    assert len(after) == 240 and before.items() <= after.items()


def test_the_seed_moves_val_but_never_test(tmp_path):
    top = folder(tmp_path, ants=60, bees=60)
    first, second = (find(top, test=0.2, seed=seed) for seed in (0, 1))
    assert first.split("test") == second.split("test")
    assert first.split("val") != second.split("val")


@pytest.mark.parametrize("count", range(3, 12))
def test_small_classes_have_an_image_in_every_split(tmp_path, count):
    images = find(folder(tmp_path, ants=count, bees=count, wasps=count), test=0.1, val=0.1)
    assert len(sizes(images)) == 9


def test_val_is_taken_from_train_where_it_is_missing(tmp_path):
    top = folder(tmp_path, train__ants=40, train__bees=40, test__ants=2, test__bees=2)
    images = find(top, test=0.3)
    assert sizes(images)["test ants"] == 2 and 4 <= sizes(images)["val ants"] <= 16
    assert "data.test = 0.3 is not used: this source has a test split of its own" in images.notes


def test_test_is_sealed_from_train_alone(tmp_path):
    top = folder(tmp_path, train__ants=40, train__bees=40, val__ants=5, val__bees=5)
    assert "test ants" not in sizes(find(top))
    images = find(top, test=0.3)
    assert sizes(images)["val ants"] == 5 and 5 <= sizes(images)["test ants"] <= 19


def test_a_limit_takes_the_same_images_in_proportion(tmp_path):
    top = folder(tmp_path, train__ants=40, train__bees=20, val__ants=10, val__bees=2)
    images = find(top, limit=36)
    assert sizes(images) == {"train ants": 20, "train bees": 10, "val ants": 5, "val bees": 1}
    assert find(top, limit=36).records == images.records
    assert set(find(top, limit=11).records) < set(images.records)
    assert len(find(top, limit=4).records) == 4 and len(find(top, limit=999).records) == 72
    with pytest.raises(InputError, match="data.limit must be at least 4, one image of each class in each split, not 3"):
        find(top, limit=3)


def test_apportion_keeps_the_total_and_only_ever_adds():
    groups = {"a": 1000, "b": 100, "c": 3, "d": 1}
    kept = [apportion(groups, total) for total in range(4, 1104)]
    assert [sum(each.values()) for each in kept] == list(range(4, 1104))
    assert all(less[key] <= more[key] for less, more in itertools.pairwise(kept) for key in groups)
    assert apportion(groups, 9999) == groups
    assert apportion(groups, 110) == {"a": 98, "b": 10, "c": 1, "d": 1}


def test_copies_within_a_split_are_only_said(tmp_path):
    top = folder(tmp_path, train__ants=3, train__bees=3, val__ants=1, val__bees=1)
    shutil.copy(top / "train/ants/000.png", top / "train/ants/copy.png")
    shutil.copy(top / "train/ants/001.png", top / "train/bees/copy.png")
    label, copies = find(top).notes
    assert label == (
        "the same image in two classes, so one label is wrong:"
        f"\n  - {top}/train/ants/001.png (train) = {top}/train/bees/copy.png (train)"
    )
    assert copies == (
        "the same image more than once in one split:"
        f"\n  - {top}/train/ants/000.png (train) = {top}/train/ants/copy.png (train)"
    )


def test_copies_stay_together_when_a_folder_is_split(tmp_path):
    folder(tmp_path, ants=30, bees=30)
    for path in sorted((tmp_path / "ants").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    images = find(tmp_path)
    assert len(images.records) == 90 and "more than once in one split" in images.notes[-1]


def test_all_problems_are_told_at_once(tmp_path):
    top = folder(tmp_path, train__ants=3, train__bees=3, train__wasps=2, val__ants=2, val__flies=1)
    (top / "val/bees").mkdir()
    Image.open(top / "train/ants/000.png").save(top / "val/ants/again.tiff")
    for kind in ("truncated", "empty", "text"):
        _broken(top / f"train/ants/{kind}.jpg", kind)
    with pytest.raises(InputError) as caught:
        find(top)
    text = str(caught.value)
    assert text.startswith(f"the images of {top} cannot be used as they are:")
    for phrase in (
        f"class 'bees' has no image in val: {top}/val/bees holds no image that can be read",
        f"class 'wasps' has no image in val: {top}/val/wasps is missing",
        f"class 'flies' has no image in train: {top}/train/flies is missing",
        (
            f"the same image in two splits; keep one of each:\n      - {top}/train/ants/000.png (train) = "
            f"{top}/val/ants/again.tiff (val)"
        ),
        (
            "cannot be decoded (--set data.skip_unreadable=true would leave them out):\n"
            f"      - {top}/train/ants/empty.jpg: the file is empty (0 bytes)\n"
            f"      - {top}/train/ants/text.jpg: no image of a kind"
        ),
        f"- {top}/train/ants/truncated.jpg: image file is truncated",
    ):
        assert phrase in text


def test_unreadable_images_can_be_left_out(tmp_path):
    top = folder(tmp_path, train__ants=3, train__bees=3, val__ants=1, val__bees=1)
    whole = find(top)
    _broken(top / "train/ants/text.jpg", "text")
    images = find(top, skip_unreadable=True)
    assert images.digest == whole.digest
    assert images.notes[0].startswith(
        f"left out, since they cannot be decoded:\n  - {top}/train/ants/text.jpg: no image"
    )
    (top / "val/bees/000.png").write_bytes(b"")
    with pytest.raises(
        InputError, match="class 'bees' has no image in val: .*val/bees holds no image that can be read"
    ):
        find(top, skip_unreadable=True)


@pytest.mark.parametrize(
    ("counts", "options", "phrase"),
    [
        ({"ants": 3, "bees": 1}, {}, "class 'bees' must have at least 2 different images, to set some aside for val, but has 1: .*/bees"),
        ({"ants": 3, "bees": 2}, {"test": 0.2}, "at least 3 different images, to set some aside for val and test, but has 2"),
        ({"ants": 3}, {}, "there must be two classes at least, but .* holds only 'ants'"),
        ({"ants": 3, "bees": 3}, {"test": 1.0}, r"data\.test must lie between 0 and 1 .*, not 1\.0"),
        ({"ants": 3, "bees": 3}, {"val": 0}, r"data\.val must lie between 0 and 1 .*, not 0"),
        ({"ants": 3, "bees": 3}, {"limit": 0}, r"data\.limit must be a number of images, at least 1, or null for all; not 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_split(tmp_path, counts, options, phrase):
    with pytest.raises(InputError, match=phrase):
        find(folder(tmp_path, **counts), **options)


def test_an_empty_class_is_named(tmp_path):
    folder(tmp_path, ants=3, bees=3)
    (tmp_path / "wasps").mkdir()
    (tmp_path / "wasps/README.txt").touch()
    with pytest.raises(
        InputError, match="class 'wasps' has no image in train: .*/wasps holds no image that can be read"
    ):
        find(tmp_path)


def test_progress_is_told(tmp_path):
    said: list[str] = []
    find(folder(tmp_path, ants=6, bees=5), progress=said.append)
    assert said[-1] == "checked 11 of 11 images"


@pytest.fixture(scope="module")
def elpv() -> ImageSet:
    if importlib.util.find_spec("elpv_dataset") is None:
        pytest.skip("elpv-dataset is not installed")
    return find("elpv")


def test_elpv_is_split_as_in_its_papers(elpv):
    assert elpv.source.startswith("elpv (2,624 photographs of solar cells") and "CC BY-NC-SA 4.0" in elpv.source
    assert elpv.classes == ("defective", "functional")
    assert sizes(elpv) == {
        "test defective": 205, "test functional": 450,
        "train defective": 462, "train functional": 1015,
        "val defective": 154, "val functional": 338,
    }  # fmt: skip


def test_elpv_is_split_over_cell_types_too(elpv):
    table = Path(elpv.records[0].path).parents[1] / "labels.csv"
    types = {row.split()[0].rsplit("/", 1)[-1]: row.split()[2] for row in table.read_text().splitlines()}
    mono = Counter(record.split for record in elpv.records if types[record.path.name] == "mono")
    assert mono == {"test": 268, "train": 605, "val": 201}  # of 1,074: 25 %, then 25 % of the rest


def test_hymenoptera_is_whole_and_clean():
    if not os.environ.get("HYMENOPTERA_DATA"):
        pytest.skip("$HYMENOPTERA_DATA names no copy of the ants and bees")
    images = find("hymenoptera")
    assert sizes(images) == {"train ants": 123, "train bees": 121, "val ants": 70, "val bees": 83}
    assert len({record.digest for record in images.records}) == 397
    assert len(images.notes) <= 1 and all("imageNotFound.gif" in note for note in images.notes)
