"""Scores a class."""

import math

import pandas as pd
import pytest

from search.class_scores import class_scores


def test_precision_recall_f1_and_support() -> None:
    said = pd.DataFrame({"class": ["a", "a", "a", "b", "b"], "predicted": ["a", "a", "b", "b", "a"]})
    table = class_scores(said, ["a", "b", "c"]).set_index("class")
    assert table.loc["a"].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 3])
    assert table.loc["b"].tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 2, 2])
    assert math.isnan(table.loc["c", "precision"])
    assert table.loc["c", "support"] == 0
