"""The report's page in a real Chromium: wide and narrow, light and dark, by mouse and by keyboard."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_figures import draw, make_predictions, make_run

from search.finalists_chart import Finalists
from search.page import write_page
from search.reliability import Confidences, Reliability
from search.table import Table

pytestmark = pytest.mark.browser

CLASSES = ["ants", "bees with a name so long that no telephone shows it in one line"]
VIEWS = [(width, scheme) for width in (1200, 400) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The page of a run of 30 trials, with every figure and a table of each kind."""
    folder = tmp_path_factory.mktemp("a report")
    ants, bees = CLASSES
    predictions = make_predictions(
        folder / "val", [*[(ants, ants, 0.6 + i / 50) for i in range(9)], *[(bees, bees, 0.8)] * 9, (bees, ants, 0.97)]
    )
    run = make_run(["COMPLETE", "PRUNED", "PRUNED"] * 9 + ["FAIL"] * 3, first=["everything", "head"])
    run.trials.loc[[3, 4, 5], "lr"] = [0.1234567, 0.1234568, 0.1234566]
    run.trials["reason"] = [None] * 27 + ["RuntimeError: out of memory in /a/folder/" + "deep/" * 30] * 3
    shown = Confidences(predictions["confidence"].to_numpy(), predictions["correct"].to_numpy(bool))
    seeds = pd.DataFrame({"trial": [24, 24, 0], "name": "lr 0.01", "seed": [0, 1, 0], "score": [0.56, 0.54, 0.52]})
    figures = draw(
        run, folder / "figures", predictions, CLASSES, importances={"lr": 0.7, "momentum": 0.3}, chosen=24,
        reliability=Reliability(shown, shown, 1.3), finalists=Finalists(seeds, 24, [24], "val_accuracy"),
    )  # fmt: skip
    mistakes = predictions.loc[~predictions["correct"], ["path", "class", "predicted", "confidence"]]
    write_page(
        folder / "report.html", "Search", ["It paid.", "Expect less.", "It is exact."], {"classes": ", ".join(CLASSES)},
        [("Classify:", "python -m search.predict results/run " + "a_long_name_of_a_folder/" * 9)],
        list(figures.values()), run.trials, "search:\n  trials: 30\n", 24, lead="lite0", versions={"torch": "2.14"},
        tables=[Table("Mistakes", "Look at them.", mistakes)], reproduce=[("Again:", "python -m search.run")],
    )  # fmt: skip
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        missing = "needs one of chromium, chromium-browser and google-chrome on PATH"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"], timeout=180_000)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, report):
    """Opens the page; in the end, nothing may have been said on the console and nothing loaded but the file."""
    contexts, said, asked = [], [], []

    def open_page(width: int = 1200, scheme: str = "light", **options):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
        page.goto(report.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}


def column(page, name: str) -> list[str]:
    """The visible texts of a column of trials, from top to bottom."""
    heads = page.locator("#trials-rows thead th").all_inner_texts()
    at = heads.index(name)
    return page.locator(f"#trials-rows tbody tr:visible td:nth-child({at + 1})").all_inner_texts()


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


