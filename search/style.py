"""How every figure looks: one style, one palette, one way to write texts and files."""

import base64
import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

GOOD, BAD, PLAIN, FADED, CHOSEN, INK = "#007F5C", "#C24E00", "#56A0C8", "#B4B4B4", "#0B3C6F", "#333333"
"""Right, wrong, a complete trial, a pruned one, the chosen one, text. Green, vermilion and blues are near Okabe and
Ito's, which colour-blind people tell apart; every colour comes with a mark or a line style of its own."""

SCALE = LinearSegmentedColormap.from_list("scale", ["#E8E4D0", "#A6CFC4", "#4A97B8", "#1D5C9B", "#0A2A5C"], N=32)
"""From poor to good: how far it is from the paper alone says which. So few colours that a page can name each."""

WIDTH = 10.0
"""Inches of a full-width figure: 960 px in a browser."""

SMALL = 8.5
"""Points of what need not be read first."""

_PNG_BYTES = 1_000_000


@contextmanager
def report_style() -> Iterator[None]:
    """Draws in the report's style while it lasts."""
    # Class names in scripts that DejaVu lacks are right in the SVG, and in the PNG where one of these fonts is there.
    others = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans Devanagari")
    known = set(font_manager.get_font_names())
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.family": ["DejaVu Sans", *(name for name in others if name in known)],
                "font.size": 10,
                "axes.labelsize": 10,
                "axes.titlesize": 10.5,
                "axes.titlelocation": "left",
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.edgecolor": "#888888",
                "axes.labelcolor": INK,
                "axes.axisbelow": True,
                "axes.grid": False,
                "grid.color": "#E6E6E6",
                "text.color": INK,
                "xtick.color": INK,
                "ytick.color": INK,
                "xtick.labelsize": 9,
                "ytick.labelsize": 9,
                "legend.frameon": False,
                "legend.fontsize": 9,
                "text.parse_math": False,  # a class may be named "$5 and $10"
                "svg.fonttype": "none",
                "svg.hashsalt": "report",
            }
        )
        yield


def new_canvas(width: float, height: float, pad: float = 0.04, gap: float = 0.02) -> Canvas:
    """An empty figure of a size in inches, which no window and no global list knows of.

    Args:
        pad: inches around each panel.
        gap: between panels, as a share of their width.
    """
    return Canvas(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=pad, h_pad=pad, wspace=gap))


def save(canvas: Canvas, folder: Path, name: str) -> tuple[Path, Path]:
    """Writes ``name``.svg and ``name``.png (150 dpi), the same bytes for the same figure."""
    folder.mkdir(parents=True, exist_ok=True)
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    text = io.StringIO()
    canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")  # as wide, and everywhere
    svg.write_text(_EMBEDDED.sub(_as_jpeg, drawn), encoding="utf-8")
    canvas.savefig(png, dpi=150, metadata={"Software": None})
    if png.stat().st_size > _PNG_BYTES:
        with Image.open(png) as image:
            colours = image.convert("RGB")
        palette = colours.quantize(255)
        palette.putpalette([*(palette.getpalette() or [])[: 3 * 255], 255, 255, 255])  # paper stays white
        colours.quantize(palette=palette).save(png, optimize=True)
    return svg, png


def label(text: object, most: int = 40) -> str:
    """A text from outside as it can be drawn: one line, printable, at most ``most`` characters (the middle goes)."""
    one = "".join(c if c.isprintable() else "�" if "\ud800" <= c <= "\udfff" else " " for c in str(text))
    one = " ".join(one.split())
    if len(one) <= most:
        return one
    tail = (most - 1) // 2
    return f"{one[: most - 1 - tail]}…{one[len(one) - tail :]}"


def class_labels(names: Sequence[str], most: int) -> dict[str, str]:
    """Each class's name as it can be drawn, shortened to ``most`` characters so that one can tell them apart: where the
    middle makes the difference, their common beginning and end go, and where nothing is left, they are numbered."""
    labels = {name: label(name, most) for name in names}
    if len(set(labels.values())) < len(labels):
        start = _alike(names)
        end = min(_alike([name[::-1] for name in names]), min(map(len, names)) - start)
        around = max(0, most - 2 - (max(map(len, names)) - start - end)) // 2  # as much of what is common as fits
        start, end = max(0, start - around), max(0, end - around)
        labels = {name: label(f"…{name[start : len(name) - end]}…", most) for name in labels}
    if len(set(labels.values())) < len(labels):
        labels = {name: label(f"{at}: {name}", most) for at, name in enumerate(labels)}
    return labels


def _alike(names: Sequence[str]) -> int:
    """How many characters at the beginning all have in common."""
    shortest = min(map(len, names))
    return next((at for at in range(shortest) if len({name[at] for name in names}) > 1), shortest)


def metric_label(metric: str) -> str:
    """ "val_accuracy" as "validation accuracy"."""
    return metric.replace("val_", "validation ").replace("train_", "training ").replace("_", " ").replace("f1", "F1")


def legend_above(axes: Axes, columns: int = 6) -> None:
    """A legend where no data is: above the axes, from the left, in rows of about the same length."""
    names = axes.get_legend_handles_labels()[1]
    inches = sum(0.62 + 0.055 * len(name) for name in names)  # about, with their marks
    rows = max(math.ceil(len(names) / columns), math.ceil(inches / (0.88 * WIDTH)), 1)
    even = max(math.ceil(len(names) / rows), 1)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=even, handletextpad=0.5, columnspacing=1.6)


_EMBEDDED = re.compile(r"data:image/png;base64,\s*([A-Za-z0-9+/=\s]+)")


def _as_jpeg(match: re.Match[str]) -> str:
    """Matplotlib embeds pictures as PNG; photographs are a tenth of that as JPEG. Flat or transparent ones stay PNG."""
    with Image.open(io.BytesIO(base64.b64decode(match[1]))) as image:
        opaque = image.convert("RGBA").getchannel("A").getextrema()[0] == 255
        packed = io.BytesIO()
        image.convert("RGB").save(packed, "JPEG", quality=88)
    jpeg = f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return jpeg if opaque and len(jpeg) < len(match[0]) else match[0]
