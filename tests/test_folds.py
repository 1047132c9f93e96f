"""Cross-validation: how images are dealt into folds, and that a fold is nothing but a training on a split."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trainable.backbone import load_backbone
from trainable.epoch import image_scores, score
from trainable.errors import InputError
from trainable.frozen import FrozenPass
from trainable.images import ImageSet, Record, find_images
from trainable.settings import (
    METRICS,
    MemoSettings,
    TrainSettings,
    TrialSettings,
    across_folds,
    best_epoch,
    mean_metrics,
)
from trainable.sources import find_source
from trainable.splits import deal_folds
from trainable.training import CHECKPOINT, Training, logits_file

pytestmark = pytest.mark.usefixtures("one_thread")

FOLDS, EPOCHS = 3, 2
CLOCK = ("epoch_time_s", "images_per_s")


@pytest.fixture(scope="module")
def images(pictures) -> ImageSet:
    """All 40 pictures, to train on."""
    return find(pictures.parent)


@pytest.fixture(scope="module")
def network():
    return load_backbone("mobilenet_v3_small", "random", 2)


def find(folder, val=None, **options) -> ImageSet:
    given = {"limit": None, "test": None, "seed": 0, "skip_unreadable": False, "progress": print, **options}
    return find_images(find_source([str(folder)], print), val=val, **given)


def settings_of(folder=None, memo=None, folds=FOLDS, metric="val_loss", **train) -> TrialSettings:
    train = {"freeze_depth": 5, "lr": 0.01, "batch_size": 7, "epochs": EPOCHS} | train
    return TrialSettings(
        images=Path("images.csv"),  # not read here
        backbone="mobilenet_v3_small",
        weights="random",
        train=TrainSettings(**train),
        metric=metric,
        folds=folds,
        folder=folder,
        memo=MemoSettings(folder=memo, budget=2**30, kept=(5,)) if memo else None,
    )


def trained(settings: TrialSettings, images: ImageSet, network) -> Training:
    training = Training(settings, images, network)
    for _ in range(settings.epochs):
        training.run_epoch()
    return training


def clockless(history) -> list[dict[str, float]]:
    return [{name: value for name, value in metrics.items() if name not in CLOCK} for metrics in history]


# --- dealing ---


@pytest.mark.parametrize("sizes", [(193, 204), (7, 5, 23), (5, 5), (100, 6, 6, 6)])
def test_folds_are_equal_in_size_and_stratified(sizes) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    dealt = deal_folds(labels, [f"{number:x}" for number in range(len(labels))], 5, seed=0)
    assert set(dealt) == set(range(5))
    per_class = Counter(zip(labels, dealt, strict=True))
    for label in range(len(sizes)):
        counts = [per_class[label, fold] for fold in range(5)]
        assert max(counts) - min(counts) <= 1
    assert max(Counter(dealt).values()) - min(Counter(dealt).values()) <= 1


def test_folds_follow_the_content_and_the_seed_and_not_the_order() -> None:
    labels, digests = [0, 1] * 20, [f"{number:03x}" for number in range(40)]
    dealt = dict(zip(digests, deal_folds(labels, digests, 4, seed=0), strict=True))
    turned = dict(zip(digests[::-1], deal_folds(labels[::-1], digests[::-1], 4, seed=0), strict=True))
    assert turned == dealt
    assert dict(zip(digests, deal_folds(labels, digests, 4, seed=1), strict=True)) != dealt


def test_copies_of_an_image_are_in_one_fold_even_in_two_classes() -> None:
    digests = [f"{number // 2:x}" for number in range(60)]
    labels = [number // 20 for number in range(59)] + [0]
    dealt = deal_folds(labels, digests, 5, seed=0)
    assert dealt[::2] == dealt[1::2]
    assert Counter(dealt) == dict.fromkeys(range(5), 12)


def test_a_class_must_have_an_image_in_every_fold() -> None:
    def record(label: int, digest: str) -> Record:
        return Record(None, label, "train", digest)

    records = (*(record(0, f"a{n}") for n in range(9)), *(record(1, f"b{n}") for n in range(3)), record(1, "b0"))
    images = ImageSet("here", ("ants", "bees"), records)
    assert sorted(place for fold in images.folds(3, 0) for place in fold) == [*range(13)]
    text = (
        r"at most the number of different images of the smallest class, 3 \(bees\), so that every fold has one; got 4"
    )
    with pytest.raises(InputError, match=text):
        images.folds(4, 0)


def test_without_a_val_split_its_images_are_training_images_and_test_stays_sealed(pictures, images, tmp_path) -> None:
    assert {record.split for record in images.records} == {"train"}
    split = ImageSet.load(pictures)
    assert {record.digest for record in images.records} == {record.digest for record in split.records}
    assert "the images of val/ join those of train/" in images.notes
    labels = [record.label for record in images.records]
    assert labels == sorted(labels), "one order for all, wherever an image lay"

    flat = tmp_path / "flat"
    for record in split.records:
        (flat / split.classes[record.label]).mkdir(parents=True, exist_ok=True)
        name = f"{record.split}-{record.path.name}"
        (flat / split.classes[record.label] / name).write_bytes(record.path.read_bytes())
    sealed = find(flat, test=0.2)
    assert Counter(record.split for record in sealed.records).keys() == {"train", "test"}
    held = {record.digest for record in sealed.split("test")}
    assert held == {record.digest for record in find(flat, val=0.25, test=0.2).split("test")}
    pool = sealed.split("train")
    assert not held & {pool[place].digest for fold in sealed.folds(5, 0) for place in fold}


# --- training ---


def test_a_fold_is_a_training_on_the_others_validated_on_its_own(images, network, tmp_path) -> None:
    folded = trained(settings_of(memo=tmp_path / "memo"), images, network)
    assert [(m["fold"], m["epoch"]) for m in folded.history] == [(f, e) for f in (1, 2, 3) for e in (1, 2)]
    for number, held in enumerate(images.folds(FOLDS, 0)):
        records = [
            replace(record, split="val" if place in held else "train") for place, record in enumerate(images.records)
        ]
        split = ImageSet("here", images.classes, tuple(records))
        alone = trained(settings_of(folds=None), split, network)
        own = folded.history[number * EPOCHS : (number + 1) * EPOCHS]
        assert [{k: v for k, v in m.items() if k != "fold"} for m in clockless(own)] == clockless(alone.history)


@pytest.mark.parametrize("freeze_depth", [5, "all"])
def test_resumed_in_any_epoch_of_any_fold_it_ends_as_if_it_had_not_been_interrupted(
    images, network, tmp_path, freeze_depth
) -> None:
    straight = trained(settings_of(tmp_path / "straight", freeze_depth=freeze_depth), images, network)
    state = {name: value.clone() for name, value in network.model.state_dict().items()}

    interrupted = settings_of(tmp_path / "cut", memo=tmp_path / "memo", freeze_depth=freeze_depth)
    for epoch in range(FOLDS * EPOCHS):
        training = Training(interrupted, images, network)
        training.resume()
        assert len(training.history) == epoch
        training.run_epoch()
        training.save()
    again = Training(interrupted, images, network)
    again.resume()

    assert clockless(again.history) == clockless(straight.history)
    assert all(torch.equal(value, state[name]) for name, value in network.model.state_dict().items())
    assert again.image_scores() == straight.image_scores()
    cut, kept = (logits_file(tmp_path / folder, again.best_epoch) for folder in ("cut", "straight"))
    assert cut.read_bytes() == kept.read_bytes()
    again.forget_other_logits()
    assert set((tmp_path / "cut").iterdir()) == {tmp_path / "cut" / CHECKPOINT, cut}


@pytest.mark.parametrize("metric", METRICS)
def test_the_kept_logits_are_out_of_fold_and_of_the_best_epoch(images, network, tmp_path, metric) -> None:
    settings = settings_of(tmp_path / "trial", memo=tmp_path / "memo", metric=metric, lr=0.3, epochs=4)
    training = Training(settings, images, network)
    folds, labels = images.folds(FOLDS, 0), torch.tensor([record.label for record in images.records])
    said = np.full((FOLDS, settings.train.epochs, 40, 2), np.nan, np.float32)
    for _ in range(settings.epochs):
        metrics = training.run_epoch()
        fold, epoch = metrics["fold"], metrics["epoch"]
        said[fold - 1, epoch - 1, list(folds[fold - 1])] = training.predict("val")[0].numpy()
        whole = max(fold - (epoch < settings.train.epochs), 1)
        best = training.best_epoch
        kept = np.load(logits_file(tmp_path / "trial", best))
        for number, held in enumerate(folds):
            if number < whole:
                assert np.array_equal(kept[list(held)], said[number, best - 1][list(held)])
            else:
                assert np.isnan(kept[list(held)]).all()
        scores = training.image_scores()
        assert len(scores) == sum(map(len, folds[:whole]))
        if whole == 1 and epoch < settings.train.epochs:
            continue
        order = [place for held in folds[:whole] for place in held]
        expected = image_scores(torch.from_numpy(np.nan_to_num(kept)), labels, metric)[order]
        assert scores == pytest.approx(expected.tolist(), abs=1e-6)
    mean = across_folds(training.history)[training.best_epoch - 1]
    kept = torch.from_numpy(np.load(logits_file(tmp_path / "trial", training.best_epoch)))
    per_fold = [score(kept[list(fold)], labels[list(fold)]) for fold in folds]
    assert mean[metric] == pytest.approx(np.mean([one[metric.removeprefix("val_")] for one in per_fold]), rel=1e-9)


def test_with_the_memo_each_view_of_each_image_is_made_once_for_all_folds_and_trials(
    images, network, tmp_path, monkeypatch
) -> None:
    made: Counter = Counter()
    view = FrozenPass.view
    monkeypatch.setattr(
        FrozenPass, "view", lambda self, record, number: (made.update([(record.digest, number)]), view(self, record, number))[1]
    )  # fmt: skip
    trained(settings_of(memo=tmp_path / "memo"), images, network)
    trained(settings_of(memo=tmp_path / "memo", lr=0.1), images, network)
    assert made == {(record.digest, number): 1 for record in images.records for number in (0, 1, None)}


def test_what_no_image_validates_is_trained_all_the_same(images, network, tmp_path) -> None:
    """As the report does, on all images."""
    training = trained(settings_of(tmp_path / "trial", folds=None), images, network)
    for metrics in training.history:
        assert all(np.isnan(metrics[name]) for name in METRICS)
        assert np.isfinite(metrics["train_loss"])
    assert not list((tmp_path / "trial").glob("*.npy"))


# --- scores ---


@pytest.mark.parametrize("metric", ["val_accuracy", "val_balanced_accuracy", "val_loss"])
def test_the_mean_of_the_images_scores_is_the_metric(metric) -> None:
    chance = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 3, generator=chance), torch.tensor([0] * 30 + [1] * 15 + [2] * 5)
    mean = image_scores(logits, labels, metric).mean().item()
    sign = -1 if METRICS[metric] == "minimize" else 1
    assert sign * mean == pytest.approx(score(logits, labels)[metric.removeprefix("val_")], rel=1e-5)


def row(fold: int, epoch: int, accuracy: float, loss: float = 0.5) -> dict[str, float]:
    return {"fold": fold, "epoch": epoch, "val_accuracy": accuracy, "val_loss": loss}


def test_one_epoch_is_the_best_for_all_folds_by_the_mean() -> None:
    first = [row(1, 1, 0.9), row(1, 2, 0.8), row(1, 3, 0.8)]
    second = [row(2, 1, 0.5), row(2, 2, 0.8, 0.4), row(2, 3, 0.8, 0.3)]
    assert best_epoch(first[:2], "val_accuracy") == 1
    assert best_epoch(first + second[:2], "val_accuracy") == 1, "a fold that is not whole does not count"
    assert best_epoch(first + second, "val_accuracy") == 3, "of equals the one with the lower loss"
    assert [m["val_accuracy"] for m in across_folds(first + second)] == [0.7, 0.8, 0.8]
    assert [(m["epoch"], m["fold"]) for m in across_folds(first + second)] == [(1, 2), (2, 2), (3, 2)]


def test_without_folds_nothing_is_averaged() -> None:
    history = [{"epoch": 1, "val_accuracy": 0.1 + 0.2}, {"epoch": 2, "val_accuracy": 0.9}]
    assert across_folds(history) == history
    assert mean_metrics(history[:1]) is history[0]
    assert across_folds([]) == []
