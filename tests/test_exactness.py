"""The main claim: with the memo, without it, warm, emptied half-way, short of room or resumed, a trial gives the same
weights and the same numbers, bit for bit."""

import copy
import dataclasses
import hashlib

import pytest

import trainable.frozen
import trainable.memo
from trainable.backbone import Backbone, load_backbone
from trainable.images import ImageSet
from trainable.inventory import main as memo_command
from trainable.memo import _resident
from trainable.settings import MemoSettings, TrainSettings, TrialSettings
from trainable.training import Training

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS = 2
CLOCK = ("epoch_time_s", "images_per_s")

# 24 images to train on: batches of 23 leave a last one of 1. mobilenet_v3_small drops a fifth of its head's input, and
# efficientnet_b0 drops whole paths too. What would take long has small views: large networks with much to train, and, on
# a CPU without instructions for bf16, bf16; auto is fp32 there.
CASES = [
    *[
        ("mobilenet_v3_small", depth, batch_size, augmentation, "fp32")
        for depth in (0, 5, "all")
        for batch_size, augmentation in ((4, "crop"), (23, "flip"), (32, "none"))
    ],
    *[
        ("mobilenet_v3_small", depth, batch_size, augmentation, "bf16")
        for depth, batch_size, augmentation in (
            (0, 4, "crop"),
            (0, 23, "flip"),
            (0, 32, "none"),
            (5, 4, "crop"),
            ("all", 23, "flip"),
            ("all", 32, "none"),
        )
    ],
    ("tf_efficientnet_lite0", 0, 8, "crop", "fp32"),
    ("tf_efficientnet_lite0", "blocks.4", 23, "crop", "fp32"),
    ("tf_efficientnet_lite0", "blocks.5", 8, "crop", "auto"),
    ("tf_efficientnet_lite0", "all", 4, "flip", "auto"),
    ("efficientnet_b0", "features.5", 8, "crop", "auto"),
    ("efficientnet_b0", "all", 23, "crop", "fp32"),
]

FOLDED = [
    ("mobilenet_v3_small", 0, 23, "none", "bf16"),
    ("mobilenet_v3_small", 5, 4, "crop", "fp32"),
    ("tf_efficientnet_lite0", "all", 4, "flip", "auto"),
]


@pytest.fixture(scope="module")
def backbones(lite0) -> dict[str, Backbone]:
    others = {name: load_backbone(name, "random", 2) for name in ("mobilenet_v3_small", "efficientnet_b0")}
    return {"tf_efficientnet_lite0": lite0, **others}


@pytest.fixture
def backbone(case, backbones, emulates_bf16) -> Backbone:
    """The case's own."""
    found, (name, depth, *_, precision) = backbones[case[0]], case
    large = name == "efficientnet_b0" or (name == "tf_efficientnet_lite0" and depth == 0)
    if not large and not (precision == "bf16" and emulates_bf16):
        return found
    return dataclasses.replace(found, preprocessing=dataclasses.replace(found.preprocessing, image_size=(96, 96)))


def outcome(training: Training) -> tuple[str, list[dict[str, float]]]:
    """A digest of all weights, and the metrics of all epochs."""
    sha = hashlib.sha256()
    for name, value in training.backbone.model.state_dict().items():
        sha.update(name.encode() + value.contiguous().cpu().numpy().tobytes())
    return sha.hexdigest(), [{k: v for k, v in metrics.items() if k not in CLOCK} for metrics in training.history]


def settings_of(pictures, case, folder=None, memo=None, budget=2**30, folds=None) -> TrialSettings:
    name, depth, batch_size, augmentation, precision = case
    train = TrainSettings(
        freeze_depth=depth,
        lr=0.01,
        batch_size=batch_size,
        augmentation=augmentation,
        precision=precision,
        epochs=EPOCHS,
    )
    kept = MemoSettings(folder=memo, budget=budget, kept=(0, 4, 10, 12, 18)) if memo else None
    return TrialSettings(
        images=pictures, backbone=name, weights="random", train=train, folds=folds, folder=folder, memo=kept
    )


