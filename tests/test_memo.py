"""What is stored changes time, never a bit of the result."""

import multiprocessing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import trainable.memo
from trainable.backbone import load_backbone
from trainable.images import ImageSet, Record
from trainable.memo import CANONICAL_BATCH, FrozenPass, Memo, kept_depths
from trainable.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")

DEPTHS = (0, 5, 12, 18)
VIEWS = (None, 1)
SHUFFLED = torch.randperm(36, generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture(scope="module")
def records(cells) -> tuple[Record, ...]:
    """36: one block and a shorter one."""
    records = ImageSet.load(cells).records
    assert len(records) == len(SHUFFLED)
    assert len(records) % CANONICAL_BATCH != 0
    return records


@pytest.fixture
def frozen(lite0) -> FrozenPass:
    return frozen_pass(lite0)


def frozen_pass(backbone) -> FrozenPass:
    backbone.reset(18, seed=0)
    return FrozenPass(backbone, TrainSettings(), 0, torch.device("cpu"))


def activations(frozen: FrozenPass, depth: int, folder: Path | None, records, view, order=None) -> torch.Tensor:
    return torch.cat(list(Memo(frozen, depth, folder).activations(records, view, order)))


@pytest.fixture(scope="module")
def expected(lite0, records) -> dict[tuple[int, int | None], torch.Tensor]:
    """Of each depth and view, without a memo, in the records' order."""
    return {(d, v): activations(frozen_pass(lite0), d, None, records, v) for d in DEPTHS for v in VIEWS}


@pytest.mark.parametrize("view", VIEWS)
def test_stored_activations_are_the_computed_ones_bit_for_bit(frozen, records, expected, tmp_path, view) -> None:
    for depth in reversed(DEPTHS):  # the deepest first: it stores, and the others find, what lies above it
        for order in (None, SHUFFLED):
            x = activations(frozen, depth, tmp_path, records, view, order)
            assert torch.equal(x, expected[depth, view] if order is None else expected[depth, view][order])
    stored = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*/*.safetensors")}
    assert len(stored) == 2 * len(kept_depths(frozen.backbone))
    for depth in DEPTHS:  # warm
        assert torch.equal(activations(frozen, depth, tmp_path, records, view), expected[depth, view])
    assert stored == {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*/*.safetensors")}


def test_a_deeper_trial_goes_on_from_what_a_shallower_one_stored(frozen, records, expected, tmp_path) -> None:
    for depth in DEPTHS:
        assert torch.equal(activations(frozen, depth, tmp_path, records, 1), expected[depth, 1])


def test_the_warm_memo_does_not_read_an_image(frozen, records, expected, tmp_path, monkeypatch) -> None:
    activations(frozen, 12, tmp_path, records, 1)
    monkeypatch.setattr(trainable.memo, "read_image", None)
    assert torch.equal(activations(frozen, 12, tmp_path, records, 1), expected[12, 1])


def test_an_image_gives_the_same_bits_wherever_it_stands(frozen, records, expected) -> None:
    for order in (SHUFFLED, [35], [3, 35, 3], list(range(35, -1, -1))):
        x = activations(frozen, 12, None, records, None, order)
        assert torch.equal(x, expected[12, None][order])


def _fill(folder: Path, images: Path, results: Path) -> None:
    torch.set_num_threads(1)
    frozen = frozen_pass(load_backbone("tf_efficientnet_lite0", "pretrained", 2))
    torch.save(activations(frozen, 12, folder, ImageSet.load(images).records, 1, SHUFFLED), results)


def test_two_processes_may_fill_one_memo_at_once(lite0, cells, expected, tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    outputs = [tmp_path / f"{number}.pt" for number in range(2)]
    children = [context.Process(target=_fill, args=(tmp_path / "memo", cells, output)) for output in outputs]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join(120)
    finally:
        for child in children:
            child.kill()
    for output in outputs:
        assert torch.equal(torch.load(output), expected[12, 1][SHUFFLED])
    stored = [file.name for file in (tmp_path / "memo").glob("*/*") if file.suffix != ".lock"]
    shelves = [depth for depth in kept_depths(lite0) if depth <= 12]
    assert sorted(stored) == sorted(f"{depth}-{block}.safetensors" for depth in shelves for block in (0, 1))


def test_without_room_nothing_is_stored_and_all_is_the_same(frozen, records, expected, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trainable.memo, "BUDGET_BYTES", 0)
    assert torch.equal(activations(frozen, 5, tmp_path, records, 1, SHUFFLED), expected[5, 1][SHUFFLED])
    assert list(tmp_path.rglob("*")) == []


def test_room_that_runs_out_half_way_gives_the_same(frozen, records, expected, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trainable.memo, "BUDGET_BYTES", 1)  # room until the first block is there
    assert torch.equal(activations(frozen, 5, tmp_path, records, 1), expected[5, 1])
    assert [file.name for file in tmp_path.glob("*/*.safetensors")] == ["0-0.safetensors"]


@pytest.mark.parametrize("depth, kept", [(12, "12-1"), (12, "0-1"), (0, "0-0")])
def test_a_damaged_block_is_made_again(frozen, records, expected, tmp_path, depth, kept) -> None:
    activations(frozen, depth, tmp_path, records, 1)
    (file,) = tmp_path.glob(f"*/{kept}.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    for other in (0, depth):  # 0 reads the views themselves
        assert torch.equal(activations(frozen, other, tmp_path, records, 1), expected[other, 1])
    assert file.read_bytes() == whole


def test_whatever_decides_the_bits_has_blocks_of_its_own(frozen, records) -> None:
    other = records[0].__class__(records[0].path, records[0].label, records[0].split, "0" * 64)
    keys = [frozen.key(records, view) for view in (None, 0, 1)]
    keys += [replace(frozen, seed=1).key(records, 0)]
    keys += [
        replace(frozen, train=TrainSettings(**change)).key(records, 0)
        for change in ({"augmentation": "flip"}, {"augmentation": "none"}, {"crop_scale": 0.5})
    ]
    keys += [frozen.key(records[:-1], 0), frozen.key((*records[1:], records[0]), 0), frozen.key((other,), 0)]
    assert len(set(keys)) == len(keys)


def test_what_does_not_decide_the_bits_shares_blocks(frozen, records) -> None:
    alike = replace(frozen, train=TrainSettings(lr=1.0, batch_size=64, freeze_depth=3, epochs=2, views=1))
    assert alike.key(records, 0) == frozen.key(records, 0)
    # Validation does not depend on the seed or on the augmentation.
    assert replace(frozen, seed=1, train=TrainSettings(augmentation="none")).key(records, None) == frozen.key(
        records, None
    )


def test_other_weights_have_blocks_of_their_own_and_another_head_has_not(frozen, records) -> None:
    random = load_backbone("tf_efficientnet_lite0", "random", 2)
    assert replace(frozen, backbone=random).key(records, 0) != frozen.key(records, 0)
    assert load_backbone("tf_efficientnet_lite0", "pretrained", 5).digest == frozen.backbone.digest


def test_the_kept_depths_are_the_views_the_deepest_and_some_between(lite0) -> None:
    kept = kept_depths(lite0)
    assert kept[0] == 0
    assert kept[-1] == len(lite0.stages) - 1
    assert all(one < next_one for one, next_one in pairwise(kept))
    assert 2 < len(kept) < len(lite0.stages)
