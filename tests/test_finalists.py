"""Who is a finalist, and when one is given up."""

from statistics import fmean
from types import SimpleNamespace

import pandas as pd
import pytest

from search.finalists import Finalist, choose_finalists
from search.folder import trial_folder, write_settings
from search.playoff import hopeless, race
from search.results import Run
from trainable.settings import TrialSettings

COSTS = {0: 1e12, 3: 3.0, 7: 7.0}


def run_of(folder, trials: dict[int, tuple[str, float]]) -> Run:
    """Trials by number: how they ended, and their best score."""
    for number in trials:
        write_settings(TrialSettings(images=folder, backbone="resnet18", folder=trial_folder(folder, number)))
    columns = ["trial", "state", "val_accuracy"]
    table = pd.DataFrame([(number, *trial) for number, trial in trials.items()], columns=columns)
    table = table.assign(val_loss=0.5, seconds=1.0, epochs=6, best_epoch=3, first=None)
    table.loc[table["trial"] == 0, "first"] = "fine-tune everything"
    return Run(folder, table, pd.DataFrame(), (), "val_accuracy")


@pytest.mark.parametrize(("pruned", "chosen"), [(True, [4, 2, 0]), (False, [2, 3, 0])])
def test_the_best_ones_and_the_recipes_are_finalists(tmp_path, pruned, chosen) -> None:
    """A trial that was stopped in its sixth epoch may have been the best one in its third."""
    trials = {
        0: ("COMPLETE", 0.8),
        1: ("FAIL", 0.99),
        2: ("COMPLETE", 0.86),
        3: ("COMPLETE", 0.85),
        4: ("PRUNED", 0.87),
    }
    backbone = SimpleNamespace(stages=[SimpleNamespace(flops=5)] * 2, depth=int)
    found = choose_finalists(run_of(tmp_path, trials), 2, [0, 1], lambda name: backbone, pruned=pruned)
    assert [one.trial for one in found] == chosen
    assert {(one.epochs, one.cost) for one in found} == {(3, 3 * 10 * 3.0)}
    assert found[-1].name == "fine-tune everything"


@pytest.mark.parametrize(
    ("scores", "in_search", "given_up"),
    [
        ({}, 0.5, False),  # nobody leads yet
        ({7: [0.85, 0.84]}, 0.5, False),  # nor is this one through
        ({7: [0.85, 0.84, 0.86]}, 0.845, True),  # below the leader's mean, though the search flatters it
        ({7: [0.85, 0.84, 0.86]}, 0.855, True),  # within one standard error of it, which is 0.0058
        ({7: [0.85, 0.84, 0.86]}, 0.857, False),
        (
            {7: [0.85, 0.84, 0.86], 0: [0.83]},
            0.99,
            True,
        ),  # what it did with other seeds counts, and no longer the search
        ({7: [0.85, 0.84, 0.86], 0: [0.83, 0.86]}, 0.99, False),
        ({7: [0.85, 0.84, 0.86], 3: [0.9, 0.9, 0.9]}, 0.87, True),  # the leader is the best of the others
        ({7: [0.85, None, 0.86], 3: [0.7, 0.7, 0.7]}, 0.75, False),  # one that diverged leads nobody
        ({0: [0.9, None]}, 0.99, True),
    ],
)
def test_a_finalist_that_cannot_win_is_given_up(scores, in_search, given_up) -> None:
    """The search flattered nobody."""
    finalists = finalists_of({0: in_search, **means(scores)})
    assert hopeless(table_of(scores), finalists[0], finalists, 3, "val_accuracy") is given_up


