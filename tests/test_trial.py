"""A trial as Ray drives it, but without Ray; and the command that trains one configuration here."""

import json
from pathlib import Path

import pytest
import ray

import trainable.backbone
from trainable.settings import EPOCH_METRICS
from trainable.training import CHECKPOINT, Training, logits_file
from trainable.trial import FAILURE_FILE, ImageTrial, main

pytestmark = pytest.mark.usefixtures("one_thread", "without_ray")

CLOCK = ("epoch_time_s", "images_per_s")


@pytest.fixture
def without_ray():
    """Nothing here may start it."""
    yield
    assert not ray.is_initialized()


@pytest.fixture(autouse=True)
def slow_epochs(monkeypatch):
    """Epochs so long that each is reported by itself."""
    monkeypatch.setattr(trainable.trial, "_ROUND_TRIP_S", 0)


@pytest.fixture
def config(pictures, tmp_path):
    """Makes a trial's configuration as the search hands it over, in JSON form."""

    def make(folder: str = "trial", **train) -> dict:
        settings = {
            "images": str(pictures),
            "backbone": "test_efficientnet",
            "weights": "random",
            "train": {"lr": 0.05, "batch_size": 8, "epochs": 3, "freeze_depth": 3, **train},
            "folder": str(tmp_path / folder),
        }
        return json.loads(json.dumps({"settings": settings, "resources": {"CPU": 1}}))

    return make


def trial(config: dict) -> ImageTrial:
    """As a worker makes it, but for Ray's own bookkeeping."""
    made = ImageTrial.__new__(ImageTrial)
    made.setup(config)
    return made


def steps(made: ImageTrial) -> list[dict]:
    """Until it is done."""
    results = [made.step()]
    while not results[-1]["done"]:
        results.append(made.step())
    return results


def epochs_of(results: list[dict]) -> list[dict]:
    return [epoch for result in results for epoch in result["epochs"]]


def clockless(results: list[dict]) -> list[dict]:
    return [{key: value for key, value in epoch.items() if key not in CLOCK} for epoch in epochs_of(results)]


def test_a_step_is_an_epoch_with_all_its_metrics_and_the_last_is_done(config) -> None:
    results = steps(trial(config()))
    assert [[epoch["epoch"] for epoch in result["epochs"]] for result in results] == [[1], [2], [3]]
    assert [result["done"] for result in results] == [False, False, True]
    for metrics in epochs_of(results):
        assert set(metrics) == set(EPOCH_METRICS)
        assert all(isinstance(metrics[name], (int, float)) for name in EPOCH_METRICS)
        assert all(0 <= metrics[name] <= 1 for name in EPOCH_METRICS if name.endswith(("accuracy", "f1")))


def test_quick_epochs_are_reported_together_and_are_the_same(config, monkeypatch) -> None:
    expected = clockless(steps(trial(config())))
    monkeypatch.setattr(trainable.trial, "_ROUND_TRIP_S", 60)
    (result,) = steps(trial(config("other")))
    assert len(result["epochs"]) == 3
    assert clockless([result]) == expected


def test_a_trial_leaves_its_checkpoint_and_its_logits_in_its_folder_and_nothing_else(config, tmp_path) -> None:
    trial(config(epochs=1)).step()
    assert {file.name for file in (tmp_path / "trial").iterdir()} == {CHECKPOINT, logits_file(tmp_path, 1).name}


def test_logits_of_earlier_epochs_stay_as_long_as_the_trial_may_be_stopped_there(config, tmp_path, monkeypatch) -> None:
    def kept() -> set[Path]:
        return set((tmp_path / "trial").glob("*.npy"))

    monkeypatch.setattr(Training, "best_epoch", property(lambda self: len(self.history)))  # each is the best so far
    monkeypatch.setattr(trainable.trial, "_ROUND_TRIP_S", 60)
    made = trial(config(epochs=3))
    made.step()
    assert kept() == {logits_file(tmp_path / "trial", epoch) for epoch in (1, 2, 3)}
    monkeypatch.setattr(trainable.trial, "_ROUND_TRIP_S", 0)
    again = trial(config(epochs=4))
    for _ in range(3):
        again.step()  # what the checkpoint knows: the study may stop it anywhere there
        assert len(kept()) == 3
    again.step()
    assert kept() == {logits_file(tmp_path / "trial", epoch) for epoch in (3, 4)}


