"""A figure's SVG file as a part of a page, in colours that follow the reader's light or dark scheme."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PAPER, _INK = (0x1B, 0x22, 0x2B), (0xE4, 0xE9, 0xEF)
"""What white and black become in the dark: ``--card`` and ``--ink`` of page.html."""

_KEPT = frozenset({"f5c04a"})
"""Gold stands out from both."""

_LUMA = (0.2126, 0.7152, 0.0722)

_REFERENCE = re.compile(r"url\(#([^)]+)\)|#([0-9a-f]{6})\b")


@dataclass(frozen=True)
class InlineSvg:
    """An ``<svg>`` element."""

    markup: str
    """HTML. Its ids begin with the figure's name; its colours are the variables that `colour_rules` defines."""
    colours: frozenset[str]
    """All its colours, such as ``0b3c6f``."""


def inline_svg(file: Path, name: str, description: str) -> InlineSvg:
    """Read a file that Matplotlib wrote, and shorten it to what a page needs; photographs stay as they are.

    Args:
        name: unique on the page.
        description: what those are told who do not see the figure.
    """
    root = ET.parse(file).getroot()
    for parent in list(root.iter()):
        for child in [child for child in parent if _bare(child.tag) in ("metadata", "style")]:
            parent.remove(child)
    used = {target for element in root.iter() for value in element.attrib.values() for target in _targets(value)}
    colours: set[str] = set()
    for element in root.iter():
        element.tag = _bare(element.tag)
        element.attrib = {
            _bare(key): _renamed(_bare(key), value, name, colours)
            for key, value in element.attrib.items()
            if key != "id" or value in used
        }
        element.tail = None
        element.text = element.text if (element.text or "").strip() else None
    root.attrib.pop("height", None)
    root.attrib |= {
        "role": "img",
        "aria-label": description,
        "preserveAspectRatio": "xMinYMin",
        "style": f"--width: {root.attrib.pop('width', '100%')}",
    }
    return InlineSvg(ET.tostring(root, encoding="unicode"), frozenset(colours))


def colour_rules(colours: Iterable[str]) -> tuple[str, str]:
    """Definitions of the variables for colours such as ``0b3c6f``: on white paper, and in the dark."""
    ordered = sorted(set(colours))
    return (
        " ".join(f"--k{colour}: #{colour};" for colour in ordered),
        " ".join(f"--k{colour}: #{in_the_dark(colour)};" for colour in ordered),
    )


def in_the_dark(colour: str) -> str:
    """A colour with its brightness mirrored and its hue kept: what stands out from white stands out from the dark."""
    if colour in _KEPT:
        return colour
    channels = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    shift = 1 - 2 * sum(weight * channel for weight, channel in zip(_LUMA, channels, strict=True))
    mirrored = [min(max(channel + shift, 0), 1) for channel in channels]
    mixed = (paper + (ink - paper) * share for paper, ink, share in zip(_PAPER, _INK, mirrored, strict=True))
    return "".join(f"{round(value):02x}" for value in mixed)


def _bare(name: str) -> str:
    """Without its namespace, which HTML does not have."""
    return name.rpartition("}")[2]


def _targets(value: str) -> list[str]:
    found = [match[1] for match in _REFERENCE.finditer(value) if match[1]]
    return [*found, value[1:]] if value.startswith("#") else found


def _renamed(key: str, value: str, name: str, colours: set[str]) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value[1:]}" if value.startswith("#") else value
    if key not in ("style", "clip-path", "fill"):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return f"url(#{name}-{match[1]})"
        colours.add(match[2])
        return f"var(--k{match[2]})"

    return _REFERENCE.sub(replace, value)
