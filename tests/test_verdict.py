"""What the report says, in numbers and in words."""

import dataclasses

import pytest

from search.calibration import Calibration
from search.choice import Choice
from search.comparison import Comparison
from search.estimate import Estimate
from search.openings import Opening
from search.verdict import Baseline, Verdict, wilson
from search.wording import paragraphs

HEAD = Comparison("train the head only", 1, "test", 150, 0.05, 0.01, 0.09, 0.02)
ALL = Comparison("fine-tune everything", 0, "test", 150, 0.03, -0.02, 0.08, 0.3)

VERDICT = Verdict(
    trial=7, asked_for=False, sealed=False, values="freeze_depth 9, lr 0.002", epochs=3, metric="val_accuracy", value=0.9,
    candidates=30, val=wilson(90, 100), test=wilson(120, 150), estimate=Estimate(0.85, 0.78, 0.9),
    baseline=Baseline("bees", 0.6), choice=Choice(7, (7,), 7, 0.9, 0.9, 0.01),
    names={7: "trial 7", 1: "train the head only", 0: "fine-tune everything"}, passed_over=["fine-tune everything"],
    diverged=[], seeds=3, comparisons=[ALL, HEAD], recipe="", calibration=Calibration(1.0, 0.05, 0.05, "test"), openings=[],
    same_curve=True, precision="fp32", retrained_on="train", folds=None,
)  # fmt: skip


def said(**changed) -> str:
    return "\n".join(paragraphs(dataclasses.replace(VERDICT, **changed)))


def test_the_first_sentence_is_what_to_use_and_what_to_expect() -> None:
    assert said().startswith(
        "Use trial 7 (freeze_depth 9, lr 0.002, 3 epochs): it classifies 80.0% (120 of 150; 95 % interval 72.9% to "
        "85.6%) of the sealed test images correctly."
    )
    assert "expect it to classify 85.0% (95 % interval 78.0% to 90.0%) of new images correctly" in said(test=None)


@pytest.mark.parametrize(
    ("answer", "test", "better"),
    [(0.6, wilson(120, 150), True), (0.8, wilson(120, 150), False), (0.84, None, True), (0.9, None, False)],
)
def test_a_model_no_better_than_a_constant_answer_is_called_that(answer, test, better) -> None:
    found = said(baseline=Baseline("bees", answer), test=test)
    assert f"always answering “bees” would be right in {answer:.1%}" in found
    assert ("which is no less" in found) is not better


@pytest.mark.parametrize(
    ("comparisons", "worth"),
    [
        ([HEAD], "The search was worth it: "),
        ([ALL, HEAD], "The search beat the tutorial's recipe “train the head only”, but not both for certain: "),
        (
            [dataclasses.replace(HEAD, after_choice=0.02)],
            "That is more than chance and than the choice among 30 explains.",
        ),
        (
            [dataclasses.replace(HEAD, after_choice=0.2)],
            "accurate than “train the head only”, which can be chance.",
        ),
        ([dataclasses.replace(HEAD, difference=-0.05, after_choice=1.0)], "The search was not worth it, "),
        ([ALL], "Whether the search bought anything over the tutorial's recipes cannot be told: "),
        (
            [dataclasses.replace(HEAD, difference=-0.05)],
            "The search was not worth it, “train the head only” did better: ",
        ),
        ([], "There is none of the tutorial's recipes to compare with"),
    ],
)
def test_whether_the_search_was_worth_it(comparisons, worth) -> None:
    assert worth in said(comparisons=comparisons)


