"""The study: one contract for every sampler and pruner; no Ray."""

import json
import math
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from search.config import PrunerConfig, SamplerConfig, SearchConfig
from search.executor import Execution
from search.history import TIE_BREAK, ranked_value, real_trials
from search.method import PrunerConfig as Pruner
from search.results import load_run, write_table, write_tables
from search.space import Categorical, Float, Int, Parameter, Space
from search.storage import open_study
from search.study import FirstTrial, Study
from trainable.errors import InputError
from trainable.settings import METRICS

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
    folder: Path | None,
    search: SearchConfig,
    space: Space = SPACE,
    first: tuple = (),
    resume: bool = False,
    images: int = 100_000,
) -> Study:
    return Study(stored_in(folder, search, resume), space, search, first, images)


def stored_in(folder: Path | None, search: SearchConfig, resume: bool) -> optuna.Study:
    """In a folder's file; without a folder, in memory, which is quicker."""
    if folder is None:
        return optuna.create_study(direction=METRICS[search.metric])
    return open_study(f"sqlite:///{folder / 'study.db'}", "search", search.metric, resume=resume)


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
def test_every_sampler_with_every_pruner(sampler, pruner):
    search = SearchConfig(trials=9, sampler=SamplerConfig(name=sampler), pruner=PrunerConfig(name=pruner))
    study = new_study(None, search)
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
    whole = new_study(None, search)
    run(whole)
    run(new_study(tmp_path, search), stop_after=12)
    resumed = new_study(tmp_path, search, resume=True)
    run(resumed)
    assert [t.params for t in resumed.study.trials] == [t.params for t in whole.study.trials]


def test_another_seed_gives_other_configurations():
    found = []
    for seed in (0, 1):
        study = new_study(None, SearchConfig(trials=3, seed=seed))
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


def test_first_trials_come_first_and_run_in_full():
    first = (FirstTrial("good", {"freeze_depth": 9, "lr": 0.01}), FirstTrial("bad", {"freeze_depth": 0, "lr": 0.001}))
    study = new_study(None, SearchConfig(trials=6), first=first)
    run(study)
    trials = study.study.trials
    assert [t.params for t in trials[:2]] == [dict(f.values) for f in first]
    assert [t.user_attrs.get("first") for t in trials[:3]] == ["good", "bad", None]
    assert all(t.state == TrialState.COMPLETE for t in trials[:2])


def test_of_equal_first_trials_one_is_run(tmp_path):
    values = {"freeze_depth": 9, "lr": 0.01}
    first = (FirstTrial("one", values), FirstTrial("same", values), FirstTrial("other", {**values, "lr": 0.02}))
    study = new_study(tmp_path, SearchConfig(trials=2), first=first)
    run(study)
    assert [t["first"] for t in study.tables()[0]] == ["one", "other"]


def test_first_trials_may_come_in_another_order_when_a_search_is_resumed(tmp_path):
    first = tuple(FirstTrial(f"first {i}", {"freeze_depth": i, "lr": 0.01}) for i in range(4))
    run(new_study(tmp_path, SearchConfig(trials=4), first=first), stop_after=2)
    after = new_study(tmp_path, SearchConfig(trials=6), first=first[::-1], resume=True)
    run(after)
    names = [t["first"] for t in after.tables()[0]]
    assert names == ["first 0", "first 1", "first 3", "first 2", None, None]


def test_the_best_trial_is_optunas_and_ties_go_to_the_lower_loss(tmp_path):
    study = new_study(tmp_path, SearchConfig(trials=3, pruner=PrunerConfig(name="none")))
    for loss in (0.6, 0.2, 0.4):
        number = study.ask().number
        study.report(number, metrics(1, 0.9, loss))
        study.complete(number)
    assert study.study.best_trial.number == 1 == study.best().number
    rows, _ = study.tables()
    assert [row["val_accuracy"] for row in rows] == [0.9] * 3
    assert [row["value"] for row in rows] == [0.9] * 3, "without what breaks ties"


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


