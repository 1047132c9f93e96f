"""Views kept on a GPU. A CPU is given the room of one here: only where the numbers lie differs."""

import pytest
import torch

import trainable.resident
from trainable.frozen import FrozenPass
from trainable.images import ImageSet
from trainable.memo import Memo, _resident
from trainable.resident import Resident
from trainable.settings import MemoSettings, TrainSettings

CPU = torch.device("cpu")


@pytest.fixture
def room(monkeypatch):
    """Sets the bytes that views may take."""
    _resident.cache_clear()
    yield lambda count: monkeypatch.setattr(trainable.resident, "_room_on", lambda device: count)
    _resident.cache_clear()


def blocks(value: float, images: int = 4) -> list[torch.Tensor]:
    return [torch.full((1, 2), float(value)) for _ in range(images)]  # 8 bytes each


def test_a_view_is_its_blocks_one_behind_the_other(room) -> None:
    room(100)
    whole = Resident(CPU).put("a", [torch.zeros(2, 3), torch.ones(1, 3)])
    assert torch.equal(whole, torch.tensor([[0.0] * 3, [0.0] * 3, [1.0] * 3]))


def test_what_was_put_there_is_there(room) -> None:
    room(100)
    resident = Resident(CPU)
    assert resident.get("a") is None
    whole = resident.put("a", blocks(1))
    assert resident.get("a") is whole


def test_the_least_recently_used_goes(room) -> None:
    room(64)
    resident = Resident(CPU)
    resident.put("a", blocks(1))
    resident.put("b", blocks(2))
    resident.get("a")
    resident.put("c", blocks(3))
    assert [resident.get(key) is not None for key in "abc"] == [True, False, True]


def test_one_view_may_push_out_several(room) -> None:
    room(64)
    resident = Resident(CPU)
    resident.put("a", blocks(1))
    resident.put("b", blocks(2))
    resident.put("c", blocks(3, images=8))
    assert [resident.get(key) is not None for key in "abc"] == [False, False, True]
    resident.put("d", blocks(4))
    assert resident.get("c") is None, "what was given back is counted"


def test_what_is_too_large_pushes_nothing_out(room) -> None:
    room(64)
    resident = Resident(CPU)
    resident.put("a", blocks(1))
    assert resident.put("b", blocks(2, images=9)) is None
    assert resident.get("a") is not None


@pytest.mark.parametrize("given", [[], [None], [torch.zeros(1, 2), None]])
def test_half_a_view_is_not_kept(room, given) -> None:
    room(100)
    assert Resident(CPU).put("a", given) is None


def test_a_cpu_keeps_none() -> None:
    assert Resident(CPU).put("a", blocks(1)) is None


@pytest.mark.parametrize("depth", ["all", 10, 0])
def test_activations_are_the_same_bit_for_bit(room, one_thread, pictures, lite0, tmp_path, depth) -> None:
    records = ImageSet.load(pictures).split("train")
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(1)).tolist()
    frozen = FrozenPass(lite0, TrainSettings(augmentation="crop", precision="auto"), 0, CPU)

    def given() -> list[torch.Tensor]:
        memo = Memo(frozen, lite0.depth(depth), MemoSettings(folder=tmp_path, budget=2**30, kept=(0, 6, 18)))
        return [x for view in (0, None) for x in memo.activations(records, view, order)]

    expected = given()
    _resident.cache_clear()
    room(2**30)
    for _ in range(2):  # put there, and found there
        found = given()
        assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(expected, found, strict=True))
    assert len(_resident(CPU)._views) == 2
