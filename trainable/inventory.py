"""What the memo holds, listed and removed: ``python -m trainable.memo``."""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainable.blocks import BlockStore, StoredView
from trainable.cache import cache_folder

MEMO = "memo"
"""The memo's folder in the user's cache."""


def main(arguments: Sequence[str] | None = None) -> int:
    """List what is stored, by data set and backbone; or remove it."""
    parser = argparse.ArgumentParser(prog="python -m trainable.memo", description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=cache_folder() / MEMO, help="the memo (default: %(default)s)")
    parser.add_argument("--data", metavar="TEXT", help="only what was made of a data set whose folder contains TEXT")
    parser.add_argument("--backbone", metavar="NAME", help="only this backbone's")
    parser.add_argument("--clear", action="store_true", help="remove it, but for what a search uses at the moment")
    options = parser.parse_args(arguments)
    store = BlockStore(options.folder, 0, 0)
    views = [view for view in store.views() if _chosen(view, options)]
    if options.clear:
        store.sweep()
        removed = [view for view in views if store.remove(view)]
        print(f"removed {len(removed)} of {len(views)} views, {format_bytes(sum(view.bytes for view in removed))}")
    else:
        print(f"{options.folder}: {len(views)} views, {format_bytes(sum(view.bytes for view in views))}")
        print(*_table(views), sep="\n", end="\n" if views else "")
    return 0


def format_bytes(count: float) -> str:
    """``1536`` as ``1.5 kB``: powers of 1,024."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _chosen(view: StoredView, options: argparse.Namespace) -> bool:
    data, backbone = str(view.about.get("data", "")), view.about.get("backbone")
    return (options.data is None or options.data in data) and options.backbone in (None, backbone)


def _table(views: Sequence[StoredView]) -> Iterator[str]:
    groups: dict[tuple[str, ...], list[StoredView]] = {}
    for view in views:
        key = tuple(str(view.about.get(name, "unknown")) for name in ("data", "backbone", "precision"))
        groups.setdefault(key, []).append(view)
    for (data, backbone, precision), members in groups.items():
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(view.used for view in members)))
        size = format_bytes(sum(view.bytes for view in members))
        yield f"  {data}  {backbone}  {precision}  {len(members)} views  {size}  last used {used}"
