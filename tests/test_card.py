"""The model card: plain values in, Markdown out."""

import re

import pytest

from search.card import model_card

GIVEN = {
    "data": "hymenoptera: PyTorch's tutorial on ants and bees",
    "counts": {"train": {"ants": 123, "bees": 121}, "val": {"ants": 70, "bees": 83}},
    "backbone": "tf_efficientnet_lite0",
    "weights": "ImageNet weights of a package (Apache-2.0)",
    "epochs": 2,
    "settings": {"freeze_depth": 13, "lr": 0.0348, "views": None},
    "verdict": ["The best of 25 configurations is trial 7.", "Expect 95.1% on new images."],
    "temperature": 1.31,
}  # fmt: skip


def test_everything_that_was_given_is_there():
    card = model_card("Ants or bees", **GIVEN)
    for said in [
        "# Ants or bees\n",
        "which of 2 classes an image shows, “ants” and “bees”",
        "tf_efficientnet_lite0, pretrained (ImageNet weights of a package (Apache-2.0))",
        "\nThe best of 25 configurations is trial 7.\n\nExpect 95.1% on new images.\n",
        "| split | ants | bees | all |\n| --- | --- | --- | --- |\n| train | 123 | 121 | 244 |\n| val | 70 | 83 | 153 |\n",
        "2 epochs, with settings from a hyperparameter search",
        "| freeze_depth | 13 |\n| lr | 0.0348 |\n",
        "uncertain by up to 7.9 percentage points",
        "logits are divided by 1.31,",
        "python -m search.predict . photo.jpg",
        'onnxruntime.InferenceSession("model.onnx")',
    ]:
        assert said in card
    assert "views" not in card
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == [
        "How good it is", "Intended use", "Limits", "Data", "Training", "How to use it", "Licences",
    ]  # fmt: skip


def test_without_a_temperature_it_says_that_nothing_was_calibrated():
    card = model_card("x", **{**GIVEN, "temperature": 1.0})
    assert "Probabilities are not calibrated" in card
    assert "divided" not in card


@pytest.mark.parametrize(
    "name, shown",
    [
        ("a|b", "a\\|b"),
        ("_x_ y_z", "\\_x\\_ y_z"),
        ("<b>*x*</b>", "\\<b\\>\\*x\\*\\</b\\>"),
        ("[x](http://y)", "\\[x\\](http://y)"),
        ("two\nlines # no heading", "two lines \\# no heading"),
        ("caf\udce9", "caf?"),
    ],
)
def test_names_are_plain_text(name, shown):
    counts = {split: {name: 3, "other": 4} for split in ("train", "val", "test")}
    card = model_card(name, **{**GIVEN, "counts": counts, "data": name, "verdict": [name]})
    assert card.startswith(f"# {shown}\n")
    assert f"| split | {shown} | other | all |" in card
    assert card.count(shown) == 6  # title, verdict, data, table, and both lists of classes
    card.encode()  # can be written


def test_many_classes_are_not_all_listed_in_the_text():
    counts = {split: {f"c{i}": 1 for i in range(100)} for split in ("train", "val")}
    assert "“c11” and 88 more, and how" in model_card("x", **{**GIVEN, "counts": counts})
