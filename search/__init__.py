"""The search: configuration, space, study, execution and report.

In a notebook: ``from search import load_run``, then ``run = load_run("results/RUN")``.
"""

from typing import Any

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    """`load_run`, imported only where it is used: pandas takes a moment."""
    if name == "load_run":
        from search.results import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
