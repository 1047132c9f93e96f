"""An epoch's result depends on the settings and the images alone: not on interruptions, nor on what ran before."""

import copy
import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from trainable.backbone import Backbone, load_backbone
from trainable.checkpoint import load_checkpoint, save_checkpoint
from trainable.epoch import score
from trainable.frozen import CANONICAL_BATCH, FrozenPass
from trainable.images import ImageSet
from trainable.memo import _resident
from trainable.settings import MemoSettings, TrainSettings, TrialSettings, best_epoch
from trainable.training import CHECKPOINT, Training, logits_file

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = [(0, "sgd"), (12, "adamw"), ("all", "sgd")]
CLOCK = ("epoch_time_s", "images_per_s")


@pytest.fixture(scope="module")
def images(cells) -> ImageSet:
    return ImageSet.load(cells)


def settings_of(cells, freeze_depth=17, optimizer="sgd", folder=None, memo=None, seed=3, **train) -> TrialSettings:
    train = {"lr": 0.01, "step_size": 2, "gamma": 0.5, "batch_size": 8, "epochs": 3} | train
    return TrialSettings(
        images=cells,
        backbone="tf_efficientnet_lite0",
        train=TrainSettings(freeze_depth=freeze_depth, optimizer=optimizer, **train),
        seed=seed,
        folder=folder,
        memo=MemoSettings(folder=memo, budget=2**30, kept=(0, 4, 12, 18)) if memo else None,
    )


def results(training: Training) -> list[dict[str, float]]:
    return [{k: v for k, v in metrics.items() if k not in CLOCK} for metrics in training.history]


def state_of(training: Training) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in training.backbone.model.state_dict().items()}


def train(settings: TrialSettings, images: ImageSet, backbone, epochs: int = 3) -> Training:
    training = Training(settings, images, backbone)
    for _ in range(epochs):
        training.run_epoch()
    return training


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("freeze_depth, optimizer", CASES)
def test_a_resumed_training_equals_a_straight_one(cells, images, lite0, tmp_path, freeze_depth, optimizer) -> None:
    straight = train(settings_of(cells, freeze_depth, optimizer), images, lite0)
    expected, state, logits = results(straight), state_of(straight), straight.predict("val")[0]

    interrupted = settings_of(cells, freeze_depth, optimizer, folder=tmp_path, memo=tmp_path / "memo")
    for epoch in range(3):
        training = Training(interrupted, images, lite0)
        training.resume()
        assert len(training.history) == epoch
        training.run_epoch()
        training.save()
    again = Training(interrupted, images, lite0)
    again.resume()

    assert results(again) == expected
    assert differing(state_of(again), state) == []
    assert torch.equal(again.predict("val")[0], logits)
    again.forget_other_logits()
    kept = logits_file(tmp_path, again.best_epoch)
    assert sorted(tmp_path.iterdir()) == [tmp_path / CHECKPOINT, tmp_path / "memo", kept]


def test_a_training_does_not_depend_on_the_one_before_it(cells, images, lite0) -> None:
    first, second = settings_of(cells, 12, "adamw"), settings_of(cells, 16, label_smoothing=0.1, seed=4)
    alone = [(results(t), state_of(t)) for t in (train(s, images, lite0, 2) for s in (first, second))]
    # The other way round: each now runs behind the other; and the frozen stages are prepared anew.
    backbone = dataclasses.replace(lite0)
    turned = [(results(t), state_of(t)) for t in (train(s, images, backbone, 2) for s in (second, first))]
    for (expected, state), (got, got_state) in zip(alone, reversed(turned), strict=True):
        assert got == expected
        assert differing(got_state, state) == []
    assert alone[0][0] != alone[1][0]


def test_frozen_weights_and_statistics_stay_and_open_ones_move(cells, images, lite0) -> None:
    training = train(settings_of(cells, 12), images, lite0, 1)
    moved = set(differing(state_of(training), dict(lite0.pristine)))
    head, opened = set(lite0.state_names(18)), set(lite0.state_names(12))
    moved_of_pretrained = moved - head  # the head is drawn anew in any case
    assert moved_of_pretrained <= opened
    assert {name for name in opened - head if name.endswith("running_mean")} <= moved
    assert {name for name in opened - head if name.endswith("weight")} <= moved


