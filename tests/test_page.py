"""The report's page: one file, nothing loaded, everything escaped."""

import base64
import hashlib
import html.parser
import re
from pathlib import Path

import pandas as pd
import pytest

import search.page
from search.figures import Figure
from search.inline_svg import in_the_dark
from search.page import write_page
from search.table import Table

EVIL = "<script>alert('x')</script> & \"co\""
VOID = {"meta", "input", "wbr"}
SVG = """<?xml version="1.0"?>
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="720pt" height="9pt" viewBox="0 0 720 9" xmlns="http://www.w3.org/2000/svg">
 <metadata>http://purl.org/dc/elements/1.1/</metadata>
 <defs><style type="text/css">*{stroke-linejoin: round}</style></defs>
 <g id="unused"><path id="mark" d="M 0 0" style="fill: #ffffff; stroke: #0b3c6f"/></g>
 <use xlink:href="#mark" clip-path="url(#facade)" style="fill: url(#facade); stroke: #0b3c6f"/>
 <clipPath id="facade"/><image xlink:href="data:image/jpeg;base64,AAAA" id="photo"/>
 <text style="fill: #333333">#c0ffee &lt;script&gt;</text>
</svg>"""
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
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.links += [value for name, value in attrs if (tag, name) == ("a", "href")]
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
        lead=EVIL,
        tables=[Table(EVIL, EVIL, pd.DataFrame({EVIL: [EVIL]}))],
        versions={EVIL: EVIL},
        reproduce=[(EVIL, EVIL)],
    )
    reader = Reader(text)
    assert not reader.open
    assert text.count("<script") == 1  # the page's own
    assert text.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;co&quot;") == 22
    assert "price: $$5 ${title}" in text


def test_nothing_is_loaded_from_anywhere(tmp_path, figure):
    text = page(tmp_path, [figure])
    assert "http://" not in text
    assert "https://" not in text
    for tag, name, value in Reader(text).attributes:
        assert tag not in ("link", "iframe")
        assert not (name in ("src", "href", "srcset", "action") and not value.startswith(("data:", "#")))
    assert set(re.findall(r"url\(.", text)) == {"url(#"}
    assert "@import" not in text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}';" in text


def test_a_figure_is_part_of_the_page_in_colours_of_its_scheme(tmp_path, figure):
    text = page(tmp_path, [figure])
    drawn = text[text.index("<svg") : text.index("</svg>")]
    assert "--width: 720pt" in drawn
    assert 'aria-label="&lt;script&gt;' in drawn
    assert 'role="img"' in drawn
    assert "fill: var(--kffffff); stroke: var(--k0b3c6f)" in drawn
    assert "#c0ffee &lt;script&gt;" in drawn  # a text, not a colour
    assert "--k0b3c6f: #0b3c6f;" in text
    assert f"--k0b3c6f: #{in_the_dark('0b3c6f')};" in text
    assert "<figcaption>caption &lt;script&gt;" in text
    assert "metadata" not in drawn
    assert "<style" not in drawn


def test_ids_of_figures_do_not_meet(tmp_path, figure):
    again = Figure("again", "again", "again", figure.svg, figure.png)
    attributes = Reader(page(tmp_path, [figure, again])).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {"history-mark", "again-mark", "history-facade"} <= set(ids)
    assert "history-photo" not in ids  # nothing refers to it
    used = [value for tag, name, value in attributes if tag == "use" and name == "href"]
    assert used == ["#history-mark", "#again-mark"]
    assert [value for tag, name, value in attributes if tag == "use" and name == "clip-path"] == [
        "url(#history-facade)",
        "url(#again-facade)",
    ]


@pytest.mark.parametrize("colour", ["ffffff", "000000", "0b3c6f", "c24e00", "007f5c", "56a0c8", "b4b4b4", "e6e6e6"])
def test_what_stands_out_from_white_stands_out_from_the_dark(colour):
    def contrast(one: str, other: str) -> float:
        light, dark = sorted((luminance(one), luminance(other)), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    def luminance(text: str) -> float:  # WCAG 2
        channels = [int(text[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = contrast(colour, "ffffff"), contrast(in_the_dark(colour), in_the_dark("ffffff"))
    assert dark >= min(4.5, light) or dark == pytest.approx(light, rel=0.25)


def test_the_dark_ends_are_those_of_the_page():
    template = (Path(search.page.__file__).parent / "page.html").read_text()
    dark = template[template.index("prefers-color-scheme: dark") : template.index("$dark")]
    assert f"--card: #{in_the_dark('ffffff')};" in dark
    assert f"--ink: #{in_the_dark('000000')};" in dark


def test_the_verdict_comes_first_and_the_parts_in_order(tmp_path, figure):
    text = page(
        tmp_path,
        [figure],
        verdict=["It paid.", "It is honest.", "It is long."],
        steps=[("Classify:", "python -m search.predict RUN")],
        lead="lite0 on elpv",
        tables=[Table("Classes", "Each one.", pd.DataFrame({"class": ["ant"]}))],
        versions={"torch": "2.14"},
        reproduce=[("Search again:", "python -m search.run")],
    )
    marks = ["<h1>", "lite0 on elpv", "It paid.", "It is honest.", "</section>", "It is long.", "search.predict RUN"]
    marks += ["id='history'", "id='trials'", "id='table-1'", "id='made'", "search.run", "2.14", "config.yaml"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_tables_show_what_comes_and_none_without_rows(tmp_path):
    shown = pd.DataFrame(
        {"path": ["/data/val/ant/1.png", "/data/val/bee/2.png"], "class": ["ant", "bee"], "f1": [2 / 3, None]}
    )
    tables = [Table("Empty", "Not there.", shown.head(0)), Table("Mistakes", "Look at them.", shown)]
    text = page(tmp_path, tables=tables)
    assert "Empty" not in text
    assert "Look at them. Files lie in /data/val." in text
    assert [row for row in Reader(text).rows if len(row) == 3] == [
        ["path", "class", "f1"],
        ["ant/1.png", "ant", "0.6667"],
        ["bee/2.png", "bee", "–"],
    ]
    assert "<td class='number' data-exact='0.6666666666666666'>0.6667</td><" in text.replace("\n", "")
    assert "<td class='number missing'>–</td>" in text
    assert Reader(text).links == ["#trials", "#table-2", "#made"]


def test_a_long_table_is_cut_and_says_so(tmp_path):
    text = page(
        tmp_path, tables=[Table("Mistakes", "Look.", pd.DataFrame({"class": ["ant"] * 1234, "n": range(1234)}))]
    )
    assert "Look. The first 200 of 1,234 rows." in text
    assert len([row for row in Reader(text).rows if len(row) == 2 and row[0] == "ant"]) == 200


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
    for name in ("page.html", "page.js"):
        assert (Path(search.page.__file__).parent / name).is_file()