@pytest.mark.parametrize(
    ("scores", "others", "in_search", "given_up"),
    [
        ({7: [0.85, 0.84, 0.86]}, {7: 0.88}, 0.885, True),  # without 0.03, it is within a standard error of 0.85
        ({7: [0.85, 0.84, 0.86]}, {7: 0.88}, 0.887, False),
        ({7: [0.85, 0.84, 0.86], 3: [0.8]}, {7: 0.88, 3: 0.81}, 0.875, True),  # on average they lost 0.02
        ({7: [0.85, 0.84, 0.86], 3: [0.8]}, {7: 0.88, 3: 0.81}, 0.877, False),
        ({7: [0.85, 0.84, 0.86]}, {7: 0.80}, 0.855, True),  # nobody is thought to gain
        ({7: [0.85, 0.84, 0.86], 3: [0.8, None]}, {7: 0.88, 3: 0.9}, 0.887, False),  # one that diverged tells nothing
        ({7: [0.85, 0.84, 0.86], 0: [0.85]}, {7: 0.88}, 0.85, False),  # what it did with other seeds was no flattery
    ],
)
def test_a_costlier_finalist_is_expected_to_lose_what_the_others_lost(scores, others, in_search, given_up) -> None:
    finalists = finalists_of({0: in_search, **others})
    assert hopeless(table_of(scores), finalists[0], finalists, 3, "val_accuracy") is given_up


def table_of(scores: dict[int, list[float]]) -> pd.DataFrame:
    rows = [(trial, score) for trial, each in scores.items() for score in each]
    return pd.DataFrame(rows, columns=["trial", "score"]).astype({"score": float})


def finalists_of(in_search: dict[int, float]) -> list[Finalist]:
    """By their scores in the search."""
    return [Finalist(trial, f"trial {trial}", 10, COSTS[trial], score) for trial, score in in_search.items()]


def means(scores: dict[int, list[float]]) -> dict[int, float]:
    """The others' scores in the search, as if they had been no worse with other seeds."""
    return {trial: fmean(score or 0 for score in each) for trial, each in scores.items() if trial}


def test_a_costlier_leader_does_not_keep_a_cheaper_one_from_its_chance() -> None:
    """Such a leader is there where an earlier report had other finalists."""
    table, leader = table_of({7: [0.85, 0.85]}), Finalist(7, "trial 7", 2, 7.0, 0.85)
    for cost, given_up in ((7.0, True), (6.0, False)):
        one = Finalist(3, "trial 3", 2, cost, 0.84)
        assert hopeless(table, one, [leader, one], 2, "val_accuracy") is given_up


@pytest.mark.parametrize(("own", "given_up"), [(0.21, True), (0.19, False)])
def test_of_losses_the_lowest_leads(own, given_up) -> None:
    table = table_of({7: [0.2, 0.3]})
    for flattered in (0, 0.05):
        leader, one = finalists_of({7: 0.25 - flattered, 0: own - flattered})
        assert hopeless(table, one, [leader, one], 2, "val_loss") is given_up


class Lanes:
    """Trains two at a time; the one that was started first ends first."""

    def __init__(self, scores: dict[int, list[float]]) -> None:
        self.scores, self.running = scores, []

    @property
    def busy(self) -> bool:
        return bool(self.running)

    @property
    def has_room(self) -> bool:
        return len(self.running) < 2

    def start(self, finalist: Finalist, repetition: int) -> None:
        self.running.append((finalist, repetition))

    def wait(self) -> tuple[tuple[Finalist, int], dict]:
        finalist, repetition = ended = self.running.pop(0)
        return ended, {"trial": finalist.trial, "score": self.scores[finalist.trial][repetition - 1]}

    def give_up(self, finalist: Finalist, repetition: int) -> bool:
        self.running.remove((finalist, repetition))
        return True


@pytest.mark.parametrize(
    ("costliest", "seeds"),
    [([0.91, 0.86, 0.95], 3), ([0.70, 0.99, 0.99], 1)],
    ids=["its first seed is the best so far", "its first seed is not"],
)
def test_who_could_win_after_all_is_trained_with_all_seeds(costliest, seeds) -> None:
    """The second ends while the costliest one's first seed is being trained, and its score in the search is then too low
    for another seed to begin; what that first seed gives is news."""
    scores = {1: [0.82, 0.86, 0.86], 3: [0.86, 0.86, 0.91], 4: costliest}
    in_search = {1: 0.86, 3: 0.88, 4: 0.885}
    rows: list[dict] = []

    def worth_it(finalist: Finalist) -> bool:
        table = pd.DataFrame(rows, columns=["trial", "score"])
        return not hopeless(table, finalist, finalists, 3, "val_accuracy")

    finalists = [Finalist(trial, f"trial {trial}", 2, float(trial), in_search[trial]) for trial in scores]
    race([(one, seed) for one in finalists for seed in (1, 2, 3)], Lanes(scores), worth_it, rows.append)
    trained = pd.DataFrame(rows)["trial"].value_counts()
    assert trained.to_dict() == {1: 3, 3: 3, 4: seeds}