def test_the_learning_rate_is_cut_every_step_size_epochs(cells, images, lite0, tmp_path) -> None:
    memo = tmp_path / "memo"
    training = train(settings_of(cells, "all", memo=memo, step_size=2, gamma=0.1, epochs=5, views=1), images, lite0, 5)
    assert [m["lr"] for m in training.history] == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001], rel=1e-12)
    assert [m["epoch"] for m in training.history] == [1, 2, 3, 4, 5]


def test_the_kept_logits_are_those_of_the_best_epoch(cells, images, lite0, tmp_path) -> None:
    settings = settings_of(cells, "all", folder=tmp_path / "trial", memo=tmp_path / "memo", lr=0.3, epochs=8, views=2)
    training, per_epoch = Training(settings, images, lite0), []
    labels = torch.tensor([record.label for record in images.split("val")])
    for _ in range(8):
        training.run_epoch()
        per_epoch.append(training.predict("val")[0].numpy())
        kept = set((tmp_path / "trial").glob("*.npy"))
        best_so_far = {best_epoch(training.history[: n + 1], training.settings.metric) for n in range(len(per_epoch))}
        assert kept == {logits_file(tmp_path / "trial", epoch) for epoch in best_so_far}
        for epoch in best_so_far:
            assert np.array_equal(np.load(logits_file(tmp_path / "trial", epoch)), per_epoch[epoch - 1])
    assert training.best_epoch < 8, "no later epoch was worse: the case shows nothing"
    best = training.history[training.best_epoch - 1]
    again = score(torch.from_numpy(np.load(logits_file(tmp_path / "trial", training.best_epoch))), labels)
    assert {f"val_{name}": value for name, value in again.items()}.items() <= best.items()


def test_a_trial_that_may_not_use_a_gpu_computes_on_the_cpu(cells, images, lite0, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    training = Training(settings_of(cells).model_copy(update={"gpu": False}), images, lite0)
    assert training.device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_numbers_with_any_number_of_threads(pictures, lite0, tmp_path) -> None:
    """So that trials which are given more CPUs find what others have stored."""

    def outcome(threads: int, memo: Path | None) -> list[dict[str, float]]:
        _resident.cache_clear()
        settings = settings_of(pictures, 12, memo=memo).model_copy(update={"threads": threads})
        return results(train(settings, ImageSet.load(pictures), lite0, 1))

    expected = outcome(1, tmp_path / "memo")
    assert outcome(3, tmp_path / "memo") == expected, "found there"
    assert len(list((tmp_path / "memo").glob("*/about.json"))) == 2, "a view to train on, and one to validate on"
    assert outcome(3, tmp_path / "other") == expected, "computed"
    assert outcome(3, None) == expected, "computed, its images read by other processes"


@pytest.mark.parametrize("damage", ["half", "empty", "text"])
def test_a_training_with_a_damaged_checkpoint_starts_anew(cells, images, lite0, tmp_path, damage) -> None:
    settings = settings_of(cells, "all", folder=tmp_path / "trial", memo=tmp_path / "memo", views=1)
    training = train(settings, images, lite0, 1)
    training.save()
    file = tmp_path / "trial" / CHECKPOINT
    whole = file.read_bytes()
    file.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "text": b"not a checkpoint\n"}[damage])
    again = Training(settings, images, lite0)
    again.resume()
    assert again.history == []
    again.run_epoch()
    assert results(again) == results(training)


@pytest.mark.parametrize(
    "metric, rows, expected",
    [
        ("val_accuracy", [(0.5, 1.0), (0.75, 2.0), (0.5, 0.1)], 2),
        ("val_accuracy", [(0.5, 1.0), (0.75, 2.0), (0.75, 1.5)], 3),  # of equals the lower loss
        ("val_accuracy", [(0.75, 1.5), (0.5, 0.1), (0.75, 1.5)], 1),  # then the first
        ("val_loss", [(0.9, 0.3), (0.1, 0.2), (0.9, 0.4)], 2),
        ("val_loss", [(0.1, 0.2), (0.9, 0.2)], 1),
    ],
)
def test_best_epoch(metric: str, rows, expected: int) -> None:
    assert best_epoch([{"val_accuracy": a, "val_loss": loss} for a, loss in rows], metric) == expected


