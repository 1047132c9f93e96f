"""The study: one contract for every sampler and pruner; no Ray."""

import json
import threading
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.config import PrunerConfig, SamplerConfig, SearchConfig
from search.executor import Execution
from search.method import PrunerConfig as Pruner
from search.space import Categorical, Float, Int, Parameter, Space
from search.study import TIE_BREAK, FirstTrial, Study, open_study, ranked_value, real_trials
from trainable.errors import InputError

EPOCHS = 5
SPACE = Space((Parameter("freeze_depth", "freeze_depth", Int(0, 9)), Parameter("lr", "lr", Float(1e-4, 0.1, log=True))))
CHOICES = Space((Parameter("freeze_depth", "freeze_depth", Int(0, 3)),
                 Parameter("batch_size", "batch_size", Categorical((4, 8)))))  # fmt: skip


def metrics(epoch: int, accuracy: float, loss: float = 0.5) -> dict[str, float]:
    return {
        "epoch": epoch, "train_loss": 1.0, "train_accuracy": accuracy, "val_loss": loss, "val_accuracy": accuracy,
        "val_balanced_accuracy": accuracy, "val_macro_f1": accuracy, "lr": 0.1, "epoch_time_s": 1.0,
        "images_per_s": 10.0,
    }  # fmt: skip


def new_study(
    folder: Path, search: SearchConfig, space: Space = SPACE, first: tuple = (), resume: bool = False
) -> Study:
    storage = f"sqlite:///{folder / 'study.db'}"
    return Study(open_study(storage, "search", search.metric, resume=resume), space, search, first)


def accuracy_of(values: dict, epoch: int) -> float:
    """Deeper freezing is better, every epoch a little."""
    return values["freeze_depth"] / 20 + epoch / 100


def run(study: Study, stop_after: int | None = None) -> list[int]:
    """Run the study's trials on a made-up objective; the numbers of the trials in the order they were asked."""
    numbers = []
    while (stop_after is None or len(numbers) < stop_after) and (proposal := study.ask()) is not None:
        numbers.append(proposal.number)
        for epoch in range(proposal.epochs_done + 1, EPOCHS + 1):
            if study.report(proposal.number, metrics(epoch, accuracy_of(proposal.values, epoch))):
                study.prune(proposal.number, "pruned")
                break
        else:
            study.complete(proposal.number)
    return numbers


@pytest.mark.parametrize("pruner", list(Pruner.OPTIONS))
@pytest.mark.parametrize("sampler", list(SamplerConfig.OPTIONS))
def test_every_sampler_with_every_pruner(tmp_path, sampler, pruner):
    search = SearchConfig(trials=9, sampler=SamplerConfig(name=sampler), pruner=PrunerConfig(name=pruner))
    study = new_study(tmp_path, search)
    assert len(run(study)) == 9
    trials = study.study.trials
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({json.dumps(t.params, sort_keys=True) for t in trials}) == 9
    for trial in trials:
        assert list(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))
        if trial.state == TrialState.COMPLETE:
            assert len(trial.intermediate_values) == EPOCHS
            assert trial.value == pytest.approx(accuracy_of(trial.params, EPOCHS), abs=2 * TIE_BREAK)
    if pruner == "none":
        assert all(t.state == TrialState.COMPLETE for t in trials)
    assert study.ask() is None


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "cmaes", "qmc", "grid"])
def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path, sampler):
    search = SearchConfig(trials=14, sampler=SamplerConfig(name=sampler), pruner=PrunerConfig(name="none"), seed=7)
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    straight.mkdir(), cut.mkdir()
    whole = new_study(straight, search)
    run(whole)
    run(new_study(cut, search), stop_after=12)
    resumed = new_study(cut, search, resume=True)
    run(resumed)
    assert [t.params for t in resumed.study.trials] == [t.params for t in whole.study.trials]


def test_another_seed_gives_other_configurations(tmp_path):
    found = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        study = new_study(folder, SearchConfig(trials=3, seed=seed))
        run(study)
        found.append([t.params for t in study.study.trials])
    assert found[0] != found[1]


