"""Many images and little room: whether the memo stays within its budget, and a trial's memory does not grow.

python tests/benchmarks/large.py [--images 2000 20000] [--budget 200MB]

Draws so many pictures, searches three configurations of two epochs with a memo that cannot hold their activations, and
prints the most that the memo held, and the most anonymous memory (what a process cannot share or give back) of a trial
in the first and in the last third of the search.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from compare import HERE, memory_of, trials_below
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--budget", default="200MB")
    options = parser.parse_args()
    print(
        f"{'images':>7} {'seconds':>8} {'memo MB, most':>14} {'trial MB, first third':>22} {'last third':>11}",
        flush=True,
    )
    for count in options.images:
        with tempfile.TemporaryDirectory() as scratch:
            draw_images(Path(scratch) / "images", count)
            seconds, memo, trial = search(Path(scratch), options.budget)
        third = max(len(trial) // 3, 1)
        print(
            f"{count:>7,} {seconds:>8.0f} {max(memo):>14.1f} {max(trial[:third]):>22.0f} {max(trial[-third:]):>11.0f}",
            flush=True,
        )


def draw_images(folder: Path, count: int) -> None:
    """Bright discs and squares on noise, 64 × 64 pixels."""
    chance = random.Random(0)
    y, x = np.mgrid[:64, :64]
    for number in range(count):
        name = ("disc", "square")[number % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = np.frombuffer(chance.randbytes(64 * 64 * 3), np.uint8).reshape(64, 64, 3) // 3
        away = abs(y - chance.randint(15, 48)), abs(x - chance.randint(15, 48))
        inside = np.hypot(*away) < 14 if name == "disc" else np.maximum(*away) < 12
        Image.fromarray(np.where(inside[..., None], pixels + 150, pixels).astype(np.uint8)).save(
            folder / name / f"{number}.jpg"
        )


def search(scratch: Path, budget: str) -> tuple[float, list[float], list[float]]:
    """Seconds; and of every second, the memo's size and the largest trial's anonymous memory, in MB."""
    config = {
        "data": {"source": str(scratch / "images")},
        "model": {"backbone": "mobilenet_v3_small", "weights": "random"},
        "space": {"freeze_depth": {"choices": ["all", "features.9"]}, "lr": {"low": 0.001, "high": 0.1, "log": True}},
        "train": {"epochs": 2, "batch_size": 32},
        "search": {"trials": 3, "pruner": "none"},
        "memo": {"folder": str(scratch / "memo"), "budget": budget},
    }
    (scratch / "large.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "search.run", "--space", str(scratch / "large.yaml"), "--out", str(scratch)]
    memo, trial = [0.0], [0.0]
    began = time.perf_counter()
    with open(scratch / "output", "w+") as output:
        process = subprocess.Popen(
            [*command, "--no-report"], stdout=output, stderr=subprocess.STDOUT, cwd=HERE.parent.parent
        )
        while process.poll() is None:
            memo.append(size_of(scratch / "memo"))
            found = [memory_of(pid, "Pss_Anon") for pid in trials_below(process.pid)]
            trial += [max(found)] if found else []
            time.sleep(1)
        output.seek(0)
        text = output.read()
    if process.returncode or "complete" not in text:
        raise SystemExit(text)
    return time.perf_counter() - began, memo, trial


def size_of(folder: Path) -> float:
    """MB of files, each counted once though it be renamed meanwhile."""
    sizes = {}
    for file in folder.rglob("*"):
        try:
            stat = file.stat()
        except FileNotFoundError:
            continue
        if file.suffix in (".safetensors", ".part"):
            sizes[stat.st_ino] = stat.st_size
    return sum(sizes.values()) / 2**20


if __name__ == "__main__":
    main()