def test_an_epoch_is_saved_before_it_is_reported(config, monkeypatch) -> None:
    seen = []
    save = Training.save
    monkeypatch.setattr(Training, "save", lambda self: (seen.append(len(self.history)), save(self)))
    made = trial(config())
    for number in (1, 2):
        made.step()
        assert seen == [*range(1, number + 1)]


def test_epochs_that_a_checkpoint_knows_are_told_again_and_not_trained_again(config, monkeypatch) -> None:
    first = trial(config())
    known = [first.step(), first.step()]
    trained = []
    run_epoch = Training.run_epoch
    monkeypatch.setattr(Training, "run_epoch", lambda self: (trained.append(len(self.history) + 1), run_epoch(self))[1])
    second = trial(config())
    told = [second.step(), second.step()]
    assert told == known  # to the second: they are the very same epochs
    assert trained == []
    assert second.step()["epochs"][0]["epoch"] == 3
    assert trained == [3]


def test_a_trial_that_lost_its_worker_ends_as_if_it_had_not(config) -> None:
    straight = steps(trial(config("straight")))
    made = trial(config("interrupted"))
    made.step()
    resumed = steps(trial(config("interrupted")))
    assert clockless(resumed) == clockless(straight)


def test_a_finished_trial_that_is_asked_again_is_told_to_its_end(config) -> None:
    first = steps(trial(config()))
    assert steps(trial(config())) == first


def test_an_actor_serves_the_next_trial(config) -> None:
    fresh = steps(trial(config("fresh", lr=0.01, freeze_depth="all", optimizer="adamw")))
    made = trial(config("first"))
    made.step()
    assert made.reset_config(config("second", lr=0.01, freeze_depth="all", optimizer="adamw")) is True
    assert clockless(steps(made)) == clockless(fresh)


def test_the_backbone_is_loaded_once_for_all_trials_of_a_process(config, monkeypatch) -> None:
    trainable.backbone.load_cached_backbone.cache_clear()
    loaded = []
    load = trainable.backbone.load_backbone
    monkeypatch.setattr(trainable.backbone, "load_backbone", lambda *args: (loaded.append(args), load(*args))[1])
    made = trial(config("first"))
    made.step()
    made.reset_config(config("second"))
    made.step()
    assert loaded == [("test_efficientnet", "random", 2)]


def test_ray_is_asked_for_the_shares_in_the_configuration(config) -> None:
    request = ImageTrial.default_resource_request({**config(), "resources": {"CPU": 1, "GPU": 0.25}})
    assert request.bundles == [{"CPU": 1, "GPU": 0.25}]


def test_ray_keeps_no_checkpoints_of_its_own(config, tmp_path) -> None:
    made = trial(config())
    made.step()
    assert made.save_checkpoint(str(tmp_path)) is None
    assert made.load_checkpoint(None) is None


# --- folds ---


@pytest.fixture
def folded(config, pooled, tmp_path):
    """`config` for three folds of two epochs, of all pictures."""
    pooled.save(tmp_path / "images.csv")

    def make(folder: str = "trial") -> dict:
        made = config(folder, epochs=2)
        made["settings"] |= {"images": str(tmp_path / "images.csv"), "folds": 3}
        return made

    return make


def test_with_folds_a_trial_has_the_epochs_of_all_and_scores_where_each_ends(folded) -> None:
    results = steps(trial(folded()))
    told = [(epoch["fold"], epoch["epoch"]) for epoch in epochs_of(results)]
    assert told == [(fold, epoch) for fold in (1, 2, 3) for epoch in (1, 2)]
    assert [result["done"] for result in results] == [False] * 5 + [True]
    assert [len(result.get("scores", ())) for result in results] == [0, 14, 0, 27, 0, 40]
    assert set(epochs_of(results)[0]) == {"fold", *EPOCH_METRICS}


