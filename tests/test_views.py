"""A view is a function of (seed, view number, image), and shows what its augmentation says."""

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision.transforms import v2

import trainable.views
from trainable.views import Preprocessing, augmented_view, plain_view

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Preprocessing((32, 32), (36,), "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DIGESTS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(200)]


def picture(height: int = 40, width: int = 56, seed: int = 0) -> torch.Tensor:
    """Smooth, and different everywhere: uint8 ``[3, height, width]``."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(256, (1, 3, 6, 8), generator=random).float()
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return fine.round().to(torch.uint8)[0]


def view(image=None, digest=DIGESTS[0], number=0, seed=0, augmentation="crop", crop_scale=0.08, preprocessing=SMALL):
    image = picture() if image is None else image
    return augmented_view(image, digest, number, seed, augmentation, crop_scale, preprocessing)


def fingerprint() -> str:
    """Of some views of one image."""
    sha = hashlib.sha256()
    for number, seed, augmentation in itertools.product((0, 1, 24), (0, 3), ("none", "flip", "crop")):
        sha.update(view(number=number, seed=seed, augmentation=augmentation).numpy().tobytes())
    return sha.hexdigest()


# --- what a view depends on ---


def test_a_view_is_the_same_after_other_calls() -> None:
    before = fingerprint()
    torch.manual_seed(1)
    np.random.default_rng(1).random()
    view(digest=DIGESTS[1], number=5)
    torch.rand(3)
    assert fingerprint() == before


def test_a_view_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    view()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_view_is_the_same_in_another_process() -> None:
    here = Path(__file__).parent
    code = "import torch; torch.set_num_threads(1); torch.manual_seed(5); import test_views; print(test_views.fingerprint())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{here}:{here.parent}", "PYTHONHASHSEED": "7", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert done.stdout.split() == [fingerprint()]


def test_the_random_numbers_are_pinned() -> None:
    """Another generator, or another order of drawing, would change every result: that must not happen unnoticed."""
    assert trainable.views._random_crop(generator_of(DIGESTS[0], 3, 7), 40, 56, 0.08) == (2, 8, 35, 32)
    crops = [view(digest=digest, number=3, seed=7) for digest in DIGESTS[:8]]
    flips = [view(digest=digest, number=3, seed=7, augmentation="flip") for digest in DIGESTS[:8]]
    mirrored = [torch.equal(flip, plain_view(picture(), SMALL).flip(-1)) for flip in flips]
    assert mirrored == MIRRORED
    assert [round(crop.float().mean().item()) for crop in crops] == MEANS


MIRRORED = [True, False, True, False, False, True, False, True]
MEANS = [124, 128, 125, 128, 126, 128, 125, 127]


def generator_of(digest: str, number: int, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int(digest[:16], 16), counter=[0, 0, number, seed]))


def test_views_differ_between_numbers_seeds_and_images() -> None:
    seen = {
        view(digest=digest, number=number, seed=seed).numpy().tobytes()
        for digest, number, seed in itertools.product(DIGESTS[:4], range(4), range(4))
    }
    assert len(seen) == 4 * 4 * 4


def test_neighbouring_numbers_and_seeds_draw_independently() -> None:
    """Not as the same numbers, shifted: the counter counts another word."""
    first = [generator_of(DIGESTS[0], number, seed).random(50) for number in range(6) for seed in range(6)]
    correlations = np.corrcoef(first)[np.triu_indices(36, 1)]
    assert abs(correlations).max() < 0.7
    assert len(np.unique(np.concatenate(first))) == 36 * 50


@pytest.mark.parametrize("seed", [-1, 0, 2**31, 2**63, 2**64 - 2])
@pytest.mark.parametrize("number", [0, 1, 10**6])
def test_every_seed_has_views_of_its_own(seed, number) -> None:
    assert not torch.equal(view(seed=seed, number=number), view(seed=1, number=number))


# --- what a view shows ---


def test_without_augmentation_every_view_is_the_plain_one() -> None:
    for number in range(3):
        assert torch.equal(view(number=number, augmentation="none"), plain_view(picture(), SMALL))


def test_a_flipped_view_is_the_plain_one_or_its_mirror_image_about_half_the_time() -> None:
    plain = plain_view(picture(), SMALL)
    mirrored = 0
    for digest in DIGESTS:
        shown = view(digest=digest, augmentation="flip")
        assert torch.equal(shown, plain) or torch.equal(shown, plain.flip(-1))
        mirrored += torch.equal(shown, plain.flip(-1))
    assert 75 <= mirrored <= 125  # of 200; outside with a chance of 1 in 3,000


def test_a_crop_is_mirrored_when_the_flip_of_the_same_view_is() -> None:
    image = picture(40, 40)
    whole, plain = v2.functional.resize(image, [32, 32], antialias=True), plain_view(image, SMALL)
    for digest in DIGESTS[:30]:
        mirrored = torch.equal(view(image, digest=digest, augmentation="flip"), plain.flip(-1))
        # Of a square, a crop of the whole area is the square.
        assert torch.equal(view(image, digest=digest, crop_scale=1.0), whole.flip(-1) if mirrored else whole)


@pytest.mark.parametrize("scale", [0.08, 0.5, 1.0])
@pytest.mark.parametrize(("height", "width"), [(400, 600), (600, 400), (500, 500)])
def test_crops_have_areas_and_ratios_in_their_ranges(height, width, scale) -> None:
    crops = [
        trainable.views._random_crop(generator_of(digest, number, 0), height, width, scale)
        for digest, number in itertools.product(DIGESTS, range(5))
    ]
    tops, lefts, heights, widths = (np.array(values) for values in zip(*crops, strict=True))
    assert ((tops >= 0) & (lefts >= 0) & (heights > 0) & (widths > 0)).all()
    assert (tops + heights <= height).all()
    assert (lefts + widths <= width).all()
    areas, ratios = heights * widths / (height * width), widths / heights
    assert (ratios > 3 / 4 * 0.98).all()
    assert (ratios < 4 / 3 * 1.02).all()
    assert (areas > scale * 0.98).all() or scale == 1  # no crop of a whole long image has an allowed ratio
    if scale < 1:
        assert areas.min() < scale + 0.05
        assert areas.max() > 0.85
        assert (tops > 0).mean() > 0.5
        assert ((tops + heights == height).sum() > 0) and ((tops + heights < height).sum() > 0)
    if height == width:
        assert abs(np.log(ratios).mean()) < 0.1


def test_crops_are_distributed_as_torchvisions() -> None:
    scale, size = 0.08, (300, 400)
    ours = np.array(
        [trainable.views._random_crop(generator_of(d, n, 0), *size, scale) for d in DIGESTS for n in range(10)]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.empty(3, *size)
        transform = torchvision.transforms.RandomResizedCrop
        theirs = np.array([transform.get_params(image, [scale, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)])
    assert np.allclose(ours.mean(0), theirs.mean(0), rtol=0.08)
    for quantile in (0.1, 0.5, 0.9):
        assert np.allclose(np.quantile(ours[:, 2:], quantile, 0), np.quantile(theirs[:, 2:], quantile, 0), rtol=0.08)


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1), (2, 1000), (33, 3000), (7, 5), (1000, 900)])
@pytest.mark.parametrize("augmentation", ["none", "flip", "crop"])
def test_every_shape_gives_a_view_of_the_right_size(size, augmentation) -> None:
    image = picture(*size)
    for number in range(4):
        shown = view(image, number=number, augmentation=augmentation)
        assert shown.shape == (3, 32, 32)
        assert shown.dtype == torch.uint8


def test_a_view_is_of_the_right_size_where_that_is_no_square() -> None:
    wide = Preprocessing((24, 48), (24, 48), "bicubic", (0.5,) * 3, (0.5,) * 3)
    for augmentation in ("none", "flip", "crop"):
        assert view(augmentation=augmentation, preprocessing=wide).shape == (3, 24, 48)


def test_a_view_does_not_change_the_image() -> None:
    image = picture()
    for augmentation in ("none", "flip", "crop"):
        view(image, augmentation=augmentation)
    assert torch.equal(image, picture())


# --- as torchvision does it ---


@pytest.mark.parametrize("size", [(300, 400), (500, 256), (180, 200), (224, 224)])
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "swin_t"])
def test_the_plain_view_is_the_weights_own_transform(name, size) -> None:
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    own = Preprocessing(
        tuple(preset.crop_size * 2),
        tuple(preset.resize_size),
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )
    image = picture(*size)
    shown, expected = plain_view(image, own), preset(image)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    levels = (expected * std + mean) * 255
    assert shown.shape == levels.shape
    assert (shown.float() - levels).abs().max() < 1.001  # one level
    normalised = own.normalise(shown[None])[0]
    assert (normalised - expected).abs().max() <= 1.01 / 255 / min(preset.std)


@pytest.mark.parametrize("mean_and_std", [(SMALL.mean, SMALL.std), ((0.5,) * 3, (0.5,) * 3)])
def test_normalise_is_torchvisions(mean_and_std) -> None:
    own = Preprocessing((16, 16), (16,), "bilinear", *mean_and_std)
    views = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    expected = v2.Normalize(*mean_and_std)(v2.functional.to_dtype(views, torch.float32, scale=True))
    assert (own.normalise(views) - expected).abs().max() < 1e-6
    assert torch.equal(views[0, 0].flatten(), torch.arange(256, dtype=torch.uint8))


def test_normalise_gives_the_dtype_and_the_layout_that_networks_want() -> None:
    x = SMALL.normalise(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert SMALL.normalise(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.bfloat16).dtype == torch.bfloat16