@pytest.mark.parametrize(("costs", "order"), [((1.0, 1.5), [1, 2, 1, 1]), ((1.0, 9.0), [1, 1, 1])])
def test_a_second_seed_waits_for_the_first_where_another_costs_about_as_much(costs, order) -> None:
    """The second finalist is worth it until the first one has been seen with another seed."""
    scores = {1: [0.9, 0.9, 0.9], 2: [0.8, 0.8, 0.8]}
    rows: list[dict] = []
    trainer = Lanes(scores)
    started: list[int] = []
    begin = trainer.start
    trainer.start = lambda finalist, repetition: (started.append(finalist.trial), begin(finalist, repetition))
    queue = [
        (Finalist(trial, "", 1, cost, 0.9), seed)
        for trial, cost in zip(scores, costs, strict=True)
        for seed in (1, 2, 3)
    ]
    race(queue, trainer, lambda finalist: finalist.trial == 1 or not rows, rows.append)
    assert started == order


@pytest.mark.parametrize("told", [set(), {1}], ids=["just now", "in a report before"])
def test_a_second_seed_is_given_up_where_the_first_was_not_good_enough(told) -> None:
    """There was a lane for it as long as the first one was not seen."""
    rows: list[dict] = []
    trainer = Lanes({1: [0.7, 0.9, 0.9]})
    queue = [(Finalist(1, "", 1, 1.0, 0.9), seed) for seed in (1, 2, 3)]
    race(queue, trainer, lambda finalist: not rows, rows.append, told)
    assert [row["score"] for row in rows] == [0.7]
    assert not trainer.busy
    assert [seed for _, seed in queue] == [2, 3]


def test_a_seed_that_was_given_up_is_trained_after_all_where_the_leader_changes() -> None:
    """The second finalist's mean is worse than the worst seed of the first, but not than that of the third."""
    scores = {1: [0.855, 0.855, 0.855], 2: [0.85, 0.96, 0.96], 3: [0.97, 0.97, 0.80]}
    in_search = {1: 0.9, 2: 0.9, 3: 0.99}
    finalists = [Finalist(trial, "", 1, 1.0 + trial / 10, in_search[trial]) for trial in scores]
    rows: list[dict] = []

    def worth_it(finalist: Finalist) -> bool:
        table = pd.DataFrame(rows, columns=["trial", "score"])
        return not hopeless(table, finalist, finalists, 3, "val_accuracy")

    given_up: list[tuple[int, int]] = []

    class Recorded(Lanes):
        def give_up(self, finalist: Finalist, repetition: int) -> bool:
            given_up.append((finalist.trial, repetition))
            return super().give_up(finalist, repetition)

    race([(one, seed) for one in finalists for seed in (1, 2, 3)], Recorded(scores), worth_it, rows.append)
    assert given_up == [(2, 2)]
    assert pd.DataFrame(rows)["trial"].value_counts().to_dict() == {1: 3, 2: 3, 3: 3}


def test_a_training_that_has_just_ended_is_not_given_up() -> None:
    rows: list[dict] = []
    trainer = Lanes({1: [0.7, 0.9, 0.9]})
    trainer.give_up = lambda finalist, repetition: False
    race([(Finalist(1, "", 1, 1.0, 0.9), seed) for seed in (1, 2, 3)], trainer, lambda finalist: not rows, rows.append)
    assert [row["score"] for row in rows] == [0.7, 0.9]