def begun(settings: TrialSettings, images: ImageSet, backbone: Backbone) -> Training:
    """With nothing of earlier trainings on a GPU, so that what is needed is read from the memo, or computed."""
    _resident.cache_clear()
    return Training(settings, images, backbone)


def trained(settings: TrialSettings, images: ImageSet, backbone: Backbone) -> Training:
    training = begun(settings, images, backbone)
    for _ in range(settings.epochs):
        training.run_epoch()
    return training


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_memo_changes_nothing(pictures, backbone, tmp_path, case) -> None:
    check(case, None, pictures, ImageSet.load(pictures), backbone, tmp_path)


@pytest.mark.parametrize("case", FOLDED, ids=lambda case: "-".join(map(str, case)))
def test_the_memo_changes_nothing_with_folds_which_share_it(pictures, pooled, backbone, tmp_path, case) -> None:
    check(case, 2, pictures, pooled, backbone, tmp_path)


def check(case, folds, pictures, images, backbone, tmp_path) -> None:
    memo = tmp_path / "memo"
    off = outcome(trained(settings_of(pictures, case, folds=folds), images, backbone))
    kept = settings_of(pictures, case, memo=memo, folds=folds)
    assert outcome(trained(kept, images, backbone)) == off, "cold"
    assert outcome(trained(kept, images, backbone)) == off, "warm"
    room = size_of(memo) * 5 // 6  # the largest block is four fifths of the smallest memo

    evicted = begun(kept, images, backbone)
    for epoch in range(kept.epochs):
        evicted.run_epoch()
        if epoch == kept.epochs // 2 - 1:
            memo_command(["--folder", str(memo), "--clear"])
            assert not list(memo.glob("*/*.safetensors"))
    assert outcome(evicted) == off, "evicted"

    cramped = settings_of(pictures, case, memo=tmp_path / "cramped", budget=room, folds=folds)
    assert outcome(trained(cramped, images, backbone)) == off, "short of room"
    assert 0 < size_of(tmp_path / "cramped") <= room

    for _ in range(kept.epochs):  # on a GPU, with the views that the last one left there
        resumed = Training(kept.model_copy(update={"folder": tmp_path / "trial"}), images, backbone)
        resumed.resume()
        resumed.run_epoch()
        resumed.save()
    assert outcome(resumed) == off, "resumed"


def size_of(memo) -> int:
    """Bytes of all blocks."""
    return sum(file.stat().st_size for file in memo.glob("*/*.safetensors"))


def test_there_are_enough_cases() -> None:
    assert len(set(CASES)) >= 20


# What follows shows that the comparison above can fail.


CASE = ("mobilenet_v3_small", 5, 8, "none", "fp32")


def test_norms_on_batch_statistics_would_be_noticed(pictures, backbones, tmp_path, monkeypatch) -> None:
    """As in the tutorial, whose frozen stages stay in training mode: batches of 8 would then be what counts."""
    images, backbone = ImageSet.load(pictures), backbones[CASE[0]]
    off = outcome(trained(settings_of(pictures, CASE), images, backbone))
    backbone = dataclasses.replace(backbone)  # without its frozen stages
    monkeypatch.setattr(trainable.frozen, "_frozen", lambda stage, dtype: copy.deepcopy(stage).train())
    kept = settings_of(pictures, CASE, memo=tmp_path)
    assert outcome(trained(kept, images, backbone)) != off


def test_storage_in_half_precision_would_be_noticed(pictures, backbones, tmp_path, monkeypatch) -> None:
    images, backbone = ImageSet.load(pictures), backbones[CASE[0]]
    off = outcome(trained(settings_of(pictures, CASE), images, backbone))
    packed = trainable.memo.packed
    monkeypatch.setattr(
        trainable.memo, "packed", lambda x: packed(x.half().to(x.dtype) if x.is_floating_point() else x)
    )
    kept = settings_of(pictures, CASE, memo=tmp_path)
    assert outcome(trained(kept, images, backbone)) != off
