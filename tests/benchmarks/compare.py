"""The project against a plain Ray Tune program: the same trials, side by side, from cold start to finished search.

python tests/benchmarks/compare.py DATA [--lists head deep middle full mixed] [--sample 2]

DATA holds train/ and val/ with a folder a class: the ants and bees of PyTorch's tutorial. Both sides compute in fp32,
or their frozen stages in bf16 if --precision says so, one trial a core; nothing is pruned, and both count from the
start of their process to its end. On a GPU, --cpus 4 --gpus 0.25 gives four trials at a time to both, and the plain
program's loaders workers. The project begins with an empty memo. The plain program is slow: only --sample trials of a
list, drawn at random, are run through it, and their time is scaled by the number of trials, less what starting takes; the
table says so.
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from bound import bound_seconds, images_of

HERE = Path(__file__).parent
# The plain program has nine stages; these are the same places by the names of ours.
DEPTHS = [0, "conv_stem", *(f"blocks.{i}" for i in range(7)), "all"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    names = sorted(file.stem for file in (HERE / "trials").glob("*.json"))
    parser.add_argument("--lists", nargs="+", choices=names, default=["head", "deep", "middle", "full", "mixed"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--sample", type=int, default=2, help="trials of each list that the plain program runs (2)")
    parser.add_argument("--cpus", type=int, default=1, help="of a trial (1)")
    parser.add_argument("--gpus", type=float, default=0, help="of a trial (0)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the frozen stages")
    parser.add_argument(
        "--repeat-head", type=int, default=4, help="also run the head list this often, with other seeds (4); 1: do not"
    )
    options = parser.parse_args()
    images = images_of(options.data)
    cores = len(os.sched_getaffinity(0))
    print(f"{images}\n{cores} cores, {options.epochs} epochs, {options.precision}, a trial: {options.cpus} CPU, {options.gpus} GPU\n",
          flush=True)  # fmt: skip
    print(f"{'list':<9} {'trials':>6} {'plain s':>18} {'ours s':>7} {'ratio':>6} {'warm s':>7} {'1st epoch s':>11} {'bound s':>8} {'ours/bound':>10}"
          f" {'driver MB':>9} {'trial MB':>8} {'plain trial MB':>14}", flush=True)  # fmt: skip
    head: dict[int, float] = {}
    for name in options.lists:
        trials = json.loads((HERE / "trials" / f"{name}.json").read_text())
        plain = run_plain(options, trials)
        for seeds in sorted({1, options.repeat_head}) if name == "head" else (1,):
            ours = run_ours(options, trials, seeds)
            count = len(trials) * seeds
            if name == "head":
                head[count] = ours["cold"]
            named = [{**trial, "freeze_depth": DEPTHS[trial["freeze_depth"]]} for trial in trials] * seeds
            bound = math.nan  # it is one of CPU cores
            if not options.gpus:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    bound = pool.submit(bound_seconds, images, named, options.epochs, options.precision, cores).result()
            scaled = plain["start"] + (plain["seconds"] - plain["start"]) * count / plain["trials"]
            how = f"{scaled:.0f}" + (f" ({plain['trials']} run)" if plain["trials"] < count else "")
            print(f"{name:<9} {count:>6} {how:>18} {ours['cold']:>7.1f} {scaled / ours['cold']:>6.1f} {ours['warm']:>7.1f} {ours['warm first']:>11.1f} "
                  f"{bound:>8.1f} {ours['cold'] / bound:>10.2f} {ours['driver']:>9.0f} {ours['trial']:>8.0f} "
                  f"{plain['trial']:>14.0f}", flush=True)  # fmt: skip
    if len(head) == 2:
        (few, some), (many, all_of_them) = sorted(head.items())
        each = (all_of_them - some) / (many - few)
        print(f"\nhead: T = {some - each * few:.1f} s + {each:.2f} s × trials")


def run_plain(options: argparse.Namespace, trials: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds, those before the first trial can start, the trials that were run, and the largest one's memory."""
    sample = random.Random(0).sample(trials, min(options.sample, len(trials)))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "trials.json"
        file.write_text(json.dumps(sample))
        command = [sys.executable, str(HERE / "plain_ray_tune.py"), str(options.data), str(file)]
        command += ["--epochs", str(options.epochs), "--cpus", str(options.cpus), "--gpus", str(options.gpus)]
        command += ["--precision", options.precision]
        seconds, memory, output = watch(command, scratch)
    line = json.loads(output.splitlines()[-1])
    assert not line["errors"], output
    return {
        "seconds": seconds,
        "start": line["first_trial_after_s"],
        "trials": len(sample),
        "trial": memory["trial"],
    }


