"""Two trials that need the same cold view: how long one takes for it alone, and how long two take together.

python tests/benchmarks/sharing.py DATA

DATA holds train/ and val/ with a folder a class. Every process has one thread; on two cores, two should take half as
long as one, since each computes the blocks that the other does not.
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bound import images_of

from trainable.allocator import keep_freed_memory
from trainable.backbone import load_backbone
from trainable.frozen import FrozenPass
from trainable.memo import Memo
from trainable.settings import MemoSettings, TrainSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    images = images_of(options.data)
    for precision in ("fp32", "bf16"):
        times = {count: [run(images, precision, count) for _ in range(options.repeats)] for count in (1, 2)}
        one, two = (sorted(times[count])[options.repeats // 2] for count in (1, 2))
        print(f"{precision}: one {one:.1f} s, two {two:.1f} s, ratio {two / one:.2f}", flush=True)


def run(images: Any, precision: str, count: int) -> float:
    """Seconds until so many processes have the first view of all training images, from an empty memo."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count + 1)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=read_a_view, args=(images, precision, Path(folder), barrier)) for _ in range(count)
        ]
        for process in processes:
            process.start()
        barrier.wait()
        began = time.perf_counter()
        barrier.wait()
        seconds = time.perf_counter() - began
        for process in processes:
            process.join()
    return seconds


def read_a_view(images: Any, precision: str, folder: Path, barrier: Any) -> None:
    """What an epoch of a trial that trains the head does first."""
    torch.set_num_threads(1)
    keep_freed_memory()
    backbone = load_backbone("tf_efficientnet_lite0", "pretrained", 2)
    depth = backbone.depth("all")
    backbone.reset(depth, 0)
    frozen = FrozenPass(backbone, TrainSettings(precision=precision), 0, torch.device("cpu"))
    frozen.run(torch.zeros(1, 3, 224, 224, dtype=torch.uint8), 0, depth)  # compiles kernels
    memo = Memo(frozen, depth, MemoSettings(folder=folder, budget=2**32, kept=(0, 5, depth)))
    barrier.wait()
    for _ in memo.activations(images.split("train"), 0):
        pass
    barrier.wait()


if __name__ == "__main__":
    main()