def test_however_quick_a_report_ends_with_the_fold_as_the_trial_may(folded, monkeypatch) -> None:
    expected = clockless(steps(trial(folded("slow"))))
    monkeypatch.setattr(trainable.trial, "_ROUND_TRIP_S", 60)
    results = steps(trial(folded()))
    assert [len(result["epochs"]) for result in results] == [2, 2, 2]
    assert clockless(results) == expected


@pytest.mark.parametrize("epochs", range(1, 6))
def test_a_trial_that_lost_its_worker_in_any_fold_ends_as_if_it_had_not(folded, epochs) -> None:
    straight = steps(trial(folded("straight")))
    made = trial(folded("interrupted"))
    for _ in range(epochs):
        made.step()
    resumed = steps(trial(folded("interrupted")))
    assert clockless(resumed) == clockless(straight)
    assert resumed[-1]["scores"] == straight[-1]["scores"]
    judged = [2 * fold - 1 for fold in (1, 2, 3) if 2 * fold >= epochs]
    assert [at for at, result in enumerate(resumed) if "scores" in result] == judged, "those before were judged before"


# --- what goes wrong ---


def test_a_trial_that_raises_gives_its_reason_and_leaves_its_traceback(config, tmp_path, monkeypatch) -> None:
    def fail(self):
        raise ValueError("the reason\nand more of it")

    monkeypatch.setattr(Training, "run_epoch", fail)
    assert trial(config()).step() == {"epochs": [], "failure": "ValueError: the reason", "done": True}
    left = (tmp_path / "trial" / FAILURE_FILE).read_text()
    assert left.startswith("Traceback")
    assert left.endswith("ValueError: the reason\nand more of it\n")


def test_a_failure_in_a_later_epoch_keeps_the_earlier_ones(config, monkeypatch) -> None:
    made = trial(config())
    made.step()
    monkeypatch.setattr(Training, "run_epoch", lambda self: 1 / 0)
    assert made.step() == {"epochs": [], "failure": "ZeroDivisionError: division by zero", "done": True}
    monkeypatch.undo()
    assert clockless(steps(trial(config()))) == clockless(steps(trial(config("straight"))))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_that_diverges_is_a_failure_with_that_reason(config, optimizer) -> None:
    result = steps(trial(config(lr=1e30, optimizer=optimizer)))[-1]
    assert result["done"] is True
    assert result["failure"] in (
        "NonFiniteLossError: the training loss became nan: the learning rate is too high",
        "NonFiniteLossError: the training loss became inf: the learning rate is too high",
    )


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_an_epoch_whose_last_step_diverges_is_never_reported(config, metric) -> None:
    """With one batch the training loss is still that of the first weights; the validation loss is not a number."""
    settings = config(lr=1e38, batch_size=1000, epochs=1, freeze_depth=0)
    settings["settings"]["metric"] = metric
    (result,) = steps(trial(settings))
    assert result["epochs"] == []
    assert result["failure"].startswith("NonFiniteLossError: the validation loss became ")


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({"freeze_depth": 99}, "InputError: freeze_depth must be between 0 and "),
        ({"freeze_depth": "layer9"}, "InputError: freeze_depth must be an ordinal, all, or the name of a stage"),
    ],
)
def test_a_setting_that_the_backbone_has_no_use_for_is_a_failure(config, change, failure) -> None:
    assert trial(config(**change)).step()["failure"].startswith(failure)


def test_an_image_that_has_gone_is_a_failure(config, pictures, tmp_path) -> None:
    gone = tmp_path / "images.csv"
    lines = pictures.read_text().splitlines()
    gone.write_text("\n".join([lines[0], lines[1].replace(".png", ".gone"), *lines[2:]]))
    settings = config()
    settings["settings"]["images"] = str(gone)
    assert "have gone" in trial(settings).step()["failure"]


def test_a_trial_without_a_folder_needs_none_to_fail(config) -> None:
    settings = config(freeze_depth=99)
    settings["settings"]["folder"] = None
    assert trial(settings).step()["failure"].startswith("InputError: ")


# --- python -m trainable.trial ---


@pytest.fixture
def command(pictures):
    def run(*arguments: str, images: Path = pictures) -> int:
        common = ["--images", str(images), "--backbone", "test_efficientnet", "--weights", "random", "--threads", "1"]
        return main([*common, *arguments])

    return run


