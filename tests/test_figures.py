"""The figures: what stands in them, for runs of every shape."""

import base64
import dataclasses
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import optuna
import pandas as pd
import pytest
from PIL import Image

from search.figures import Figure, draw_figures
from search.finalists_chart import Finalists
from search.importances import importances
from search.reliability import Confidences, Reliability
from search.results import Run
from search.scale import make_scale
from search.style import class_labels, label, report_style
from search.trends import draw_history

ALL = ["predictions", "confusion", "curves", "history", "parallel", "importances", "slices"]
METRICS = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_balanced_accuracy", "val_macro_f1"]
NOTHING = pd.DataFrame(columns=["path", "class", "predicted", "confidence", "correct"])
PARAMETERS = ("lr", "batch_size", "optimizer", "momentum")


def make_run(states: Sequence[str], parameters: Sequence[str] = PARAMETERS, first: Sequence[str] = ()) -> Run:
    """Trials that end as told, the later the better: complete ones after three epochs, pruned ones after one."""
    chance = np.random.default_rng(0)
    rows, curves = [], []
    for trial, state in enumerate(states):
        epochs = {"COMPLETE": 3, "FAIL": 0}.get(state, 1)
        history = [dict.fromkeys(METRICS, 0.5 + trial / 1000 + epoch / 100) for epoch in range(epochs)]
        sgd = trial % 2 == 0
        known = {
            "lr": 10 ** chance.uniform(-4, -1), "batch_size": [4, 8, 16, 32][trial % 4],
            "optimizer": "sgd" if sgd else "adamw", "momentum": chance.uniform(0.8, 0.99) if sgd else None,
        }  # fmt: skip
        rows.append({
            "trial": trial, "state": state, "value": history[-1]["val_accuracy"] if history else None,
            "best_epoch": epochs or None, "epochs": epochs, "first": first[trial] if trial < len(first) else None,
            **{name: known.get(name, chance.uniform()) for name in parameters}, **(history[-1] if history else {}),
            "seconds": 1.0,
        })  # fmt: skip
        curves += [{"trial": trial, "epoch": at, **metrics} for at, metrics in enumerate(history, 1)]
    columns = ["trial", "state", "value", "best_epoch", "epochs", "first", *parameters, *METRICS, "seconds"]
    tables = pd.DataFrame(rows, columns=columns), pd.DataFrame(curves, columns=["trial", "epoch", *METRICS])
    return Run(Path("results/run"), *tables, tuple(parameters), "val_accuracy")


def make_predictions(folder: Path, rows: Sequence[tuple[str, str, float]]) -> pd.DataFrame:
    """A small picture a row; rows are (true class, predicted class, confidence)."""
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    for number, (true, predicted, confidence) in enumerate(rows):
        Image.new("RGB", (40, 30), (number * 9 % 256, 90, 120)).save(folder / f"{number:03}.png")
        table.append((str(folder / f"{number:03}.png"), true, predicted, confidence, true == predicted))
    return pd.DataFrame(table, columns=NOTHING.columns)


def draw(run: Run, folder: Path, predictions: pd.DataFrame = NOTHING, classes: Sequence[str] = (), **options):
    given = {"importances": {}, "chosen": 0, **options}
    return {figure.name: figure for figure in draw_figures(run, predictions, classes, folder=folder, **given)}


def texts(figure: Figure) -> list[str]:
    """All texts of the SVG, which must be XML."""
    svg = ET.parse(figure.svg).getroot()
    return ["".join(element.itertext()) for element in svg.iter("{http://www.w3.org/2000/svg}text")]


