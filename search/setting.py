"""A setting that may be searched: which there are, what they accept, and which of them can be a range."""

from typing import Any, get_args

from search.problem import broken_rule, shown
from trainable.settings import TrainSettings

UNSEARCHED = {
    "epochs": "cannot be searched: the pruner decides how long a trial runs; give train.epochs instead",
    "views": "cannot be searched: all trials share the same views; give train.views instead",
    "precision": "cannot be searched: all trials share the same activations; give train.precision instead",
}
"""The settings under train: that cannot be searched, and why."""

SEARCHABLE = (*(key for key in TrainSettings.model_fields if key not in UNSEARCHED), "backbone")
CHANGES_VIEWS = ("augmentation", "crop_scale")


def broken(key: str, value: Any) -> str | None:
    """The rule that a value of the setting breaks, None if it breaks none."""
    if key == "backbone":
        return None if isinstance(value, str) and value else f"must be a name (got {shown(value)})"
    return broken_rule(TrainSettings, key, value)


def kind(key: str) -> Any:
    """The type of the setting's values."""
    return TrainSettings.model_fields[key].annotation if key != "backbone" else str


def no_range(key: str) -> str | None:
    """Why the setting cannot be a range, if it cannot."""
    if key in CHANGES_VIEWS:
        return (
            "cannot be a range, as each value has views of its own to compute; write {choices: […]} with a few values"
        )
    if key != "freeze_depth" and kind(key) not in (int, float):
        names = get_args(kind(key))
        return f"cannot be a range, as it is a name; write {{choices: [{', '.join(names) or '…'}]}}"
    return None
