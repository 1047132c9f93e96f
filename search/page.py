"""The report as one HTML file that needs nothing but a browser: no network, no file beside it, and a script of its own
that only sorts and filters tables."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import pandas as pd

from search.figures import Figure
from search.inline_svg import InlineSvg, colour_rules, inline_svg
from search.table import Row, Table, escape, render_rows, render_table, short
from trainable.settings import EPOCH_METRICS
from trainable.whole import written_whole

_TEMPLATE, _SCRIPT = (Path(__file__).parent / name for name in ("page.html", "page.js"))

_HIDDEN = tuple(name for name in EPOCH_METRICS if name.startswith(("train_", "val_")))
"""Columns of ``trials.csv`` that are left to that file: the page's table has ``value`` and the parameters."""

_TEXT = ("state", "first", "node", "reason")

_FIRST = 2
"""Paragraphs of the verdict that stand out."""


def write_page(
    file: Path,
    title: str,
    verdict: Sequence[str],
    facts: Mapping[str, object],
    steps: Sequence[tuple[str, str]],
    figures: Sequence[Figure],
    trials: pd.DataFrame,
    config: str,
    chosen: int | None = None,
    *,
    lead: str = "",
    tables: Sequence[Table] = (),
    versions: Mapping[str, object] | None = None,
    reproduce: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the page; all texts are plain texts, whatever characters they hold.

    Args:
        verdict: paragraphs, the most important first: the first two stand out.
        facts: how the model was made: label to value.
        steps: what to do with the model: (explanation, shell command).
        trials: ``trials.csv``; shown without empty columns, the metrics but for ``value``, and a node that is all.
        config: the run's ``config.yaml``.
        chosen: the number of the trial to be put first and marked; None: none of them.
        lead: a line below the title, such as the backbone and the data; may be empty.
        tables: further ones, shown after the trials.
        versions: of Python and the packages: name to version.
        reproduce: how to get the same again: (explanation, shell command).
    """
    script = _SCRIPT.read_text(encoding="utf-8")
    drawn = [inline_svg(figure.svg, figure.name, f"{figure.title}: {figure.caption}") for figure in figures]
    light, dark = colour_rules(colour for svg in drawn for colour in svg.colours)
    text = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        light=light,
        dark=dark,
        title=escape(title),
        lead=f"<p class='lead'>{escape(lead)}</p>" if lead else "",
        verdict=_paragraphs(verdict[:_FIRST]),
        more=_paragraphs(verdict[_FIRST:]),
        contents=_contents(figures, tables),
        steps=_section("use", "Use the model", _steps(steps)),
        figures="\n".join(map(_figure, figures, drawn)),
        trials=_section("trials", "All trials", _trials(trials, chosen)),
        tables="\n".join(render_table(table, name) for name, table in _named(tables)),
        made=_section("made", "How it was made", _facts(facts) or " "),
        reproduce=_section("reproduce", "Make it again", _steps(reproduce) + _facts(versions or {})),
        config=escape(config),
    )
    with written_whole(file) as draft:
        draft.write_text(text, encoding="utf-8")


def _paragraphs(texts: Sequence[str]) -> str:
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts)


def _named(tables: Sequence[Table]) -> list[tuple[str, Table]]:
    return [(f"table-{at}", table) for at, table in enumerate(tables, 1) if len(table.frame)]


def _contents(figures: Sequence[Figure], tables: Sequence[Table]) -> str:
    places = [(figure.name, "Figures") for figure in figures[:1]]
    places += [("trials", "All trials"), *((name, table.title) for name, table in _named(tables))]
    links = "\n".join(
        f"<a href='#{escape(name)}'>{escape(title)}</a>" for name, title in [*places, ("made", "How it was made")]
    )
    return f"<nav aria-label='Contents'>\n{links}\n</nav>"


def _section(name: str, title: str, body: str) -> str:
    return f"<section id='{name}'>\n<h2>{title}</h2>\n{body}\n</section>" if body else ""


def _facts(facts: Mapping[str, object]) -> str:
    rows = "\n".join(f"<tr><th scope='row'>{escape(k)}</th><td>{escape(short(v))}</td></tr>" for k, v in facts.items())
    return f"<table class='facts'><tbody>\n{rows}\n</tbody></table>" if facts else ""


def _steps(steps: Sequence[tuple[str, str]]) -> str:
    items = "\n".join(f"<li>{escape(why)}<pre><code>{escape(command)}</code></pre></li>" for why, command in steps)
    return f"<ol>\n{items}\n</ol>" if steps else ""


def _figure(figure: Figure, svg: InlineSvg) -> str:
    return (
        f"<section id='{escape(figure.name)}'>\n<h2>{escape(figure.title)}</h2>\n<figure>\n"
        f"<figcaption>{escape(figure.caption)}</figcaption>\n"
        f"<div class='sheet' tabindex='0'>{svg.markup}</div>\n</figure>\n</section>"
    )


def _trials(trials: pd.DataFrame, chosen: int | None) -> str:
    columns = [name for name in trials.columns if name not in _HIDDEN and trials[name].notna().any()]
    if "node" in columns and trials["node"].nunique() == 1:
        columns.remove("node")
    table = trials[columns]
    if chosen is not None:
        table = pd.concat([table[table["trial"] == chosen], table[table["trial"] != chosen]])
    trial = columns.index("trial")
    state = columns.index("state") if "state" in columns else None

    def look(row: Row) -> str:
        return "chosen" if row[trial] == chosen else "" if state is not None and row[state] == "COMPLETE" else "other"

    note = "" if chosen is None else f"<p class='note'>First, in bold: trial {chosen}, the one that was retrained.</p>"
    states = _states(table["state"], state) if state is not None else ""
    filters = (
        "<div class='filter' data-table='trials-rows' data-noun='trials' hidden>\n"
        f"<label>Filter <input type='search' autocomplete='off' spellcheck='false'></label>\n{states}\n"
        "<output aria-live='polite'></output>\n</div>"
    )
    return f"{note}\n{filters}\n{render_rows(table, 'trials-rows', 'All trials', _TEXT, look)}"


def _states(states: pd.Series, column: int) -> str:
    options = "".join(f"<option>{escape(state)}</option>" for state in sorted(states.dropna().unique()))
    return f"<label>State <select data-column='{column}'><option value=''>all</option>{options}</select></label>"