@pytest.mark.parametrize("freeze_depth", [0, "all"])
def test_a_resumed_training_draws_the_same_dropout(pictures, tmp_path, freeze_depth) -> None:
    """mobilenet_v3_small drops a fifth of what its head gets, in place."""
    pictured, mobilenet = ImageSet.load(pictures), calibrated("mobilenet_v3_small")
    settings = settings_of(pictures, freeze_depth, epochs=2)
    straight = train(settings, pictured, mobilenet, 2)
    expected, state = results(straight), state_of(straight)

    torch.manual_seed(99)  # nothing of it may matter
    kept = settings_of(pictures, freeze_depth, epochs=2, folder=tmp_path / "trial", memo=tmp_path / "memo")
    for _ in range(2):
        training = Training(kept, pictured, mobilenet)
        training.resume()
        training.run_epoch()
        training.save()
    assert results(training) == expected
    assert differing(state_of(training), state) == []

    for module in mobilenet.stages[-1].modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert results(train(settings, pictured, mobilenet, 2)) != expected


def calibrated(name: str) -> Backbone:
    """With random weights, but with normalisation statistics that fit: else the activations of so many layers vanish."""
    backbone = load_backbone(name, "random", 2)
    height, width = backbone.preprocessing.image_size
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(20):
            backbone.model.train()(torch.randn(8, 3, height // 2, width // 2))
    return dataclasses.replace(backbone, pristine=copy.deepcopy(backbone.model.state_dict()))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "alexnet", "vit_tiny_patch16_224", "convnext_atto"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_images_activations_are_the_same_bits_wherever_it_stands_in_a_batch(name, precision, emulates_bf16) -> None:
    """Of convolutions, of matrix products and of attention: on this the sharing of activations rests."""
    backbone = load_backbone(name, "random", 2)
    size, deepest = backbone.preprocessing.image_size, backbone.depth("all")
    if precision == "bf16" and emulates_bf16:  # for which a CPU takes long
        if name.startswith("vit"):  # it takes no other views, and its blocks are alike
            deepest //= 3
        else:
            size = (96, 96)
    backbone.reset(deepest, 0)
    frozen = FrozenPass(backbone, TrainSettings(precision=precision), 0, torch.device("cpu"))
    chance = torch.Generator().manual_seed(0)
    views = torch.randint(256, (CANONICAL_BATCH, 3, *size), generator=chance).byte()
    mixed = torch.randint(256, views.shape, generator=chance).byte()
    shuffled = torch.randperm(CANONICAL_BATCH, generator=chance)[1::2]
    mixed[1::2] = views[shuffled]
    expected = frozen.run(views, 0, deepest)
    assert torch.equal(frozen.run(mixed, 0, deepest)[1::2], expected[shuffled])
    assert torch.equal(frozen.run(views[5:8], 0, deepest), expected[5:8])


def test_the_batch_size_changes_training_but_not_what_the_frozen_stages_give(pictures, tmp_path) -> None:
    pictured, mobilenet = ImageSet.load(pictures), calibrated("mobilenet_v3_small")
    runs = []
    for batch_size in (5, 24):
        _resident.cache_clear()  # else a GPU would have the second one's activations from the first
        folder = tmp_path / str(batch_size)
        settings = settings_of(pictures, "all", batch_size=batch_size, epochs=1, memo=folder)
        runs.append((results(train(settings, pictured, mobilenet, 1)), contents(folder)))
    (few, stored), (many, stored_too) = runs
    assert few != many
    assert stored
    assert stored == stored_too


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.safetensors")}


def test_a_checkpoint_damaged_anywhere_is_none_or_loads_but_never_raises(tmp_path) -> None:
    file, chance = tmp_path / CHECKPOINT, random.Random(0)
    layer = torch.nn.Linear(5, 3)
    save_checkpoint({"history": [{"epoch": 1, "lr": 0.1}], "model": dict(layer.state_dict())}, file)
    whole = file.read_bytes()
    for _ in range(500):
        place, damaged = chance.randrange(len(whole)), bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        load_checkpoint(file)
        file.write_bytes(whole[:place])
        assert load_checkpoint(file) is None
    file.unlink()
    assert load_checkpoint(file) is None