def test_a_finite_space_is_tried_whole_once_each_and_then_the_search_ends():
    study = new_study(None, SearchConfig(trials=50, sampler=SamplerConfig(name="tpe")), CHOICES)
    assert len(run(study)) == 8
    assert study.exhausted
    trained = real_trials(study.study)
    assert len({json.dumps(t.params, sort_keys=True) for t in trained}) == len(trained) == 8
    for trial in study.study.trials:
        if trial not in trained:
            assert trial.state == TrialState.FAIL
            assert "duplicate_of" in trial.user_attrs
    assert len(study.tables()[0]) == 8


def test_a_grid_visits_every_point():
    search = SearchConfig(trials=50, sampler=SamplerConfig(name="grid"), pruner=PrunerConfig(name="none"))
    study = new_study(None, search, CHOICES)
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


@pytest.mark.parametrize("order", ["as_sampled", "deep_first"])
def test_a_crash_before_a_trials_values_are_chosen_changes_none_of_them(tmp_path, order):
    search = SearchConfig(trials=30, order=order, pruner=PrunerConfig(name="none"))
    proposed = []
    for folder in (None, tmp_path):
        study = new_study(folder, search, DEPTHS)
        run(study, stop_after=12)
        if folder:
            study.study.ask()
            study = new_study(folder, search, DEPTHS, resume=True)
        proposed.append(study.ask())
    assert proposed[0] == proposed[1]


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


DEPTHS = Space(
    (Parameter("freeze_depth", "freeze_depth", Int(0, 18)), Parameter("lr", "lr", Float(1e-4, 0.1, log=True)))
)


def run_on(study: Study, score: Callable[[Mapping], float], loss: Callable[[Mapping], float] = lambda _: 0.5) -> None:
    """Run all trials for one epoch, on an objective of their settings."""
    while (proposal := study.ask()) is not None:
        study.report(proposal.number, metrics(1, score(proposal.values), loss(proposal.values)))
        study.complete(proposal.number)


HEAD_ONLY = FirstTrial("train the head only", {"freeze_depth": 18, "lr": 0.01})


def proposed_depths(search: SearchConfig, better: str, first: tuple = (HEAD_ONLY,)) -> list[int]:
    """Of all trials of the sampler, on an objective for which deep or shallow freezing is better."""
    study, sign = new_study(None, search, DEPTHS, first), 1 if better == "deep" else -1
    run_on(study, lambda values: 0.5 + sign * values["freeze_depth"] / 100)
    assert len(study.study.trials) == search.trials
    return [t.params["freeze_depth"] for t in study.study.trials if "first" not in t.user_attrs]


@pytest.mark.parametrize("first", [(HEAD_ONLY,), ()], ids=["a recipe first", "no recipe"])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_deep_first_opens_stages_only_where_that_pays(sampler, first):
    search = SearchConfig(trials=30, order="deep_first", sampler={"name": sampler}, pruner=PrunerConfig(name="none"))
    deep, shallow = (proposed_depths(search, better, first) for better in ("deep", "shallow"))
    for depths, best in (deep, max), (shallow, min):
        for number, depth in enumerate(depths):
            assert depth >= best(depths[:number], default=18) - 5
    assert len(set(deep)) > 3
    assert min(shallow) < 3


@pytest.mark.parametrize("seed", range(5))
def test_deep_first_opens_no_stages_for_a_lower_loss_alone(seed):
    search = SearchConfig(trials=20, order="deep_first", pruner=PrunerConfig(name="none"), seed=seed)
    study = new_study(None, search, DEPTHS)
    run_on(study, lambda values: 0.8, loss=lambda values: values["freeze_depth"] / 18)
    depths = [trial.params["freeze_depth"] for trial in study.study.trials]
    assert min(depths) >= 18 - 5
    assert len(set(depths)) > 1


def test_deep_first_leaves_to_other_samplers_the_whole_range():
    search = SearchConfig(trials=12, order="deep_first", sampler={"name": "qmc"}, pruner=PrunerConfig(name="none"))
    assert min(proposed_depths(search, "deep")) < 5