def run_ours(options: argparse.Namespace, trials: list[dict[str, Any]], seeds: int) -> dict[str, float]:
    """Seconds with an empty memo, with a full one, and the driver's and the largest trial's memory, in MB."""
    first = [
        {**trial, "freeze_depth": DEPTHS[trial["freeze_depth"]], "seed": seed}
        for seed in range(seeds)
        for trial in trials
    ]
    depths = list(dict.fromkeys(trial["freeze_depth"] for trial in first))
    config = {
        "data": {"source": str(options.data)},
        "model": {"backbone": "tf_efficientnet_lite0"},
        "space": {
            "freeze_depth": {"choices": depths},
            "lr": {"low": 1e-5, "high": 1.0, "log": True},
            "step_size": {"low": 1, "high": 20},
            "batch_size": {"choices": sorted({trial["batch_size"] for trial in first})},
            "seed": {"choices": list(range(max(seeds, 2)))},
        },
        "train": {"epochs": options.epochs, "precision": options.precision},
        "search": {"trials": len(first), "pruner": "none", "first": first},
        "resources": {"cpus": options.cpus, "gpus": options.gpus},
    }
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "benchmark.yaml"
        file.write_text(yaml.safe_dump({**config, "memo": {"folder": f"{scratch}/memo"}}))
        for name in ("cold", "warm"):
            command = [sys.executable, "-m", "search.run", "--space", str(file), "--out", scratch, "--name", name]
            found[name], memory, _ = watch([*command, "--no-report"], scratch)
            found = {**memory, **found}
            found[f"{name} first"] = seconds_to_first_epoch(Path(scratch) / name / "run.log")
            table = (Path(scratch) / name / "trials.csv").read_text()
            assert table.count("COMPLETE") == len(first), table
    return found


def seconds_to_first_epoch(log: Path) -> float:
    """From Ray being up to the end of the first epoch of any trial."""
    times = {}
    for line in log.read_text().splitlines():
        when, said = line.split("  ", 1)
        name = "up" if said.startswith("running ") else "epoch" if " epoch " in said else ""
        times.setdefault(name, datetime.fromisoformat(when))
    return (times["epoch"] - times["up"]).total_seconds()


def watch(command: list[str], scratch: str) -> tuple[float, dict[str, float], str]:
    """Run a command to its end: its seconds, the peak memory (PSS, in MB) of itself and of its largest trial, and what
    it printed."""
    peak = {"driver": 0.0, "trial": 0.0}
    began = time.perf_counter()
    with open(Path(scratch) / "output", "w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, cwd=HERE.parent.parent)
        while process.poll() is None:
            peak["driver"] = max(peak["driver"], memory_of(process.pid, "Pss"))
            for pid in trials_below(process.pid):
                peak["trial"] = max(peak["trial"], memory_of(pid, "Pss"))
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                continue
        seconds = time.perf_counter() - began
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{text}")
    return seconds, peak, text


def trials_below(top: int) -> list[int]:
    """Ray's worker processes that run a trial, among the descendants of ``top``."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, queue = [], [top]
    while queue:
        below = children.get(queue.pop(), [])
        queue += below
        found += [pid for pid in below if "Trial" in _name(pid) or "train" in _name(pid)]
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def memory_of(pid: int, kind: str) -> float:
    """MB of a process: ``Pss``, the proportional set size, in which memory that processes share counts once among them;
    or ``Pss_Anon``, the part of it that no file stands behind."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:")), 0.0)


if __name__ == "__main__":
    main()
