"""What is stored changes time, never a bit of the result."""

import multiprocessing
from pathlib import Path

import pytest
import torch

import trainable.frozen
import trainable.memo
from trainable.backbone import load_backbone
from trainable.blocks import BlockStore
from trainable.frozen import CANONICAL_BATCH, FrozenPass, resolve_precision
from trainable.images import ImageSet, Record
from trainable.inventory import main
from trainable.memo import Memo
from trainable.settings import MemoSettings, TrainSettings
from trainable.shelf import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")

PRECISIONS = sorted({"fp32", resolve_precision("auto", torch.device("cpu"))})
"""Without instructions for bf16 a CPU takes minutes to compute whole networks in it: see test_exactness.py for small ones."""

DEPTHS = (0, 5, 12, 18)
KEPT = (0, 4, 12, 18)
PLENTY = 2**30
VIEWS = (None, 1)
SHUFFLED = torch.randperm(36, generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture(scope="module")
def records(cells) -> tuple[Record, ...]:
    """36: one block and a shorter one."""
    records = ImageSet.load(cells).records
    assert len(records) == len(SHUFFLED)
    assert len(records) % CANONICAL_BATCH != 0
    return records


@pytest.fixture(scope="module", params=PRECISIONS)
def frozen(request, lite0) -> FrozenPass:
    return frozen_pass(lite0, request.param)


def frozen_pass(backbone, precision: str = "fp32") -> FrozenPass:
    backbone.reset(18, seed=0)
    return FrozenPass(backbone, TrainSettings(precision=precision), 0, torch.device("cpu"))


def activations(
    frozen: FrozenPass, depth: int, folder: Path | None, records, view, order=None, budget=PLENTY, kept=KEPT
) -> torch.Tensor:
    settings = MemoSettings(folder=folder, budget=budget, kept=kept) if folder else None
    return torch.cat(list(Memo(frozen, depth, settings).activations(records, view, order)))


@pytest.fixture(scope="module")
def expected(frozen, records) -> dict[tuple[int, int | None], torch.Tensor]:
    """Of each depth and view, without a memo, in the records' order."""
    with torch.random.fork_rng():
        torch.set_num_threads(1)
        return {(d, v): activations(frozen, d, None, records, v) for d in DEPTHS for v in VIEWS}


@pytest.mark.parametrize("view", VIEWS)
def test_stored_activations_are_the_computed_ones_bit_for_bit(frozen, records, expected, tmp_path, view) -> None:
    for depth in reversed(DEPTHS):  # the deepest first: it stores, and the others find, what lies above it
        for order in (None, SHUFFLED):
            x = activations(frozen, depth, tmp_path, records, view, order)
            assert torch.equal(x, expected[depth, view] if order is None else expected[depth, view][order])
    stored = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*/*.safetensors")}
    assert len(stored) == 2 * len(KEPT)
    for depth in DEPTHS:  # warm
        assert torch.equal(activations(frozen, depth, tmp_path, records, view), expected[depth, view])
    assert stored == {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*/*.safetensors")}


def test_a_deeper_trial_goes_on_from_what_a_shallower_one_stored(frozen, records, expected, tmp_path) -> None:
    for depth in DEPTHS:
        assert torch.equal(activations(frozen, depth, tmp_path, records, 1), expected[depth, 1])


def test_the_warm_memo_does_not_read_an_image(frozen, records, expected, tmp_path, monkeypatch) -> None:
    activations(frozen, 12, tmp_path, records, 1)
    monkeypatch.setattr(trainable.frozen, "_decoded", None)
    assert torch.equal(activations(frozen, 12, tmp_path, records, 1), expected[12, 1])


def test_an_image_gives_the_same_bits_wherever_it_stands(frozen, records, expected) -> None:
    for order in (SHUFFLED, [35], [3, 35, 3], list(range(35, -1, -1))):
        x = activations(frozen, 12, None, records, None, order)
        assert torch.equal(x, expected[12, None][order])


def _fill(folder: Path, images: Path, results: Path) -> None:
    torch.set_num_threads(1)
    frozen = frozen_pass(load_backbone("tf_efficientnet_lite0", "pretrained", 2))
    torch.save(activations(frozen, 12, folder, ImageSet.load(images).records, 1, SHUFFLED), results)


def test_two_processes_may_fill_one_memo_at_once(lite0, records, cells, tmp_path) -> None:
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
    alone = activations(frozen_pass(lite0), 12, None, records, 1, SHUFFLED)
    for output in outputs:
        assert torch.equal(torch.load(output), alone)
    stored = [file.name for file in (tmp_path / "memo").glob("*/*.safetensors")]
    assert sorted(stored) == sorted(f"{depth}-{block}.safetensors" for depth in (0, 4, 12) for block in (0, 1))
    assert not list((tmp_path / "memo").rglob("*.part"))


@pytest.mark.parametrize("budget", [0, 10_000, 5_000_000, 6_000_000])
def test_without_room_for_all_of_it_the_result_is_the_same(frozen, records, expected, tmp_path, budget) -> None:
    """A block of views has 4.8 MB, the next of them 0.6 MB."""
    for _ in range(2):
        for depth in (5, 0):
            x = activations(frozen, depth, tmp_path, records, 1, SHUFFLED, budget)
            assert torch.equal(x, expected[depth, 1][SHUFFLED])
    stored = list(tmp_path.glob("*/*.safetensors"))
    assert sum(file.stat().st_size for file in stored) <= budget
    assert bool(stored) == (budget > 1_000_000)


@pytest.mark.parametrize("kept", [(), (18,), (4,), (0, 18), (12, 18)])
def test_which_depths_are_kept_changes_nothing(frozen, records, expected, tmp_path, kept) -> None:
    for depth in (18, 5, 18):
        assert torch.equal(
            activations(frozen, depth, tmp_path, records, 1, SHUFFLED, kept=kept), expected[depth, 1][SHUFFLED]
        )
    stored = {int(file.name.split("-")[0]) for file in tmp_path.glob("*/*.safetensors")}
    assert stored == set(kept)


def test_blocks_that_are_removed_between_two_epochs_are_made_again(frozen, records, expected, tmp_path) -> None:
    memo = Memo(frozen, 12, MemoSettings(folder=tmp_path, budget=PLENTY, kept=KEPT))
    for gone in ("none", "12-0", "*"):
        for file in tmp_path.glob(f"*/{gone}.safetensors"):
            file.unlink()
        assert torch.equal(torch.cat(list(memo.activations(records, 1))), expected[12, 1])
        assert len(list(tmp_path.glob("*/12-*.safetensors"))) == 2


DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "a flipped bit": lambda data: data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:],
    "another type": lambda data: (
        data.replace(b'"U8"', b'"I8"').replace(b'"F32"', b'"I32"').replace(b'"BF16"', b'"I16" ')
    ),
    "another shape": lambda data: data.replace(b'"shape":[4,', b'"shape":[2,'),
}