def test_deep_first_opens_the_depths_of_each_backbone_by_themselves():
    def depths(backbone: str, high: int) -> Parameter:
        return Parameter(f"freeze_depth@{backbone}", "freeze_depth", Int(0, high), {"backbone": (backbone,)})

    backbone, rate = Parameter("backbone", "backbone", Categorical(("a", "b"))), DEPTHS.parameters[1]
    space = Space((backbone, depths("a", 18), depths("b", 7), rate))
    search = SearchConfig(trials=40, order="deep_first", sampler={"name": "random"}, pruner=PrunerConfig(name="none"))
    study = new_study(None, search, space)
    run_on(study, lambda values: 0.5 + values["freeze_depth"] * (1 if values["backbone"] == "a" else -1) / 100)
    found = [t.params for t in study.study.trials]
    assert min(p["freeze_depth@a"] for p in found if p["backbone"] == "a") >= 18 - 5 - 5
    assert min(p["freeze_depth@b"] for p in found if p["backbone"] == "b") < 2


def test_deep_first_ends_in_a_space_that_is_used_up():
    study = new_study(None, SearchConfig(trials=50, order="deep_first"), CHOICES)
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
    monkeypatch.setattr(study, "report", lambda n, m, node, scores: record(n, m, node, scores) or m["epoch"] == 2)
    execution = Execution(study, lambda proposal: {}, 1, lambda *event: None)
    for epochs, done in told:
        result = {"epochs": [metrics(epoch, 0.5) for epoch in epochs], "done": done}
        if len(told) > 1:  # as Tune does: not done by itself, so the scheduler is asked, which says stop
            execution.report(number, result | {"done": False})
    execution.finish(number, result)
    (trial,) = study.study.trials
    assert trial.state.name == state
    assert list(trial.intermediate_values) == [1, 2]


# --- folds ---

FOLDS, IMAGES = 3, 12
"""Folds of each trial, and images in each fold."""


def folded_study(
    folder: Path | None, search: SearchConfig, space: Space = SPACE, first: tuple = (), resume=False
) -> Study:
    return Study(stored_in(folder, search, resume), space, search, first, FOLDS * IMAGES, fold_epochs=EPOCHS)


def fold_metrics(fold: int, epoch: int, accuracy: float, loss: float = 0.5) -> dict[str, float]:
    return {"fold": fold, **metrics(epoch, accuracy, loss)}


def run_folded(study: Study, right_of, stop_after: int | None = None) -> list[int]:
    """Run the study's trials as a worker does; ``right_of(values)``: how many images of each fold they get right.

    The numbers of the trials in the order they were asked.
    """
    ended = []
    execution = Execution(study, lambda proposal: {}, 1, lambda *event: None)
    while (stop_after is None or len(ended) < stop_after) and (proposal := study.ask()) is not None:
        number, right = proposal.number, right_of(proposal.values)
        scores: list[float] = []
        for fold, count in enumerate(right, 1):
            scores += [1.0] * count + [0.0] * (IMAGES - count)
            for epoch in range(1, EPOCHS + 1):
                # Less in the other epochs, so that the last is the best.
                share = count / IMAGES - (EPOCHS - epoch) / 1000
                ended_fold = {"scores": [*scores]} if epoch == EPOCHS else {}
                done = (fold, epoch) == (FOLDS, EPOCHS)
                result = {"epochs": [fold_metrics(fold, epoch, share)], "done": done, **ended_fold}
                if done or execution.report(number, result):
                    break
            if done or number in execution.pruned:
                break
        execution.finish(number, result)
        ended.append(number)
    return ended


def by_lr(values) -> list[int]:
    """The larger the learning rate is, the more are right; and in later folds more than in the first."""
    right = round(4 + 2 * (4 + math.log10(values["lr"])))
    return [right, right + 1, right + 2]