def test_the_command_trains_and_prints_its_epochs(command, capsys) -> None:
    assert command("--set", "epochs=2", "--set", "freeze_depth=all", "--set", "lr=0.01", "--set", "batch_size=8") == 0
    first, second, best = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1  train_loss ")
    assert second.startswith("epoch 2  train_loss ")
    assert [word for word in first.split() if not word[0].isdigit()] == list(EPOCH_METRICS)
    assert "lr 0.01" in first
    assert best in ("best epoch: 1", "best epoch: 2")


def test_the_command_gives_what_a_trial_gives(command, config, capsys) -> None:
    (result,) = epochs_of(steps(trial(config(epochs=1))))
    assert command("--set", "epochs=1", "--set", "freeze_depth=3", "--set", "lr=0.05", "--set", "batch_size=8") == 0
    printed = capsys.readouterr().out.splitlines()[0].split()
    given = dict(zip(printed[::2], printed[1::2], strict=True))
    assert {k: v for k, v in given.items() if k not in CLOCK} == {
        k: f"{v:.4g}" for k, v in result.items() if k not in CLOCK
    }


def test_the_command_goes_on_from_its_folder(command, tmp_path, capsys) -> None:
    options = ["--set", "freeze_depth=all", "--set", "batch_size=8", "--folder", str(tmp_path / "kept")]
    assert command("--set", "epochs=1", "--set", "views=3", *options) == 0
    capsys.readouterr()
    assert command("--set", "epochs=2", "--set", "views=3", *options) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[:-1]] == [["epoch", "2"]]


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("lr=-1", "lr: Input should be greater than 0 (got -1)"),
        ("learning_rate=1", "learning_rate: Extra inputs are not permitted (got 1)"),
        ("optimizer=adam", "optimizer: Input should be 'sgd' or 'adamw' (got 'adam')"),
        ("epochs=0.5", "epochs: Input should be a valid integer, got a number with a fractional part (got 0.5)"),
        ("lr", "lr: Input should be a valid number (got None)"),
    ],
)
def test_a_mistake_in_a_setting_is_said_and_ends_with_2(command, capsys, assignment, text) -> None:
    assert command("--set", assignment) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: --set must name settings and values that hold: {text}")
    assert "The settings: freeze_depth, lr, step_size, " in err


def test_a_setting_that_is_no_yaml_is_said_and_ends_with_2(command, capsys) -> None:
    assert command("--set", "epochs=1", "--set", "lr=[") == 2
    assert capsys.readouterr().err == "error: --set must be NAME=VALUE with a value in YAML; got epochs=1, lr=[\n"


def test_no_threads_are_refused(command, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        command("--threads", "0")
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith("error: --threads must be at least 1; got 0\n")


def test_missing_images_are_said_and_end_with_2(command, capsys, tmp_path) -> None:
    assert command(images=tmp_path / "images.csv") == 2
    assert capsys.readouterr().err == (
        f"error: --images must be the images.csv of a run; there is no file {tmp_path / 'images.csv'}\n"
    )


def test_a_table_of_something_else_is_said_and_ends_with_2(command, capsys, tmp_path) -> None:
    (tmp_path / "images.csv").write_text("a,b\n1,2\n")
    assert command(images=tmp_path / "images.csv") == 2
    assert "must have the columns split, class, path, digest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--backbone", "resnet1"], "error: the backbone must be a classifier of torchvision or timm; got 'resnet1'."),
        (["--weights", "nowhere.pt"], "error: weights must be pretrained, random, or a file with a state dict; "),
        (["--set", "freeze_depth=99"], "error: freeze_depth must be between 0 and "),
    ],
)
def test_other_mistakes_are_said_and_end_with_2(command, capsys, arguments, text) -> None:
    assert command(*arguments) == 2
    assert capsys.readouterr().err.startswith(text)


def test_training_that_diverges_is_said_and_ends_with_1(command, capsys) -> None:
    """Not the user's mistake as a misspelt name is, so neither is it 2; but no traceback either."""
    code = command("--set", "lr=1e30", "--set", "batch_size=8", "--set", "epochs=2")
    assert code == 1
    assert capsys.readouterr().err.startswith("error: the training loss became ")
