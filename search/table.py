"""A table of the report's page: numbers short on the screen, exact for sorting."""

import html
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

_MOST = 200
"""Rows of a table beside the trials' one."""

_PATHS = ("path", "other_path")

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """A table with what it means; one without rows is left out of the page."""

    title: str
    note: str
    """A sentence or two of plain text: what the rows are, and what to do about them."""
    frame: pd.DataFrame
    """Any columns. Those named path and other_path are shown without the folder that all of them have in common."""


def render_table(table: Table, name: str) -> str:
    """A section of the page.

    Args:
        name: its id, unique on the page.
    """
    frame, folder = _shortened(table.frame.head(_MOST))
    notes = [table.note, f"Files lie in {folder}." if folder else ""]
    notes += [f"The first {_MOST} of {len(table.frame):,} rows."] if len(table.frame) > _MOST else []
    note = " ".join(filter(None, notes))
    return (
        f"<section id='{name}'>\n<h2>{escape(table.title)}</h2>\n<p class='note'>{escape(note)}</p>\n"
        f"{render_rows(frame, name + '-rows', table.title)}\n</section>"
    )


def render_rows(
    frame: pd.DataFrame,
    name: str,
    title: str,
    texts: Sequence[str] = (),
    look: Callable[[Row], str] = lambda row: "",
) -> str:
    """The table itself, in a box that scrolls.

    Args:
        name: its id.
        title: for those who do not see it.
        texts: columns that are texts even where they hold numbers, or nothing.
        look: the CSS class of a row.
    """
    kinds = [_kind(column, frame[column], texts) for column in frame.columns]
    heads = "".join(
        f"<th scope='col' class='{kind}'>{escape(column).replace('_', '_<wbr>')}</th>"
        for kind, column in zip(kinds, frame.columns, strict=True)
    )
    rows = "\n".join(
        f"<tr class='{look(row)}'>{''.join(map(_cell, kinds, row))}</tr>"
        for row in frame.itertuples(index=False, name=None)
    )
    return (
        f"<div class='scroll' tabindex='0' role='region' aria-label='{escape(title)}'>"
        f"<table class='sortable' id='{name}'>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def escape(text: object) -> str:
    """As HTML text or attribute value. File names may hold what is no text: lone surrogates become question marks."""
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"))


def short(value: Any) -> str:
    """Numbers with four significant digits; whole ones, which a missing value beside them made floats, as they are."""
    if pd.isna(value):
        return "–"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"
    return str(value)


def _kind(column: str, values: pd.Series, texts: Sequence[str]) -> str:
    if column in texts or not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return "text long" if values.astype(str).str.len().max() > 40 else "text"
    return "number"


def _cell(kind: str, value: Any) -> str:
    shown = short(value)
    exact = ""
    if pd.isna(value):
        kind += " missing"
    elif kind == "number" and float(shown) != value:
        exact = f" data-exact='{value!r}'"
    elif kind == "number" and math.isinf(value):
        exact = f" data-exact='{'-' if value < 0 else ''}Infinity'"
    return f"<td class='{kind}'{exact}>{escape(shown)}</td>"


def _shortened(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Without the folder that all paths have in common, and that folder; "" where they have none."""
    columns = [column for column in _PATHS if column in frame]
    paths = [str(path) for column in columns for path in frame[column].dropna()]
    if len(set(paths)) < 2 or not all(map(os.path.isabs, paths)):
        return frame, ""
    folder = os.path.commonpath(paths)
    if folder == os.path.sep:
        return frame, ""
    inside = {
        column: frame[column].map(lambda path: os.path.relpath(path, folder), na_action="ignore") for column in columns
    }
    return frame.assign(**inside), folder