@pytest.mark.parametrize("pruner", list(Pruner.OPTIONS))
def test_with_folds_every_epoch_is_in_the_study_and_a_complete_trial_has_them_all(pruner):
    search = SearchConfig(trials=12, sampler=SamplerConfig(name="random"), pruner=PrunerConfig(name=pruner))
    study = folded_study(None, search, first=(FirstTrial("bad", {"freeze_depth": 0, "lr": 1e-4}),))
    run_folded(study, by_lr)
    trials = study.study.trials
    assert trials[0].state == TrialState.COMPLETE, "the first trials run in full"
    assert {t.state for t in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in trials:
        steps = list(trial.intermediate_values)
        assert steps == list(range(1, len(steps) + 1))
        right = by_lr(trial.params)
        for step, value in trial.intermediate_values.items():
            fold, epoch = divmod(step - 1, EPOCHS)
            mean = sum(right[: fold + 1]) / (fold + 1) / IMAGES - (EPOCHS - epoch - 1) / 1000
            assert value == pytest.approx(mean, abs=2 * TIE_BREAK)
        if trial.state == TrialState.COMPLETE:
            assert len(steps) == FOLDS * EPOCHS
            assert trial.value == trial.intermediate_values[FOLDS * EPOCHS]
        elif len(steps) > EPOCHS:
            assert len(steps) % EPOCHS == 0, (
                "behind the first fold only the race ends a trial, and at the end of a fold"
            )
            assert trial.user_attrs["reason"].startswith("worse than trial ")
    assert study.study.best_trial.number == study.best().number


def test_the_pruner_sees_only_the_first_fold(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: asked.append(max(trial.study.trials[-1].intermediate_values)) or False)  # fmt: skip
    study = folded_study(tmp_path, SearchConfig(trials=1))
    run_folded(study, by_lr)
    assert asked == list(range(1, EPOCHS + 1))


def test_hyperband_counts_the_epochs_of_a_fold_alone(tmp_path):
    search = SearchConfig(trials=1, pruner=PrunerConfig(name="hyperband"))
    folded_study(tmp_path, search)
    study = new_study(tmp_path, search, resume=True)
    assert study.study.pruner._max_resource == "auto"
    assert folded_study(tmp_path, search, resume=True).study.pruner._max_resource == EPOCHS + 1


@pytest.mark.parametrize(
    ("folds", "rights"),
    [
        (1, [6, 12, 12]),
        (1, [9, 12, 12]),  # three images against none: p = 0.125
        (2, [10, 11, 12]),  # two are not enough, p = 0.25; the third is
        (3, [10, 12, 11]),  # the third comes in the last fold, behind which there is nothing to stop
        (3, [12, 12, 12]),
    ],
)
def test_a_race_ends_at_the_end_of_a_fold_for_who_is_clearly_worse(tmp_path, folds, rights):
    search = SearchConfig(trials=2, pruner=PrunerConfig(name="none"))
    first = (FirstTrial("good", {"freeze_depth": 0, "lr": 0.1}),)
    study = folded_study(tmp_path, search, first=first)
    run_folded(study, lambda values: [12, 12, 12] if values["lr"] == 0.1 else rights)
    _, trial = study.study.trials
    assert len(trial.intermediate_values) == folds * EPOCHS
    assert trial.state == (TrialState.COMPLETE if folds == FOLDS else TrialState.PRUNED)
    if folds < FOLDS:
        reason = f"worse than trial 0 over {folds} fold{'s' * (folds > 1)} (p = "
        assert trial.user_attrs["reason"].startswith(reason)


def test_with_folds_the_tables_are_the_study(tmp_path):
    search = SearchConfig(trials=6, sampler=SamplerConfig(name="random"), pruner=PrunerConfig(name="none"))
    study = folded_study(tmp_path, search)
    run_folded(study, by_lr)
    write_tables(tmp_path, *study.tables(), SPACE.keys)
    (tmp_path / "config.yaml").write_text("search: {metric: val_accuracy}")
    read, curves = load_run(tmp_path), pd.read_csv(tmp_path / "curves.csv")
    assert list(curves.columns[:3]) == ["trial", "fold", "epoch"]
    assert read.parameters == ("freeze_depth", "lr")
    for trial, row in zip(study.study.trials, read.trials.to_dict("records"), strict=True):
        own = curves[curves["trial"] == trial.number]
        assert row["value"] == row["val_accuracy"] == pytest.approx(trial.value, abs=2 * TIE_BREAK)
        assert row["epochs"] == len(trial.intermediate_values) == len(own)
        assert row["folds"] == own["fold"].max() == len(trial.intermediate_values) / EPOCHS
        assert row["best_epoch"] == EPOCHS
        assert row["val_accuracy"] == pytest.approx(own[own["epoch"] == EPOCHS]["val_accuracy"].mean(), abs=1e-12)
        mean = read.curves[read.curves["trial"] == trial.number]
        assert mean["epoch"].tolist() == list(range(1, EPOCHS + 1)), "readers of curves find one a trial"
        assert mean["val_accuracy"].iloc[-1] == row["val_accuracy"]


def test_a_trial_that_was_cut_off_in_a_later_fold_goes_on_there(tmp_path):
    search = SearchConfig(trials=1)
    before = folded_study(tmp_path, search)
    number = before.ask().number
    told = [fold_metrics(fold, epoch, 0.5 + fold / 10 + epoch / 100) for fold in (1, 2, 3) for epoch in (1, 2, 3, 4, 5)]
    for m in told[:7]:
        assert not before.report(number, m, scores=[1.0] * IMAGES if m["epoch"] == EPOCHS else None)
    after = folded_study(tmp_path, search, resume=True)
    again = after.ask()
    assert (again.number, again.epochs_done) == (number, 7)
    for m in told:  # from its beginning, as the checkpoint has it
        after.report(number, {**m, "epoch_time_s": 9.0}, scores=None)
    after.complete(number)
    (trial,) = after.study.trials
    assert list(trial.intermediate_values) == list(range(1, 16))
    assert trial.value == pytest.approx(0.75, abs=2 * TIE_BREAK)
    _, curves = after.tables()
    assert [(row["fold"], row["epoch"]) for row in curves] == [(m["fold"], m["epoch"]) for m in told]
    assert [row["epoch_time_s"] for row in curves] == [1.0] * 7 + [9.0] * 8, "what was known was not told again"


def test_a_crash_while_the_end_of_a_fold_is_recorded_loses_no_scores(tmp_path, monkeypatch):
    search = SearchConfig(trials=1)
    before = folded_study(tmp_path, search)
    number = before.ask().number
    for epoch in range(1, EPOCHS):
        before.report(number, fold_metrics(1, epoch, 0.5))
    last, scores = fold_metrics(1, EPOCHS, 0.5), [1.0] * IMAGES
    calls = []
    for method in ("set_user_attr", "report"):
        monkeypatch.setattr(optuna.Trial, method, lambda self, *given, method=method: calls.append((method, *given)))
    before.report(number, last, scores=scores)
    assert calls[0] == ("set_user_attr", "scores", scores), "after a crash, an epoch that is known is not told again"
    assert calls[-1][0] == "report"


def test_a_trial_that_the_time_budget_cut_off_counts_its_whole_folds(tmp_path):
    study = folded_study(tmp_path, SearchConfig(trials=1))
    number = study.ask().number
    for fold, epoch in [(1, e) for e in range(1, 6)] + [(2, 1), (2, 2)]:
        study.report(number, fold_metrics(fold, epoch, 0.9 if fold == 2 else epoch / 10))
    study.prune(number, "the time budget of 5 s is spent")
    ((row,), curves) = study.tables()
    assert (row["folds"], row["best_epoch"], row["val_accuracy"], row["epochs"]) == (1, 5, 0.5, 7)
    assert row["value"] == 0.5, "the metric there"
    assert study.study.trials[0].value == pytest.approx((0.2 + 0.9) / 2, abs=2 * TIE_BREAK), "Optuna's: the last one's"
    assert len(curves) == 7


def test_a_table_holds_whatever_a_file_can_be_called(tmp_path):
    """Such as one whose name was written in Latin-1."""
    file = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    write_table(pd.DataFrame({"path": pd.Series([str(file)], dtype=object)}), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes() == b"path\n" + os.fsencode(file) + b"\n"