def panels(figure: Figure) -> int:
    svg = ET.parse(figure.svg).getroot()
    return sum(bool(re.fullmatch(r"axes_\d+", element.get("id", ""))) for element in svg.iter())


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> dict[str, Figure]:
    """Of an ordinary run: 12 trials of every state, 9 right predictions and 3 mistakes."""
    folder = tmp_path_factory.mktemp("figures")
    predictions = make_predictions(
        folder / "val",
        [*[("ants", "ants", 0.6 + i / 50) for i in range(5)], *[("bees", "bees", 0.8)] * 4,
         ("bees", "ants", 0.7), ("bees", "ants", 0.999), ("ants", "bees", 0.55)],
    )  # fmt: skip
    run = make_run(["COMPLETE", "COMPLETE", *["PRUNED"] * 6, "FAIL", *["COMPLETE"] * 3], first=["everything", "head"])
    shares = {"lr": 0.2, "optimizer": 0.7, "batch_size": 0.001}
    return draw(run, folder / "figures", predictions, ["ants", "bees"], importances=shares, chosen=11)


def test_every_figure_is_drawn_in_the_order_of_presentation(figures):
    assert list(figures) == ALL
    for figure in figures.values():
        assert figure.title
        assert figure.caption
        width = float(ET.parse(figure.svg).getroot().get("width", "").removesuffix("pt"))
        with Image.open(figure.png) as image:
            assert image.width == pytest.approx(width / 72 * 150, abs=1)
        assert figure.svg.stat().st_size < 1_000_000
        assert figure.png.stat().st_size < 1_000_000


def test_predictions_show_right_ones_and_the_worst_mistakes(figures):
    said = texts(figures["predictions"])
    assert said.count("✓") == 9
    assert said.count("✗") == 3
    assert "Right: 9 of 9" in said
    assert "All 3 mistakes, the surest first" in said
    assert [name for name in said if name.endswith(".png")] == ["010.png", "009.png", "011.png"]
    assert said.count("true: bees") == 6
    assert "ants >99%" in said
    assert "9 of 12 validation images are classified right" in figures["predictions"].caption


def test_confusion_holds_counts_and_shares(figures):
    said = texts(figures["confusion"])
    for text in ("5", "83%", "1", "17%", "2", "33%", "4", "67%", "ants", "bees", "true class", "predicted class"):
        assert text in said
    assert "Recognised best is ants (83% of its images), worst bees (67% of 6)." in figures["confusion"].caption


def test_curves_and_history_name_what_they_mark(figures):
    said = texts(figures["curves"])
    assert {"complete", "stopped early", "trial 11, chosen", "its best epoch, 3: 0.531", "epoch"} <= set(said)
    assert "6 of 12 were stopped early" in figures["curves"].caption
    said = texts(figures["history"])
    assert {"complete", "stopped early", "failed", "best so far", "everything", "head", "chosen: 0.531"} <= set(said)
    assert "5 complete, 6 stopped early, 1 failed" in figures["history"].caption


def test_parallel_and_slices_show_every_parameter(figures):
    said = texts(figures["parallel"])
    assert {*PARAMETERS, "val_accuracy", "sgd", "adamw", "0.001", "32"} <= set(said)
    assert said.count("not used") == 1  # only momentum, of trials with AdamW
    assert "trial 11" in figures["parallel"].caption
    assert panels(figures["slices"]) == len(PARAMETERS)
    assert {*PARAMETERS, "sgd", "adamw", "complete", "stopped early", "chosen"} <= set(texts(figures["slices"]))


def test_importances_name_the_most_important_first(figures):
    said = texts(figures["importances"])
    assert {"70%", "20%", "<1%"} <= set(said)
    heights = {element.text: float(element.get("y", 0)) for element in _texts_with_places(figures["importances"])}
    assert heights["optimizer"] < heights["lr"] < heights["batch_size"]
    assert figures["importances"].caption.endswith("Not compared, since some trials do without: momentum.")


def test_a_parameter_that_some_trials_do_without_has_no_importance():
    study = optuna.create_study(direction="maximize")
    for number in range(8):
        trial = study.ask()
        score = 0.5 + trial.suggest_float("lr", 0, 0.1) + (trial.suggest_float("momentum", 0, 0.3) if number % 2 else 0)
        trial.set_user_attr("epoch:0001", {**dict.fromkeys(METRICS, score), "epoch": 1})
        trial.suggest_float("gamma", 0, 1)
        study.tell(trial, score)
    assert set(importances(study, "val_accuracy")) == {"lr", "gamma"}


