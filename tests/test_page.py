"""The report's page: one file, nothing loaded, everything escaped."""

import base64
import html.parser
import re
from pathlib import Path

import pandas as pd
import pytest

import search.page
from search.figures import Figure
from search.page import write_page

EVIL = "<script>alert('x')</script> & \"co\""
VOID = {"meta", "img", "br"}
SVG = (
    '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="720.0pt" height="9pt"><text>hi</text></svg>'
)
TRIALS = pd.DataFrame(
    {
        "trial": [0, 1, 2],
        "state": ["COMPLETE", "PRUNED", "FAIL"],
        "value": [0.919999999637, 0.5, None],
        "best_epoch": [4.0, 1.0, None],
        "first": ["fine-tune everything", None, None],
        "lr": [0.00123456, 0.05, 0.1],
        "batch_size": [16.0, None, 4.0],
        "gamma": [None, None, None],
        "train_loss": [0.77777, 0.7, None],
        "val_accuracy": [0.92, 0.5, None],
        "node": ["vm", "vm", None],
        "reason": [None, "pruned", EVIL],
    }
)


class Reader(html.parser.HTMLParser):
    """Checks that tags are closed in order; collects rows of cells, and the attributes of all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def figure(tmp_path: Path) -> Figure:
    svg, png = tmp_path / "history.svg", tmp_path / "history.png"
    svg.write_text(SVG)
    png.write_bytes(b"")
    return Figure("history", EVIL, f"caption {EVIL}", svg, png)


def page(folder: Path, figures=(), trials=TRIALS, chosen=None, **texts) -> str:
    given = {"title": "Search", "verdict": ["It paid."], "facts": {"data": "elpv"}, "steps": [], "config": "a: 1"}
    write_page(folder / "report.html", **{**given, **texts}, figures=figures, trials=trials, chosen=chosen)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_everything_from_outside_is_escaped(tmp_path, figure):
    text = page(
        tmp_path,
        [figure],
        title=EVIL,
        verdict=[EVIL],
        facts={EVIL: EVIL},
        steps=[(EVIL, f"python -m search.predict {EVIL}")],
        config=f"classes: [{EVIL}]\nprice: $$5 ${{title}}",
    )
    reader = Reader(text)
    assert not reader.open
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;co&quot;") == 13
    assert "price: $$5 ${title}" in text


def test_nothing_is_loaded_from_anywhere(tmp_path, figure):
    text = page(tmp_path, [figure])
    assert "http://" not in text
    assert "https://" not in text
    for tag, name, value in Reader(text).attributes:
        assert tag not in ("script", "link", "iframe")
        assert not (name in ("src", "href", "srcset", "action") and not value.startswith("data:"))
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_a_figure_is_inlined_at_its_own_size(tmp_path, figure):
    text = page(tmp_path, [figure])
    (data,) = re.findall(r"src='data:image/svg\+xml;base64,([^']+)'", text)
    assert base64.b64decode(data).decode() == SVG
    assert "--width: 720.0pt" in text
    assert "<figcaption>caption &lt;script&gt;" in text


def test_the_verdict_comes_first_and_the_parts_in_order(tmp_path, figure):
    text = page(tmp_path, [figure], steps=[("Classify:", "python -m search.predict RUN")])
    marks = ["It paid.", "elpv", "python -m search.predict RUN", "id='history'", "All trials", "config.yaml"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_the_table_has_the_chosen_trial_first_and_short_numbers(tmp_path):
    text = page(tmp_path, chosen=1)
    head, *rows = [row for row in Reader(text).rows if len(row) > 2]
    assert head == ["trial", "state", "value", "best_epoch", "first", "lr", "batch_size", "reason"]
    assert rows == [
        ["1", "PRUNED", "0.5", "1", "–", "0.05", "–", "pruned"],
        ["0", "COMPLETE", "0.92", "4", "fine-tune everything", "0.001235", "16", "–"],
        ["2", "FAIL", "–", "–", "–", "0.1", "4", EVIL],
    ]
    assert text.count("<tr class='chosen'>") == 1
    assert "trial 1, the one that was retrained" in text


def test_without_a_chosen_trial_none_is_marked(tmp_path):
    text = page(tmp_path)
    assert "class='chosen'" not in text
    assert [row[0] for row in Reader(text).rows if len(row) > 2][1:] == ["0", "1", "2"]


def test_names_that_are_no_text_can_be_written(tmp_path):
    assert "caf?" in page(tmp_path, facts={"classes": "caf\udce9"})


def test_the_page_replaces_an_older_one_whole(tmp_path):
    page(tmp_path, title="older")
    text = page(tmp_path, title="newer")
    assert "older" not in text
    assert text.endswith("</html>\n")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_template_lies_beside_the_code():
    assert (Path(search.page.__file__).parent / "page.html").is_file()