def test_pruned_trials_keep_every_epoch_and_the_reason(tmp_path):
    search = SearchConfig(
        trials=12, pruner=PrunerConfig(name="successive_halving"), sampler=SamplerConfig(name="random")
    )
    study = new_study(tmp_path, search)
    run(study)
    pruned = [t for t in study.study.trials if t.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert 1 <= len(trial.intermediate_values) < EPOCHS
        assert trial.user_attrs["reason"] == "pruned"
        assert [v["epoch"] for k, v in sorted(trial.user_attrs.items()) if k.startswith("epoch:")] == list(
            trial.intermediate_values
        )


def test_first_trials_come_first_and_run_in_full(tmp_path):
    first = (FirstTrial("good", {"freeze_depth": 9, "lr": 0.01}), FirstTrial("bad", {"freeze_depth": 0, "lr": 0.001}))
    study = new_study(tmp_path, SearchConfig(trials=6), first=first)
    run(study)
    trials = study.study.trials
    assert [t.params for t in trials[:2]] == [dict(f.values) for f in first]
    assert [t.user_attrs.get("first") for t in trials[:3]] == ["good", "bad", None]
    assert all(t.state == TrialState.COMPLETE for t in trials[:2])


def test_the_best_trial_is_optunas_and_ties_go_to_the_lower_loss(tmp_path):
    study = new_study(tmp_path, SearchConfig(trials=3, pruner=PrunerConfig(name="none")))
    for loss in (0.6, 0.2, 0.4):
        number = study.ask().number
        study.report(number, metrics(1, 0.9, loss))
        study.complete(number)
    assert study.study.best_trial.number == 1 == study.best().number
    rows, _ = study.tables()
    assert [row["val_accuracy"] for row in rows] == [0.9] * 3
    assert [row["value"] for row in rows] == [t.value for t in study.study.trials]


def test_the_value_is_the_best_epochs(tmp_path):
    study = new_study(tmp_path, SearchConfig(trials=1))
    number = study.ask().number
    for epoch, (accuracy, loss) in enumerate([(0.5, 0.9), (0.8, 0.4), (0.8, 0.3), (0.7, 0.1)], 1):
        study.report(number, metrics(epoch, accuracy, loss))
    study.complete(number)
    rows, curves = study.tables()
    assert rows[0]["best_epoch"] == 3
    assert rows[0]["val_loss"] == 0.3
    assert study.study.best_value == ranked_value(metrics(3, 0.8, 0.3), "val_accuracy")
    assert [row["epoch"] for row in curves] == [1, 2, 3, 4]


def test_a_loss_can_be_minimised(tmp_path):
    study = new_study(tmp_path, SearchConfig(trials=2, metric="val_loss", pruner=PrunerConfig(name="none")))
    for loss in (0.6, 0.2):
        number = study.ask().number
        study.report(number, metrics(1, 0.9, loss))
        study.complete(number)
    assert study.study.best_trial.number == 1


def test_a_finite_space_is_tried_whole_once_each_and_then_the_search_ends(tmp_path):
    study = new_study(tmp_path, SearchConfig(trials=50, sampler=SamplerConfig(name="tpe")), CHOICES)
    assert len(run(study)) == 8
    assert study.exhausted
    trained = real_trials(study.study)
    assert len({json.dumps(t.params, sort_keys=True) for t in trained}) == len(trained) == 8
    for trial in study.study.trials:
        if trial not in trained:
            assert trial.state == TrialState.FAIL
            assert "duplicate_of" in trial.user_attrs
    assert len(study.tables()[0]) == 8


def test_a_grid_visits_every_point(tmp_path):
    search = SearchConfig(trials=50, sampler=SamplerConfig(name="grid"), pruner=PrunerConfig(name="none"))
    study = new_study(tmp_path, search, CHOICES)
    assert len(run(study)) == 8
    assert study.exhausted


def test_an_interrupted_trial_goes_on_under_its_number(tmp_path):
    search = SearchConfig(trials=4, pruner=PrunerConfig(name="none"))
    before = new_study(tmp_path, search)
    run(before, stop_after=1)
    left = before.ask()
    before.report(left.number, metrics(1, 0.5))
    after = new_study(tmp_path, search, resume=True)
    again = after.ask()
    assert (again.number, again.epochs_done, dict(again.values)) == (left.number, 1, dict(left.values))
    assert not after.report(again.number, metrics(1, 0.9)), "an epoch that is known is not recorded again"
    for epoch in range(2, EPOCHS + 1):
        after.report(again.number, metrics(epoch, 0.6))
    after.complete(again.number)
    run(after)
    assert [t.state for t in after.study.trials] == [TrialState.COMPLETE] * 4
    assert after.study.trials[left.number].intermediate_values[1] == pytest.approx(0.5)


def test_a_crash_between_queueing_and_asking_loses_nothing(tmp_path):
    first = (FirstTrial("one", {"freeze_depth": 9, "lr": 0.01}),)
    search = SearchConfig(trials=3)
    before = new_study(tmp_path, search, first=first)
    before._enqueue({})
    after = new_study(tmp_path, search, first=first, resume=True)
    run(after)
    trials = after.study.trials
    assert len(trials) == 3
    assert trials[0].params == {"freeze_depth": 9, "lr": 0.01}
    assert [t.user_attrs.get("first") for t in trials] == ["one", None, None]


def test_a_failed_trial_is_a_row_with_its_reason(tmp_path):
    study = new_study(tmp_path, SearchConfig(trials=2))
    study.fail(study.ask().number, "NonFiniteLossError: the training loss became nan")
    run(study)
    rows, _ = study.tables()
    assert (rows[0]["state"], rows[0]["reason"]) == ("FAIL", "NonFiniteLossError: the training loss became nan")
    assert rows[1]["state"] == "COMPLETE"


def test_storage_that_cannot_be_had(tmp_path):
    with pytest.raises(InputError, match=r"search\.storage must be a database that Optuna can open; got nonsense://x"):
        open_study("nonsense://x", "search", "val_accuracy", resume=False)
    open_study(f"sqlite:///{tmp_path}/s.db", "one", "val_accuracy", resume=False)
    with pytest.raises(InputError, match="already holds one named 'one'"):
        open_study(f"sqlite:///{tmp_path}/s.db", "one", "val_accuracy", resume=False)
    assert open_study(f"sqlite:///{tmp_path}/s.db", "one", "val_accuracy", resume=True).trials == []
    optuna.load_study(study_name="one", storage=f"sqlite:///{tmp_path}/s.db")


def test_a_reader_may_open_the_study_while_it_is_created(tmp_path):
    """Through Optuna, which creates the tables that it does not find."""
    for attempt in range(5):
        file = tmp_path / f"{attempt}.db"
        seen = []

        def read(file=file, seen=seen):
            while not file.exists():
                pass
            seen.append(optuna.load_study(study_name="search", storage=f"sqlite:///{file}").trials)

        reader = threading.Thread(target=read)
        reader.start()
        study = open_study(f"sqlite:///{file}", "search", "val_accuracy", resume=False)
        reader.join(30)
        assert seen == [[]]
        assert study.trials == []
        assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    "better, depths",
    [("deep", [18, 16, 14, 12]), ("shallow", [18, 16, 14, 12, 10, 8, 6, 4, 2, 0])],
)
def test_deep_first_opens_stages_as_long_as_that_pays(tmp_path, better, depths):
    space = Space((Parameter("freeze_depth", "freeze_depth", Int(0, 18)), Parameter("lr", "lr", Float(1e-4, 0.1))))
    search = SearchConfig(trials=12, order="deep_first", pruner=PrunerConfig(name="none"))
    study = new_study(tmp_path, search, space)
    while (proposal := study.ask()) is not None:
        sign = 1 if better == "deep" else -1
        study.report(proposal.number, metrics(1, 0.5 + sign * proposal.values["freeze_depth"] / 100))
        study.complete(proposal.number)
    swept = [t for t in study.study.trials if "deep_first" in t.user_attrs]
    assert [t.params["freeze_depth"] for t in swept] == depths
    assert len({t.params["lr"] for t in swept}) == len(depths)
    assert len(study.study.trials) == 12


