"""Labels that may be wrong."""

from pathlib import Path

import numpy as np

from search.suspects import label_suspects

CLASSES = ("ants", "bees")


def trials(labels: np.ndarray, count: int = 8, sureness: float = 3.0) -> list[np.ndarray]:
    chance = np.random.default_rng(0)
    return [
        (np.eye(2)[labels] * sureness + chance.normal(size=(len(labels), 2)) * 0.5).astype(np.float32)
        for _ in range(count)
    ]


def test_images_with_swapped_labels_are_found_and_no_others() -> None:
    true = np.arange(60) % 2
    labels = true.copy()
    labels[[7, 30, 31]] ^= 1
    paths = [Path(f"{i}.jpg") for i in range(60)]
    found = label_suspects(trials(true), labels, paths, CLASSES)
    assert {"7.jpg", "30.jpg"} <= set(found["path"]) <= {"7.jpg", "30.jpg", "31.jpg"}  # the last, not sure enough
    assert set(found.loc[found["path"] == "7.jpg", "class"]) == {"ants"}
    assert set(found.loc[found["path"] == "7.jpg", "suggested"]) == {"bees"}
    assert (found["agreeing"] > 0.9).all()
    assert found["probability"].is_monotonic_decreasing


def test_right_labels_and_trials_that_guess_give_no_suspects() -> None:
    labels = np.arange(60) % 2
    paths = [Path(f"{i}.jpg") for i in range(60)]
    assert label_suspects(trials(labels), labels, paths, CLASSES).empty
    assert label_suspects([], labels, paths, CLASSES).empty


def test_a_class_that_nobody_bears_is_never_suggested() -> None:
    labels = np.zeros(10, np.int64)
    sure_of_bees = [np.tile(np.array([0.0, 5.0], np.float32), (10, 1))]
    assert label_suspects(sure_of_bees, labels, [Path("a")] * 10, CLASSES).empty