@pytest.mark.parametrize("depth, kept", [(12, "12-1"), (12, "0-1"), (0, "0-1")])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_block_is_made_again(frozen, records, expected, tmp_path, depth, kept, damage) -> None:
    activations(frozen, depth, tmp_path, records, 1)
    (file,) = tmp_path.glob(f"*/{kept}.safetensors")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    for other in (0, depth):  # 0 reads the views themselves
        assert torch.equal(activations(frozen, other, tmp_path, records, 1), expected[other, 1])
    assert file.read_bytes() == whole


def test_a_view_that_a_search_uses_is_not_cleared(frozen, records, tmp_path, capsys) -> None:
    settings = MemoSettings(folder=tmp_path, budget=PLENTY, kept=KEPT)
    using = Memo(frozen, 12, settings).activations(records, 1)
    next(using)
    activations(frozen, 12, tmp_path, records, None)
    assert main(["--folder", str(tmp_path), "--clear"]) == 0
    assert capsys.readouterr().out.startswith("removed 1 of 2 views, ")
    list(using)
    assert main(["--folder", str(tmp_path), "--clear"]) == 0
    assert capsys.readouterr().out.startswith("removed 1 of 1 views, ")
    assert main(["--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 0 views, 0 B\n"


def test_the_list_names_data_and_backbone(lite0, records, tmp_path, capsys) -> None:
    for precision in ("fp32", "bf16"):
        for view in VIEWS:
            activations(frozen_pass(lite0, precision), 1, tmp_path, records, view, kept=(1,))
    assert main(["--folder", str(tmp_path)]) == 0
    first, *rows = capsys.readouterr().out.splitlines()
    size = sum(file.stat().st_size for file in tmp_path.glob("*/*.safetensors"))
    assert first == f"{tmp_path}: 4 views, {size / 2**20:.1f} MB"
    assert len(rows) == 2
    for row, precision in zip(rows, ("float32", "bfloat16"), strict=True):
        assert f"tf_efficientnet_lite0  {precision}  2 views  " in row
    main(["--folder", str(tmp_path), "--clear", "--backbone", "resnet18"])
    assert capsys.readouterr().out == "removed 0 of 0 views, 0 B\n"


def test_a_disk_that_spoils_what_it_stores_costs_time_alone(frozen, records, expected, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Shelf, "load", lambda self, depth, block: None)
    assert torch.equal(activations(frozen, 12, tmp_path, records, None), expected[12, None])


def test_a_process_that_holds_a_block_and_does_not_go_on_is_not_waited_for_for_ever(
    frozen, records, expected, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(trainable.memo, "_PATIENCE_S", 0.2)
    store = BlockStore(tmp_path, PLENTY, 0)
    with store.open(frozen.key(records, None), dict) as shelf, shelf.claim(1) as mine:
        assert mine
        assert torch.equal(activations(frozen, 12, tmp_path, records, None), expected[12, None])
        assert shelf.has(12, 0)
        assert not shelf.has(12, 1)


def test_clearing_goes_on_with_a_removal_that_was_cut_off(frozen, records, tmp_path, capsys) -> None:
    activations(frozen, 12, tmp_path, records, None)
    (view,) = BlockStore(tmp_path, PLENTY, 0).views()
    view.folder.rename(tmp_path / "key.0.gone")
    assert main(["--folder", str(tmp_path), "--clear"]) == 0
    assert not list(tmp_path.rglob("*.safetensors"))
