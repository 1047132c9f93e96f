"""The commands' manners: one clear message and exit code 2 for a user's mistake, and nothing left behind."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.config import ResourcesConfig
from search.folder import check_is_free, create_folder, held_since, holding
from search.journal import Journal
from search.predict import main as predict
from search.progress import Progress, format_seconds
from search.report import main as report
from search.resources import share_out
from search.run import main as run
from trainable.errors import InputError


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of twelve small images."""
    generator = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = generator.integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


QUICK = ["--space", "smoke.yaml", "--set", "model.backbone=mobilenet_v3_small", "--set", "model.weights=random",
         "--set", "space.freeze_depth=all", "--set", "search.first=[]"]  # fmt: skip

MISTAKES = {
    "no such configuration": (["--space", "defualt.yaml"], "did you mean default.yaml"),
    "unknown key": ([*QUICK, "--set", "train.epoch=3"], "--set train.epoch: "),
    "reversed range": ([*QUICK, "--set", "space.lr={low: 0.1, high: 0.01}"], "the range is reversed"),
    "logarithm of zero": ([*QUICK, "--set", "space.lr={low: 0, high: 0.01, log: true}"], "--set space.lr.low"),
    "unknown metric": ([*QUICK, "--set", "search.metric=val_acuracy"], "did you mean val_accuracy"),
    "a sealed metric": ([*QUICK, "--set", "search.metric=test_accuracy"], "the test split is opened once"),
    "no such folder": ([*QUICK, "--data", "nowhere/photos"], "nowhere/photos"),
    "unknown backbone": ([*QUICK, "--set", "model.backbone=resnet81"], "got 'resnet81'. The nearest names: resnet"),
    "weights file missing": ([*QUICK, "--set", "model.weights=w.pt"], "there is no file w.pt"),
    "beyond the stages": (
        [*QUICK, "--set", "space.freeze_depth={low: 0, high: 99}"],
        "--set space.freeze_depth.high: freeze_depth must be between 0 and 14 (or all) for mobilenet_v3_small",
    ),
    "no such stage": ([*QUICK, "--set", "space.freeze_depth=layer9"], "got 'layer9'. The nearest: "),
    "batch above the images": (
        [*QUICK, "--set", "space.batch_size={choices: [8, 64]}"],
        "batch_size must be at most the number of training images",
    ),
    "more folds than images": (
        [*QUICK, "--set", "data.folds=13"],
        "data.folds must be at most the number of different images of the smallest class, 12 (cats)",
    ),
    "batch above a fold's images": (
        [*QUICK, "--set", "data.folds=3", "--set", "space.batch_size={choices: [8, 17]}"],
        "batch_size must be at most the number of training images, 16 (got 17)",
    ),
    "nothing to judge by": (
        [*QUICK, "--set", "report.retrain_on=train+val"],
        "--set report.retrain_on: train+val must have a test split to judge the model, and there is none",
    ),
    "bad first trial": (
        [*QUICK, "--set", "search.first=[{lr: 7.0}]"],
        "search.first[0]",
    ),
    "bad time budget": ([*QUICK, "--time-budget", "soon"], "--time-budget"),
    "bad name": ([*QUICK, "--name", "a/b"], "--name must be made of letters"),
    "nothing to resume": (["--resume", "nowhere"], "--resume must name the folder of a run"),
}