def cut(shot: np.ndarray, box: dict[str, float]) -> np.ndarray:
    """The part inside a border of two pixels."""
    left, top, right, bottom = (
        round(box["x"]) + 2, round(box["y"]) + 2, int(box["x"] + box["width"]) - 2, int(box["y"] + box["height"]) - 2,
    )  # fmt: skip
    return shot[top:bottom, left:right]


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_is_wider_than_the_window(visit, width, scheme):
    page = visit(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("figure svg").count() == 9
    for svg in page.locator("figure svg").all():
        assert svg.bounding_box()["width"] > 250


@pytest.mark.parametrize(("width", "scheme"), [(1200, "dark"), (1200, "light"), (400, "dark")])
def test_the_dark_page_is_dark_with_its_figures_and_the_light_one_light(visit, width, scheme):
    page = visit(width, scheme)
    whole = pixels(page.screenshot(full_page=True))
    boxes = [sheet.bounding_box() for sheet in page.locator("figure:not(#predictions *) .sheet").all()]
    shots = [whole, *(cut(whole, box) for box in boxes)]
    assert len(shots) == 9
    for shot in shots:
        paper = np.median(shot, axis=(0, 1))
        assert paper.max() < 60 if scheme == "dark" else paper.min() > 235
        assert np.ptp(shot.mean(axis=2)) > 120  # texts and lines stand out


def test_photographs_are_the_same_in_the_dark(visit):
    shots = []
    for scheme in ("light", "dark"):
        photo = visit(1200, scheme).locator("#predictions image").first
        shot = pixels(photo.screenshot())
        shots.append(shot[len(shot) // 2, shot.shape[1] // 2])
    assert (shots[0] == shots[1]).all()


def test_a_click_on_a_head_sorts_and_another_reverses(visit):
    page = visit()
    head = page.locator("#trials-rows th", has_text="momentum")
    assert head.get_attribute("aria-sort") is None
    before = column(page, "momentum")
    known = sorted(map(float, filter(lambda text: text != "–", before)))
    missing = before.count("–")
    assert missing >= 10
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [*map(float, column(page, "momentum")[:-missing])] == known
    assert column(page, "momentum")[-missing:] == ["–"] * missing
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [*map(float, column(page, "momentum")[:-missing])] == known[::-1]
    assert column(page, "momentum")[-missing:] == ["–"] * missing
    page.locator("#trials-rows th", has_text="trial").locator("button").click()
    assert head.get_attribute("aria-sort") is None
    assert column(page, "trial") == [str(number) for number in range(30)]  # as numbers, not as texts


def test_numbers_shown_alike_are_sorted_by_all_their_digits(visit):
    page = visit()
    page.locator("#trials-rows th", has_text="lr").locator("button").click()
    assert column(page, "lr")[-3:] == ["0.1235"] * 3
    assert column(page, "trial")[-3:] == ["5", "3", "4"]


def test_all_can_be_done_by_keyboard(visit):
    page = visit()
    page.get_by_label("Filter").focus()
    page.keyboard.type("pruned")
    assert page.locator("output").inner_text() == "18 of 30 trials"
    assert set(column(page, "state")) == {"PRUNED"}
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    assert page.locator("output").inner_text() == "30 of 30 trials"
    page.keyboard.press("Tab")
    page.keyboard.type("FAIL")  # chooses in the list
    assert page.locator("output").inner_text() == "3 of 30 trials"
    page.keyboard.press("Tab")  # the table's own scroll box
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "trial"
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert column(page, "trial") == ["29", "28", "27"]


def test_filters_join_and_find_nothing_too(visit):
    page = visit(400)
    page.get_by_label("State").select_option("COMPLETE")
    page.get_by_label("Filter").fill(" SGD ")
    assert set(column(page, "optimizer")) == {"sgd"}
    assert set(column(page, "state")) == {"COMPLETE"}
    page.get_by_label("Filter").fill("no such text")
    assert page.locator("output").inner_text() == "0 of 30 trials"
    assert column(page, "trial") == []


def test_paper_shows_every_row_in_light_colours_and_no_controls(visit):
    page = visit(1200, "dark")
    page.get_by_label("Filter").fill("no such text")
    page.emulate_media(media="print", color_scheme="dark")
    assert len(column(page, "trial")) == 30
    assert not page.locator(".filter").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('#history svg text')).fill") == "rgb(51, 51, 51)"


def test_without_scripts_all_is_there_but_the_controls(visit):
    page = visit(java_script_enabled=False)
    assert len(column(page, "trial")) == 30
    assert not page.locator(".filter").is_visible()
    assert page.locator("th button").count() == 0
    assert page.locator("figure svg").count() == 9