def test_the_test_decides_and_not_the_interval() -> None:
    """Of 10 images the bootstrap's interval can leave out 0 where McNemar's exact test sees nothing."""
    few = dataclasses.replace(ALL, images=10, difference=0.4, low=0.1, high=0.7, chance=0.12)
    found = said(comparisons=[few])
    assert "it is 40.0 points more accurate than “fine-tune everything”, which can be chance." in found
    assert "over “fine-tune everything” +40.0 (+10.0 to +70.0), p = 0.12. The test decides, with p < 0.05" in found
    chosen = said(comparisons=[dataclasses.replace(few, after_choice=0.4)])
    assert "p = 0.12, and allowing for the choice p = 0.4 (White's reality check). Both p must be below 0.05" in chosen


def test_the_finalists_are_told_by_name() -> None:
    assert (
        "2 finalists were trained again with up to 3 other seeds, as long as they could be expected to win. Not trained "
        "again, being no cheaper than the best of these, and not expected to be better by a standard error, by what the "
        "others lost when they were trained again: fine-tune everything. "
        "Trial 7 reached a mean validation accuracy of 0.9000, the best by more than one standard error (0.0100)."
    ) in said()
    tied = Choice(7, (7, 1), 1, 0.9, 0.905, 0.01)
    assert (
        "Trial 7 reached a mean validation accuracy of 0.9000; train the head only is within one standard error (0.0100) "
        "of the best mean, 0.9050, too, but no cheaper to train."
    ) in said(choice=tied)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"seeds": 1},
            "reached a mean validation accuracy of 0.9000, the best; by one seed each, skill is not told from",
        ),
        ({"names": {7: "trial 7"}, "passed_over": []}, "1 finalist was trained again with up to 3 other seeds"),
        ({"names": {7: "trial 7"}, "passed_over": []}, "Trial 7 reached a mean validation accuracy of 0.9000.\n"),
        (
            {"diverged": ["train the head only"]},
            "with some seed, so that it could not win: train the head only. Trial 7",
        ),
        ({"diverged": ["trial 7"], "choice": None}, "So nobody won, and the best trial of the search was taken"),
        ({"folds": 5}, "2 finalists were scored on 5 folds."),
        ({"names": {}, "passed_over": [], "choice": None}, "the tutorial's recipe “train the head only”, but not both"),
    ],
)
def test_how_the_winner_was_found(changed, told) -> None:
    assert told in said(**changed)


def opened(*models: tuple[str, str]) -> list[Opening]:
    return [Opening(f"2026-01-0{day}", 7, *model) for day, model in enumerate(models, 1)]


def test_a_figure_that_was_seen_before_for_another_model_is_not_the_one_to_quote() -> None:
    same, other = ("a1", "train"), ("a1", "train+val")
    assert "so this is the figure to quote" in said(openings=opened(same))
    again = said(openings=opened(same, same))
    assert "so this is the figure to quote" in again
    assert "It was the same model each time, so the figure stands." in again
    another = said(openings=opened(same, other))
    assert "another model was judged by them before" in another
    assert "figure to quote" not in another
    assert "opened 2 times, for 2 models; the first time on 2026-01-01. Whatever was decided after that" in another


def test_of_a_trial_that_was_asked_for_nothing_is_said_that_holds_of_the_best_alone() -> None:
    asked = {"asked_for": True, "test": None, "choice": None, "names": {}, "passed_over": [], "comparisons": []}
    found = said(**asked)
    assert found.startswith(
        "This is trial 7, which you asked for (freeze_depth 9, lr 0.002). Trained again for 3 epochs,"
    )
    assert "Sealed" not in found
    assert "Sealed test images are kept for the best trial." in said(**asked, sealed=True)
    assert "In the search, the models of its folds classified 90.0% (90 of 100;" in said(**asked, folds=5)
    numbers = dataclasses.replace(VERDICT, **asked).to_dict()
    assert numbers["honest_accuracy"] is numbers["optimism"] is None


def test_what_computed_in_bf16_is_not_said_to_be_another_model() -> None:
    told = "the model judged here computes in fp32"
    assert told in said(precision="bf16")
    assert told in said(precision="bf16", folds=5)
    assert told not in said(precision="bf16", folds=5, test=None)