@pytest.mark.parametrize("arguments, message", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_message_and_exit_code_2(arguments, message, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = [] if "--data" in arguments or "--resume" in arguments else ["--data", str(photos)]
    assert run([*arguments, *data, "--out", str(tmp_path / "out"), "--plan"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_debug_shows_where(photos, tmp_path):
    with pytest.raises(InputError, match="resnet81"):
        run([*QUICK, "--data", str(photos), "--set", "model.backbone=resnet81", "--plan", "--debug"])


def test_the_plan_says_what_would_run(photos, tmp_path, capsys):
    assert run([*QUICK, "--data", str(photos), "--out", str(tmp_path / "out"), "--plan"]) == 0
    said = capsys.readouterr().out
    for text in (
        "cats, dogs",
        "train",
        "features.12",
        "share of FLOPs",
        "at a time",
        "lr",
        "4 trials of at most 2 epochs",
    ):
        assert text in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("trials, order", [("4", ["first 1", "first 2", "first 3"]), ("3", ["first 2", "first 3", "first 1"]),
                                           ("2", ["first 2", "first 1"])])  # fmt: skip
def test_where_nothing_is_left_to_the_sampler_the_longest_trials_come_first(trials, order, photos, capsys):
    depths = "search.first=[{freeze_depth: all}, {freeze_depth: 0, lr: 0.01}, {freeze_depth: 0, lr: 0.02}]"
    space = ["--set", "space.freeze_depth={low: 0, high: all}", "--set", depths, "--trials", trials]
    assert run([*QUICK, "--data", str(photos), *space, "--plan"]) == 0
    assert re.findall(r"first \d", capsys.readouterr().out) == order


@pytest.mark.parametrize(
    "sampler, depths, said",
    [
        ("tpe", "{low: 0, high: all}", "tpe, shallower freeze depths as they"),
        ("qmc", "{low: 0, high: all}", "qmc\n"),
        ("tpe", "all", "tpe\n"),
    ],
)
def test_the_plan_says_that_freeze_depths_open_little_by_little(sampler, depths, said, photos, capsys):
    order = ["--set", "search.order=deep_first", "--set", f"search.sampler={sampler}"]
    assert run([*QUICK, "--data", str(photos), *order, "--set", f"space.freeze_depth={depths}", "--plan"]) == 0
    assert f"\nsampler     {said}" in capsys.readouterr().out


def test_the_plan_says_the_folds_and_keeps_what_they_need(photos, capsys):
    assert run([*QUICK, "--data", str(photos), "--set", "data.folds=5", "--plan"]) == 0
    said = capsys.readouterr().out
    assert "\ntrain       24 images: 12 cats, 12 dogs\nval         none\n" in said
    assert "\nfolds       5 of 4–5 of the train images; a configuration runs the first, and the others while" in said
    assert "4 trials of at most 2 epochs a fold" in said
    # 1,024 numbers in bf16 or fp32 of each image, in two views to train on and one to validate.
    assert re.search(r"\n +14  yes +(144\.0|288\.0) kB  the deepest", said)


def test_a_recipe_outside_of_the_space_is_not_called_the_tutorials_own(photos, capsys):
    narrow = ["--set", "search.first=null", "--set", "space.freeze_depth={low: 5, high: all}",
              "--set", "space.batch_size={choices: [4, 8]}"]  # fmt: skip
    assert run([*QUICK, "--data", str(photos), *narrow, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "  fine-tune everything (moved into the space): freeze_depth 5" in said
    assert "  train the head only: freeze_depth 14" in said


def test_where_only_the_head_is_searched_the_recipe_for_the_head_keeps_its_name(photos, capsys):
    own = ["--set", "search.first=null", "--set", "space.batch_size={choices: [4, 8]}"]
    assert run([*QUICK, "--data", str(photos), *own, "--plan"]) == 0
    first = capsys.readouterr().out.split("first trials\n")[1].split("\n\n")[0]
    assert first.startswith("  train the head only: freeze_depth 14")
    assert len(first.splitlines()) == 1


@pytest.mark.parametrize(("out", "name"), [("file", "x"), (".", "x" * 300)], ids=["below a file", "too long a name"])
def test_an_output_that_cannot_be_written_is_told_before_the_images_are_read(photos, tmp_path, capsys, out, name):
    (tmp_path / "file").touch()
    assert run([*QUICK, "--data", str(photos), "--out", str(tmp_path / out), "--name", name]) == 2
    printed, told = capsys.readouterr()
    assert "--out must be a folder that can be written to" in told
    assert "checked" not in printed
    with pytest.raises(InputError, match="--out must be a folder that can be written to"):  # since the plan was made
        create_folder(tmp_path / out / name, None)


def test_an_output_in_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(InputError, match="--out must be a folder that can be written to.*Permission denied"):
        check_is_free(tmp_path / "deeper" / "run")
    (tmp_path / "mine").mkdir()
    check_is_free(tmp_path / "mine" / "run")


def test_a_name_that_is_taken_is_told_before_the_images_are_read(photos, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    assert run([*QUICK, "--data", str(photos), "--out", str(tmp_path), "--name", "run"]) == 2
    out, err = capsys.readouterr()
    assert f"a run must have a name of its own, and {tmp_path / 'run'} exists" in err
    assert "Traceback" not in err
    assert "checked" not in out
    with pytest.raises(InputError, match="a run must have a name of its own"):  # taken while the plan was made
        create_folder(tmp_path / "run", None)


def test_a_resumed_run_cannot_change_what_it_compares(tmp_path, capsys):
    (tmp_path / "config.yaml").touch()
    assert run(["--resume", str(tmp_path), "--epochs", "3"]) == 2
    assert "not what it compares; got train.epochs=3" in capsys.readouterr().err


def test_report_and_predict_say_what_is_missing(tmp_path, capsys):
    assert report([str(tmp_path)]) == 2
    assert "RUN must be the folder of a run, with a config.yaml in it" in capsys.readouterr().err
    assert predict([str(tmp_path / "no"), "photo.jpg"]) == 2
    assert "RUN|BUNDLE must be the folder of a run or of a model bundle" in capsys.readouterr().err
    assert predict([str(tmp_path), "photo.jpg"]) == 2
    assert "IMAGE|FOLDER must exist; there is nothing at photo.jpg" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert predict([str(tmp_path), str(tmp_path / "empty")]) == 2
    assert "a folder to classify must hold images" in capsys.readouterr().err
    (tmp_path / "photo.jpg").touch()
    assert predict([str(tmp_path), str(tmp_path / "photo.jpg")]) == 2
    assert "a model bundle is a folder with model.yaml and model.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    "resources, nodes, expected",
    [
        ({}, [{"CPU": 2}], (1, 0, 2)),
        ({}, [{"CPU": 8, "GPU": 1}], (1, 0.25, 4)),
        ({}, [{"CPU": 16, "GPU": 1}], (3, 0.25, 4)),
        ({"gpus": 1}, [{"CPU": 8, "GPU": 1}], (7, 1, 1)),
        ({"gpus": 0.1}, [{"CPU": 16, "GPU": 1}], (1, 0.1, 10)),
        ({"gpus": 0.4}, [{"CPU": 16, "GPU": 2}], (3, 0.4, 4)),
        ({"cpus": 2, "gpus": 1}, [{"CPU": 16, "GPU": 4}], (2, 1, 4)),
        ({"cpus": 0.5, "gpus": 0}, [{"CPU": 2, "GPU": 1}], (0.5, 0, 4)),
        ({"gpus": 0}, [{"CPU": 8, "GPU": 1}], (1, 0, 8)),
        ({}, [{"CPU": 2, "GPU": 1}], (1, 0.25, 2)),
        ({"gpus": 2}, [{"CPU": 9, "GPU": 4}], (4, 2, 2)),
        ({}, [{"CPU": 64}, {"CPU": 9, "GPU": 1}, {"CPU": 32, "GPU": 1}], (2, 0.25, 8)),
        ({"cpus": 3}, [{"CPU": 4}, {"CPU": 5}], (3, 0, 2)),
    ],
)
def test_resources_are_shared_out(resources, nodes, expected):
    cluster = share_out(ResourcesConfig(**resources), nodes)
    assert (cluster.cpus_per_trial, cluster.gpus_per_trial, cluster.concurrency) == expected


def test_gpus_where_there_are_none():
    with pytest.raises(InputError, match=r"resources\.gpus must be at most what the largest machine has, 0,.*got 1"):
        share_out(ResourcesConfig(gpus=1), [{"CPU": 2}])


def test_no_machine_has_what_several_have_together():
    with pytest.raises(InputError, match=r"resources\.cpus must be at most what the largest machine has, 2,.*got 4"):
        share_out(ResourcesConfig(cpus=4), [{"CPU": 2}, {"CPU": 2}])
    with pytest.raises(InputError, match=r"4 CPUs and 1 GPUs.*there are 8 CPUs \+ 0 GPUs, 2 CPUs \+ 1 GPUs"):
        share_out(ResourcesConfig(cpus=4, gpus=1), [{"CPU": 8}, {"CPU": 2, "GPU": 1}])


class Terminal:
    """A stream that says whether it is a terminal."""

    def __init__(self, tty: bool) -> None:
        self.text, self._tty = "", tty

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return self._tty


@pytest.mark.parametrize("tty", [True, False])
def test_progress(tty):
    stream = Terminal(tty)
    progress = Progress(4, "val_accuracy", 2, {"complete": 1}, stream=stream)
    progress("started", 1, {"lr": 0.01})
    progress("epoch", 1, {"epoch": 1, "val_accuracy": 0.75, "val_loss": 0.5})
    progress("epoch", 1, {"epoch": 2, "val_accuracy": 0.5, "val_loss": 0.4})
    progress.note_best(0.75, 1)
    progress("complete", 1, {})
    progress("started", 2, {"lr": 0.02})
    progress("failed", 2, {"reason": "it diverged"})
    progress.close()
    assert "trial   1 complete val_accuracy 0.7500 in epoch 1 of 2 (lr 0.01)" in stream.text
    assert "trial   2 failed   it diverged (lr 0.02)" in stream.text
    assert "3/4 trials (0 running, 0 pruned, 1 failed), best val_accuracy 0.7500 (trial 1)" in stream.text
    assert ("\r" in stream.text) is tty


def test_the_time_to_go_at_the_end_is_that_of_the_trials_that_still_run(monkeypatch):
    """A long one among many short ones: the pace of the others says nothing about it."""
    now = 0.0
    monkeypatch.setattr("search.progress.time.monotonic", lambda: now)
    progress = Progress(9, "val_accuracy", 10, {}, Terminal(False))

    def epoch(trial: int, number: int, seconds: float) -> None:
        progress("epoch", trial, {"epoch": number, "val_accuracy": 0.5, "val_loss": 0.5, "epoch_time_s": seconds})

    progress("started", 0, {})
    for number in range(1, 8):
        progress("started", number, {})
        progress("complete", number, {})
    epoch(0, 1, 2.0)
    now = 70.0
    assert "about 20s to go" in progress.line()
    progress("started", 8, {})
    assert "about 20s to go" in progress.line(), "nothing is known of the new one but how long others took"
    epoch(0, 2, 28.0)
    assert "about 2m00s to go" in progress.line()
    epoch(8, 1, 1.0)
    assert "about 2m00s to go" in progress.line()
    for number in (1, 2, 3):  # its worker was lost, and the next one tells what the checkpoint knows
        epoch(0, number, 30.0)
    assert "about 2m20s to go" in progress.line()
    progress("complete", 0, {})
    assert "about 9s to go" in progress.line()


def test_progress_over_folds():
    stream, notes = Terminal(False), []
    progress = Progress(2, "val_accuracy", 6, {}, stream, notes.append, folds=3)
    progress("started", 0, {"lr": 0.01})
    for fold, epoch, accuracy in [(1, 1, 0.5), (1, 2, 0.75), (2, 1, 0.75), (2, 2, 0.8), (3, 1, 0.0)]:
        progress("epoch", 0, {"fold": fold, "epoch": epoch, "val_accuracy": accuracy, "val_loss": 0.5})
    progress("pruned", 0, {})
    assert "trial   0 fold 2 of 3 epoch    1  val_accuracy 0.7500" in notes
    assert "trial   0 pruned   val_accuracy 0.7750 in epoch 2 of 2, fold 3 of 3 (lr 0.01)" in stream.text


@pytest.mark.parametrize("seconds, text", [(5, "5s"), (75, "1m15s"), (3700, "1h01m")])
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_the_journal_keeps_what_was_said_before_there_was_a_folder(tmp_path, capsys):
    say = Journal()
    say("data: cells")
    say.open(tmp_path / "run.log")
    say.note("only kept\non two lines")
    say("search ended")
    assert capsys.readouterr().out == "data: cells\nsearch ended\n"
    lines = [line.split("  ", 1) for line in (tmp_path / "run.log").read_text().splitlines()]
    assert [text for _, text in lines] == ["data: cells", "only kept", "on two lines", "search ended"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", time) for time, _ in lines)


def test_output_that_nobody_reads_any_more_is_no_fault_of_ours():
    command = [sys.executable, "-m", "search.run", *QUICK, "--data", "elpv", "--plan"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(120) == 141
        assert process.stderr.read() == ""


def test_a_run_that_is_at_work_is_left_alone(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("data: {source: elpv}\nmodel: {backbone: resnet18}\nspace: {lr: 0.1}\n")
    hold = f"from search.folder import holding; from pathlib import Path; import sys\nwith holding(Path({str(tmp_path)!r})):\n    print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        for command, arguments in ((run, ["--resume", str(tmp_path)]), (report, [str(tmp_path)])):
            assert command(arguments) == 2
            assert f"process {process.pid} is at work on {tmp_path}" in capsys.readouterr().err
        process.kill()
    assert report([str(tmp_path)]) == 2
    assert "has no" in capsys.readouterr().err


def test_when_the_process_at_work_on_a_run_began(tmp_path):
    for _ in range(2):
        before = time.time()
        with holding(tmp_path):
            assert held_since(tmp_path) >= before - 0.1  # clocks of files are coarser
            os.utime(tmp_path / ".lock", (0, 0))


def test_options_are_not_guessed_from_their_beginnings(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(["--space", "smoke.yaml", "--trial", "3"])
    assert stopped.value.code == 2
    assert "unrecognized arguments: --trial 3" in capsys.readouterr().err
