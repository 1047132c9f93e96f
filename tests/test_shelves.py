"""Which depths the memo keeps."""

import shutil
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import yaml

from search.byte_count import byte_count
from search.config import Config
from search.shelves import _count_views, choose_for, choose_shelves, default_budget
from search.space import Int, Parameter, Space
from trainable.blocks import BlockStore


def kept(shelves) -> list[int]:
    return sorted(shelf.depth for shelf in shelves if shelf.kept)


def test_with_room_the_views_the_deepest_and_some_between_are_kept(lite0) -> None:
    shelves = choose_shelves(lite0, range(19), 10, 1000, 4, 20 * 2**30)
    depths = kept(shelves)
    assert depths[0] == 0
    assert depths[-1] == 18
    assert 2 < len(depths) < 12


def test_what_no_trial_uses_is_not_kept(lite0) -> None:
    assert kept(choose_shelves(lite0, [18], 10, 1000, 4, 20 * 2**30)) == [18]
    assert kept(choose_shelves(lite0, [0], 10, 1000, 4, 20 * 2**30)) == [0]
    assert kept(choose_shelves(lite0, [5, 12], 10, 1000, 4, 20 * 2**30)) == [5, 12]
    assert kept(choose_shelves(lite0, [0, 18], 10, 1000, 4, 20 * 2**30)) == [0, 18]


def test_the_less_room_the_fewer_and_the_deepest_last(lite0) -> None:
    """Behind the deepest stage an image has 1,280 numbers."""
    chosen = []
    for budget in (20 * 2**30, 2 * 2**30, 200 * 2**20, 20_000 * 1280 * 2, 1000):
        shelves = choose_shelves(lite0, range(19), 30, 20_000, 2, budget)
        chosen.append(kept(shelves))
        inside = [shelf for shelf in shelves if shelf.kept]
        assert sum(shelf.bytes for shelf in inside) <= budget or len(inside) == 1
        assert all(shelf.reason for shelf in shelves)
    assert all(set(fewer) <= set(more) for more, fewer in pairwise(chosen))
    assert chosen[-1] == chosen[-2] == [18]
    assert chosen[0][0] == 0


def test_the_more_trials_the_more_depths_pay_for_their_bytes(lite0) -> None:
    chosen = [kept(choose_shelves(lite0, range(19), trials, 1000, 4, 2**40)) for trials in (1, 10, 100, 1000)]
    assert all(set(fewer) < set(more) for fewer, more in pairwise(chosen))


@pytest.mark.parametrize(
    ("search", "train", "like"),
    [
        ({"trials": 1000, "time_budget": 60}, {}, {"trials": 30}),
        ({"trials": 20, "time_budget": 60}, {}, {"trials": 20}),
        ({"trials": 1000, "target": 0.9}, {}, {"trials": 30}),
        ({"trials": 5}, {"views": 2}, {"trials": 10}),
    ],
    ids=str,
)
def test_how_often_a_view_is_asked_for(lite0, search, train, like) -> None:
    """As in a search of so many trials, without views that come again, and ended by their number."""

    def chosen(search: dict, train: dict, backbones: int) -> list[int]:
        spec = {"data": {"source": ["x"]}, "model": {"backbone": ["x"]}, "space": {"lr": {"low": 0.1, "high": 0.2}}}
        config = Config(**spec, search=search, train={"epochs": 4, "precision": "fp32", **train})
        space = Space((Parameter("freeze_depth", "freeze_depth", Int(0, 18)),))
        images = SimpleNamespace(split=lambda name: range(100), validating=lambda folds: range(0))
        return kept(choose_for(config, images, lite0, space, 2**40, backbones))

    assert chosen(search, train, 1) == chosen(like, {}, 1)
    assert {*chosen(search, train, 4)} < {*chosen(search, train, 1)}


def test_the_default_budget_is_a_share_of_the_free_disk(tmp_path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert default_budget(tmp_path / "not" / "there") == pytest.approx(min(20 * 2**30, free / 4), rel=0.05)


def test_what_the_memo_takes_counts_as_free(tmp_path, monkeypatch) -> None:
    with BlockStore(tmp_path, 2**20, 0).open("view", dict) as shelf:
        assert shelf.save(1, 0, torch.zeros(1000))
    taken = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000))
    assert default_budget(tmp_path) == int((10_000 + taken) / 4)


@pytest.mark.parametrize(
    "train, spec, views",
    [
        ({}, "", 3),
        ({"views": 2}, "", 2),
        ({"augmentation": "none"}, "", 1),
        ({}, "augmentation: {choices: [none, flip, crop]}", 1 + 3 + 3),
        ({"augmentation": "flip"}, "crop_scale: {choices: [0.1, 0.5]}", 3),
        ({}, "{augmentation: {choices: [flip, crop]}, crop_scale: {choices: [0.1, 0.5]}}", 3 + 2 * 3),
    ],
)
def test_how_many_views_are_counted(train, spec, views) -> None:
    tree = yaml.safe_load(spec) or {"lr": {"low": 0.1, "high": 0.2}}
    config = Config(data={"source": ["x"]}, model={"backbone": ["x"]}, space=tree, train={"epochs": 3, **train})
    assert _count_views(config.train, config.parameters()) == views


@pytest.mark.parametrize(
    ("text", "count"), [("200MB", 200 * 2**20), ("1.5 gb", 1.5 * 2**30), ("12B", 12), (5, 5), (None, None)]
)
def test_numbers_of_bytes(text, count) -> None:
    assert byte_count(text) == count


def test_what_is_no_number_of_bytes() -> None:
    with pytest.raises(ValueError, match=r"must be a number of bytes, such as 200MB or 20GB \(got much\)"):
        byte_count("much")
