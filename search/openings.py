"""The record of when the sealed test images were opened, and for what: the more often, the less they are worth."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from search.results import write_table

OPENINGS = "openings.csv"


@dataclass(frozen=True)
class Opening:
    """One look at the test images."""

    time: str
    trial: int
    weights: str
    """A digest of the model that was judged, as trained on the training images alone."""
    trained_on: str
    """train, or train+val: a model that learnt from the validation images, too, from the same settings."""


def record_opening(run: Path, trial: int, weights: str, trained_on: str) -> list[Opening]:
    """Write down that the test images are opened now, before they are; all openings so far, this one the last."""
    file = run / OPENINGS
    before = pd.read_csv(file, dtype={"weights": str}) if file.is_file() else pd.DataFrame()
    time = datetime.now().isoformat(" ", "seconds")
    now = pd.DataFrame([{"time": time, "trial": trial, "weights": weights, "trained_on": trained_on}])
    table = pd.concat([before, now], ignore_index=True)
    write_table(table, file)
    return [
        Opening(str(row["time"]), int(row["trial"]), str(row["weights"]), str(row["trained_on"]))
        for _, row in table.iterrows()
    ]