def test_deep_first_ends_in_a_space_that_is_used_up(tmp_path):
    study = new_study(tmp_path, SearchConfig(trials=50, order="deep_first"), CHOICES)
    assert len(run(study)) == 8
    assert study.exhausted


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ([([1], False), ([2], True)], "PRUNED"),  # Tune calls the last result of a trial that it stopped done
        ([([1, 2, 3], True)], "PRUNED"),  # the pruner says stop behind the second of three
        ([([1, 2], True)], "COMPLETE"),  # behind the last there is nothing to stop
    ],
)
def test_a_trial_that_the_pruner_stopped_is_pruned_and_one_at_its_end_is_complete(tmp_path, told, state, monkeypatch):
    study = new_study(tmp_path, SearchConfig(trials=1))
    number = study.ask().number
    record = study.report
    monkeypatch.setattr(study, "report", lambda n, m, node="": record(n, m, node) or m["epoch"] == 2)
    execution = Execution(study, lambda proposal: {}, 1, lambda *event: None)
    for epochs, done in told:
        result = {"epochs": [metrics(epoch, 0.5) for epoch in epochs], "done": done}
        if len(told) > 1:  # as Tune does: not done by itself, so the scheduler is asked, which says stop
            execution.report(number, result | {"done": False})
    execution.finish(number, result)
    (trial,) = study.study.trials
    assert trial.state.name == state
    assert list(trial.intermediate_values) == [1, 2]
