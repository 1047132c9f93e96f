"""The report as one HTML file that needs nothing but a browser: no network, no script, no file beside it."""

import base64
import html
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from search.figures import Figure
from trainable.settings import EPOCH_METRICS

_TEMPLATE = Path(__file__).parent / "page.html"

_HIDDEN = tuple(name for name in EPOCH_METRICS if name.startswith(("train_", "val_")))
"""Columns of ``trials.csv`` that are left to that file: the page's table has ``value`` and the parameters."""

_TEXT = ("state", "first", "node", "reason")


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
) -> None:
    """Write the page; all texts are plain texts, whatever characters they hold.

    Args:
        verdict: paragraphs, the first of them the most important.
        facts: label to value.
        steps: what to do with the model: (explanation, shell command).
        trials: ``trials.csv``; shown without empty columns, the metrics but for ``value``, and a node that is all.
        config: the run's ``config.yaml``.
        chosen: the number of the trial to be put first and marked; None: none of them.
    """
    text = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=_escape(title),
        verdict="\n".join(f"<p>{_escape(paragraph)}</p>" for paragraph in verdict),
        facts=_facts(facts),
        steps=_steps(steps),
        figures="\n".join(_figure(figure) for figure in figures),
        trials=_trials(trials, chosen),
        config=f"<h2>Configuration</h2>\n<details><summary>config.yaml</summary>\n<pre>{_escape(config)}</pre></details>",
    )
    partial = file.with_name("." + file.name)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def _escape(text: object) -> str:
    """As HTML text or attribute value. File names may hold what is no text: lone surrogates become question marks."""
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"))


def _facts(facts: Mapping[str, object]) -> str:
    rows = "\n".join(
        f"<tr><th scope='row'>{_escape(k)}</th><td>{_escape(_cell(v))}</td></tr>" for k, v in facts.items()
    )
    return f"<table class='facts'><tbody>\n{rows}\n</tbody></table>" if facts else ""


def _steps(steps: Sequence[tuple[str, str]]) -> str:
    items = "\n".join(f"<li>{_escape(why)}<pre><code>{_escape(command)}</code></pre></li>" for why, command in steps)
    return f"<h2>Use the model</h2>\n<ol>\n{items}\n</ol>" if steps else ""


def _figure(figure: Figure) -> str:
    data = base64.b64encode(figure.svg.read_bytes()).decode()  # the photographs in it are JPEG, smaller than the PNG
    title, caption = _escape(figure.title), _escape(figure.caption)
    return (
        f"<section id='{_escape(figure.name)}'>\n<h2>{title}</h2>\n<figure>\n<figcaption>{caption}</figcaption>\n"
        f"<div class='sheet' tabindex='0'><img style='--width: {_svg_width(figure.svg)}' alt='{title}: {caption}' "
        f"src='data:image/svg+xml;base64,{data}'></div>\n</figure>\n</section>"
    )


def _svg_width(svg: Path) -> str:
    """The figure's own size in CSS; Matplotlib writes points."""
    found = re.search(r'<svg\b[^>]*?\swidth="([\d.]+)pt"', svg.read_text(encoding="utf-8"))
    return f"{found[1]}pt" if found else "100%"


def _trials(trials: pd.DataFrame, chosen: int | None) -> str:
    columns = [name for name in trials.columns if name not in _HIDDEN and trials[name].notna().any()]
    if "node" in columns and trials["node"].nunique() == 1:
        columns.remove("node")
    table = trials[columns]
    if chosen is not None:
        table = pd.concat([table[table["trial"] == chosen], table[table["trial"] != chosen]])
    head = "".join(f"<th scope='col' class='{_kind(name, table[name])}'>{_escape(name)}</th>" for name in columns)
    kinds = [_kind(name, table[name]) for name in columns]
    rows = "\n".join(_row(dict(zip(columns, row, strict=True)), kinds, chosen) for row in table.itertuples(index=False))
    note = "" if chosen is None else f"<p class='note'>First, in bold: trial {chosen}, the one that was retrained.</p>"
    return (
        f"<h2>All trials</h2>\n{note}\n<div class='scroll' tabindex='0'><table class='trials'>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(row: Mapping[str, Any], kinds: Sequence[str], chosen: int | None) -> str:
    look = "chosen" if row["trial"] == chosen else "" if row.get("state") == "COMPLETE" else "other"
    cells = "".join(f"<td class='{kind}'>{_escape(_cell(v))}</td>" for kind, v in zip(kinds, row.values(), strict=True))
    return f"<tr class='{look}'>{cells}</tr>"


def _kind(name: str, column: pd.Series) -> str:
    if name == "reason":
        return "text reason"
    return "text" if name in _TEXT or not pd.api.types.is_numeric_dtype(column) else "number"


def _cell(value: Any) -> str:
    """Numbers with four significant digits; whole ones, which a missing value beside them made floats, as they are."""
    if pd.isna(value):
        return "–"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)