def test_a_range_that_grew_during_the_search_is_one_parameter():
    """As freeze depths did with deep_first, in runs of earlier versions; Optuna would take each range for a parameter of its own, and warn."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(40):
        trial = study.ask()
        depth, rate = trial.suggest_int("freeze_depth", max(0, 9 - number), 18), trial.suggest_float("lr", 0, 0.1)
        trial.set_user_attr("epoch:0001", {**dict.fromkeys(METRICS, depth / 20 + rate / 100), "epoch": 1})
        study.tell(trial, depth / 20)
    shares = importances(study, "val_accuracy")
    assert set(shares) == {"freeze_depth", "lr"}
    assert shares["freeze_depth"] > shares["lr"]


def test_trials_that_were_asked_for_by_name_have_no_part_in_importances():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial({"freeze_depth": 0, "lr": 0.05}, user_attrs={"first": "fine-tune everything"})
    for number in range(20):
        trial = study.ask()
        rate = trial.suggest_float("lr", 0, 0.1)
        score = 0.99 if trial.suggest_int("freeze_depth", 13 if number else 0, 18) == 0 else rate
        trial.set_user_attr("epoch:0001", {**dict.fromkeys(METRICS, score), "epoch": 1})
        study.tell(trial, score)
    shares = importances(study, "val_accuracy")
    assert shares["lr"] > 0.8


@pytest.mark.parametrize("ending", ["", " (moved into the space)"])
def test_the_legend_of_the_history_has_room(ending):
    recipes = [name + ending for name in ("fine-tune everything", "train the head only")]
    run = make_run(["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"], first=recipes)
    with report_style():
        canvas, _ = draw_history(run.trials.assign(score=run.trials["val_accuracy"]), "val_accuracy", 3)
        canvas.draw_without_rendering()
    legend = canvas.axes[0].get_legend()
    assert set(recipes) <= {text.get_text() for text in legend.get_texts()}
    assert legend.get_window_extent().x1 <= canvas.bbox.x1
    assert canvas.axes[0].get_window_extent().width > 0.85 * canvas.bbox.width


def _texts_with_places(figure: Figure):
    return [e for e in ET.parse(figure.svg).getroot().iter("{http://www.w3.org/2000/svg}text") if e.get("y")]


def test_the_same_tables_give_the_same_bytes(figures, tmp_path):
    run = make_run(["COMPLETE"] * 3, parameters=("lr",))
    ours = [draw(run, tmp_path / name, importances={"lr": 1.0}) for name in ("a", "b")]
    for name in ours[0]:
        assert ours[0][name].svg.read_bytes() == ours[1][name].svg.read_bytes()
        assert ours[0][name].png.read_bytes() == ours[1][name].png.read_bytes()


def test_no_mistakes_are_said_to_be_none(tmp_path):
    predictions = make_predictions(tmp_path, [("a", "a", 0.9)] * 17)
    figure = draw(make_run([]), tmp_path, predictions, ["a", "b"])["predictions"]
    assert "No mistakes: all 17 validation images are classified right." in figure.caption
    assert texts(figure).count("✓") == 15
    assert "Right: 15 of 17" in texts(figure)


def test_where_all_are_wrong_mistakes_fill_the_figure(tmp_path):
    predictions = make_predictions(tmp_path, [("a", "b", 0.5 + i / 100) for i in range(20)])
    said = texts(draw(make_run([]), tmp_path, predictions, ["a", "b"])["predictions"])
    assert said.count("✗") == 15
    assert "Worst mistakes (15 of 20), the surest first" in said


def test_photographs_are_upright_and_a_lost_one_is_said(tmp_path):
    predictions = make_predictions(tmp_path, [("a", "a", 0.9), ("a", "a", 0.8)])
    image, exif = Image.new("RGB", (60, 40), "red"), Image.Exif()
    image.paste("blue", (0, 0, 30, 40))
    exif[0x0112] = 3  # upside down: blue is on the right
    image.save(tmp_path / "000.png", exif=exif)
    (tmp_path / "001.png").write_bytes(b"no image any more")
    figure = draw(make_run([]), tmp_path, predictions, ["a"])["predictions"]
    found = re.findall(r"data:image/\w+;base64,\s*([A-Za-z0-9+/=\s]+)", figure.svg.read_text())
    lost, turned = (Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for data in found)  # by confidence
    left, right = (turned.getpixel((int(turned.width * x), turned.height // 2)) for x in (0.25, 0.75))
    assert left[0] > 200 > 60 > left[2]
    assert right[2] > 200 > 60 > right[0]
    assert max(lost.getpixel((10, 10))) - min(lost.getpixel((10, 10))) < 8


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("<script>alert(1)</script>", "<script>ale…)</script>"),
        ("$x^2$ & co", "$x^2$ & co"),
        ("two\nlines\x07", "two lines"),
        ("蚂蚁", "蚂蚁"),
    ],
)
def test_class_names_of_any_kind_are_drawn_as_they_are(tmp_path, name, drawn):
    predictions = make_predictions(tmp_path, [(name, name, 0.9), ("other", "other", 0.9)])
    figure = draw(make_run([]), tmp_path, predictions, [name, "other"])["confusion"]
    assert texts(figure).count(drawn) == 2  # a row and a column


def test_twenty_classes_are_all_named(tmp_path):
    classes = [f"class number {i}" for i in range(20)]
    rows = [(name, classes[(i + i % 3) % 20], 0.9) for i, name in enumerate(classes)]
    figure = draw(make_run([]), tmp_path, make_predictions(tmp_path, rows), classes)["confusion"]
    said = texts(figure)
    assert all(said.count(name) == 2 for name in classes)
    assert said.count("1") == 20  # of many classes, no zeros
    assert "0" not in said


def test_where_every_trial_failed_only_the_history_is_drawn(tmp_path):
    figures = draw(make_run(["FAIL"] * 3), tmp_path)
    assert list(figures) == ["history"]
    assert "No trial reported an epoch." in texts(figures["history"])
    assert "3 trials: 3 failed." in figures["history"].caption


def test_one_trial_is_not_compared_with_itself(tmp_path):
    figures = draw(make_run(["COMPLETE"], parameters=("lr",)), tmp_path)
    assert list(figures) == ["curves", "history"]
    assert "stopped early" not in texts(figures["curves"])


def test_one_parameter_and_one_without_a_value(tmp_path):
    run = make_run(["COMPLETE", "PRUNED", "COMPLETE"], parameters=("lr", "gamma"))
    run.trials["gamma"] = np.nan
    figures = draw(run, tmp_path)
    assert panels(figures["slices"]) == 1
    assert "gamma" not in texts(figures["parallel"])


def test_a_large_run_stays_small_and_named(tmp_path):
    names = ("lr", "batch_size", "optimizer", "momentum", *(f"parameter_{i}" for i in range(8)))
    figures = draw(make_run(["COMPLETE", "PRUNED"] * 100, parameters=names), tmp_path)
    assert set(names) <= set(texts(figures["parallel"]))
    assert panels(figures["slices"]) == 12
    assert all(figure.svg.stat().st_size < 1_000_000 for figure in figures.values())


def test_many_given_configurations_share_one_name(tmp_path):
    run = make_run(["COMPLETE"] * 6, parameters=(), first=[f"first {i}" for i in range(6)])
    said = texts(draw(run, tmp_path)["history"])
    assert "given configurations" in said
    assert "first 3" not in said


def test_a_diverged_loss_does_not_flatten_the_others(tmp_path):
    run = make_run(["COMPLETE"] * 5, parameters=("lr",))
    run.trials.loc[2, "val_loss"] = 1e6
    run.curves.loc[run.curves["trial"] == 2, "val_loss"] = 1e6
    figures = draw(dataclasses.replace(run, metric="val_loss"), tmp_path)
    assert figures["curves"].caption.endswith("Losses that diverged leave at the top.")
    for name in ("history", "parallel", "slices"):
        assert figures[name].caption.endswith("those of 1 trials, are drawn there.")
    assert "lower is better" in figures["history"].caption


def confidences(*rows: tuple[float, bool]) -> Confidences:
    return Confidences(np.array([sure for sure, _ in rows]), np.array([right for _, right in rows]))


def test_reliability_tells_both_calibration_errors(tmp_path):
    before = confidences(*[(0.95, True)] * 6, *[(0.95, False)] * 2, (0.55, True))
    after = confidences(*[(0.75, True)] * 6, *[(0.75, False)] * 2, (0.55, True))
    figure = draw(make_run([]), tmp_path, reliability=Reliability(before, after, 2.5))["reliability"]
    assert "on 9 validation images" in figure.caption
    assert "A temperature of 2.5 changes no prediction" in figure.caption
    assert "goes from 22.8% to 5.0%" in figure.caption
    said = texts(figure)
    assert "as trained: expected calibration error 22.8%" in said
    assert "with temperature: expected calibration error 5.0%" in said
    assert (said.count("8"), said.count("1")) == (2, 2)  # images a bin
    assert said.count("40%") == 2  # on the upright axes; of two classes, no bin lies below a half


@pytest.mark.parametrize("rows", [[(0.4, True)], [(0.2, False), (1.0, True)]])
def test_reliability_is_drawn_of_few_images_and_without_a_temperature(tmp_path, rows):
    figure = draw(make_run([]), tmp_path, reliability=Reliability(confidences(*rows), images="test"))["reliability"]
    assert f"on {len(rows)} test images" in figure.caption
    assert "The expected calibration error is" in figure.caption
    assert panels(figure) == 2


def test_without_images_there_is_no_reliability(tmp_path):
    assert "reliability" not in draw(make_run([]), tmp_path, reliability=Reliability(confidences()))


def finalists(scores: dict[int, list[float]], winner: int, tied=(), metric="val_accuracy") -> Finalists:
    rows = [(trial, f"lr {trial}", seed, score) for trial, all_ in scores.items() for seed, score in enumerate(all_)]
    return Finalists(pd.DataFrame(rows, columns=["trial", "name", "seed", "score"]), winner, tied, metric)


def test_finalists_stand_in_the_order_of_their_means(tmp_path):
    given = finalists({3: [0.90, 0.92, 0.94], 7: [0.93, 0.93, 0.93], 9: [0.5, 0.5, 0.53]}, winner=7, tied=[7, 3])
    figure = draw(make_run([]), tmp_path, finalists=given)["finalists"]
    said = texts(figure)
    assert {"0.9300 ± 0.0000, chosen", "0.9200 ± 0.0115, tied", "0.5100 ± 0.0100"} <= set(said)
    heights = {element.text: float(element.get("y", 0)) for element in _texts_with_places(figure)}
    assert heights["0.9300 ± 0.0000, chosen"] < heights["0.9200 ± 0.0115, tied"] < heights["0.5100 ± 0.0100"]
    assert {"trial 7", "lr 7", "trial 3", "lr 3", "trial 9", "lr 9"} <= set(said)
    assert "3 configurations, each trained from 3 seeds; higher is better." in figure.caption
    assert "Tied: trial 3 lies within one standard error" in figure.caption


def test_finalists_of_one_seed_have_no_errors_and_of_losses_the_lowest_is_best(tmp_path):
    given = finalists({0: [0.2], 1: [0.1]}, winner=1, metric="val_loss")
    figure = draw(make_run([]), tmp_path, finalists=given)["finalists"]
    assert {"0.1000, chosen", "0.2000", "mean"} <= set(texts(figure))
    heights = {element.text: float(element.get("y", 0)) for element in _texts_with_places(figure)}
    assert heights["0.1000, chosen"] < heights["0.2000"]
    assert figure.caption == "2 configurations, each trained from one seed; lower is better."


def test_finalists_that_were_given_up_have_fewer_seeds_and_a_name_is_said_once(tmp_path):
    given = finalists({0: [0.9, 0.9, 0.9], 1: [0.5]}, winner=0)
    given.scores.loc[given.scores["trial"] == 0, "name"] = "trial 0"
    figure = draw(make_run([]), tmp_path, finalists=given)["finalists"]
    assert texts(figure).count("trial 0") == 1
    assert "each trained from 3 seeds, or fewer where it could not win any more;" in figure.caption


def test_finalists_may_differ_in_folds(tmp_path):
    given = dataclasses.replace(finalists({0: [0.9, 0.8], 1: [0.5, 0.6]}, winner=0), unit="fold")
    figure = draw(make_run([]), tmp_path, finalists=given)["finalists"]
    assert "a fold" in texts(figure)
    assert figure.caption == "2 configurations, each scored on 2 folds; higher is better."


def test_drawing_leaves_no_trace_in_matplotlib(tmp_path):
    before = dict(matplotlib.rcParams)
    draw(make_run(["COMPLETE"]), tmp_path)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("values", "kind", "ticks"),
    [
        ([1e-4, 3e-3, 0.1], "log", ["0.0001", "0.003", "0.1"]),
        ([4, 8, 16, 32], "log", ["4", "8", "16", "32"]),
        ([0.13e-3, 1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 0.085], "log", ["0.0001", "0.001", "0.01", "0.1"]),
        ([1, 2, 3], "linear", ["1", "2", "3"]),
        (list(range(1, 11)), "linear", ["2", "4", "6", "8", "10"]),
        ([0, 4, 50, 96, 100], "linear", ["0", "50", "100"]),
        ([0.0, 1e-5, 1e-2] * 2, "choices", ["0", "1e-05", "0.01"]),
        (["sgd", None, "adamw"], "choices", ["adamw", "sgd"]),
        ([True, False, True], "choices", ["False", "True"]),
        ([7.0, np.nan, 7.0], "linear", ["7"]),
    ],
)
def test_scales_fit_their_values(values, kind, ticks):
    scale = make_scale("parameter", pd.Series(values))
    assert scale is not None
    assert scale.kind == kind
    assert [text for _, text in scale.ticks] == ticks
    assert np.isnan(scale.places).tolist() == pd.isna(pd.Series(values)).tolist()
    known = scale.places[~np.isnan(scale.places)]
    assert ((known >= 0) & (known <= 1)).all()


def test_a_parameter_without_values_has_no_scale():
    assert make_scale("parameter", pd.Series([None, np.nan])) is None


def test_labels_are_shortened_in_the_middle():
    assert label("a very long name of a class", 15) == "a very …a class"
    assert label("caf\udce9") == "caf�"  # of a file name that is not UTF-8
    assert len(label("x" * 99, 15)) == 15


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["ants", "bees"], ["ants", "bees"]),
        (["the first kind of ant", "a bee"], ["the f…f ant", "a bee"]),
        ([f"kind number {i} of all the ants" for i in (7, 12)], ["…er 7 of…", "…er 12 of…"]),
        (["the same a b c d e and x the same", "the same a b d d e and x the same"], ["…a b c d e…", "…a b d d e…"]),
        (
            ["a first middle 1 last b", "a first middle 2 last b", "b first middle 1 last c"],
            ["0: a …ast b", "1: a …ast b", "2: b …ast c"],
        ),
        (["", "one", "one very long name of it", "one very xxxx name of it"], None),
    ],
)
def test_labels_of_classes_can_be_told_apart(names, labels):
    found = class_labels(names, 11)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    assert max(map(len, found.values())) <= 11
    if labels:
        assert list(found.values()) == labels


def test_neither_torch_nor_ray_nor_optuna_is_imported():
    code = "import sys, search.page; sys.exit(str({'torch', 'ray', 'optuna'} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("name", ["curves", "history", "parallel", "slices"])
def test_a_run_draws_itself_in_a_notebook(name):
    from matplotlib.figure import Figure

    run = make_run(["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"])
    assert isinstance(getattr(run, f"plot_{name}")(), Figure)
    assert repr(run) == "Run(results/run: 3 COMPLETE, 1 PRUNED; best: trial 3, val_accuracy 0.5230)"
