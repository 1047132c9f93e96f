"""Photographs that are nearly the same on both sides of a split, or in two folds."""

import pytest
from PIL import Image

from trainable.decode import check_images
from trainable.images import ImageSet, Record
from trainable.near_duplicates import near_duplicates

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def found(cells) -> ImageSet:
    return ImageSet.load(cells)


@pytest.fixture
def copied(found, tmp_path) -> tuple[Record, Record]:
    """A training image, and the same as a JPEG file, whose pixels are a little different."""
    original = found.split("train")[3]
    with Image.open(original.path) as image:
        image.save(tmp_path / "copy.jpg", quality=98)
    ((file, digest),) = check_images([tmp_path / "copy.jpg"], print)[0].items()
    assert digest != original.digest
    return original, Record(file, original.label, "val", digest)


def test_photographs_of_different_things_are_no_near_duplicates(found, lite0) -> None:
    assert near_duplicates([found.split("train"), found.split("val"), ()], lite0) == []


@pytest.mark.parametrize("where", [1, 2], ids=["in the next part", "in one further on"])
def test_a_copy_in_a_later_part_is_found(where, found, copied, lite0) -> None:
    original, copy = copied
    parts = [found.split("train"), found.split("val"), found.split("test")]
    parts[where] = (*parts[where], copy)
    (pair,) = near_duplicates(parts, lite0)
    assert (pair.image, pair.other) == (copy, original)
    assert 0.996 < pair.similarity < 1.0001


def test_within_a_part_nobody_looks(found, copied, lite0) -> None:
    assert near_duplicates([(*found.split("train"), copied[1]), found.split("val")], lite0) == []
    assert near_duplicates([found.split("train")], lite0) == []
