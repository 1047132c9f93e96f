"""A trial as Ray Tune runs it; and, without Ray, the command that trains one configuration in this process.

python -m trainable.trial --images results/RUN/images.csv --backbone tf_efficientnet_lite0 --set lr=0.01
"""

import argparse
import functools
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray import tune

from trainable.backbone import load_cached_backbone
from trainable.epoch import NonFiniteLossError
from trainable.errors import InputError
from trainable.images import ImageSet, find_images
from trainable.settings import TrainSettings, TrialSettings
from trainable.sources import find_source
from trainable.training import Training

FAILURE_FILE = "failure.txt"

_ROUND_TRIP_S = 0.2
"""What a report to the study costs, with all that Ray does for it, is small beside so many seconds."""


class ImageTrial(tune.Trainable):
    """Glue between Ray Tune and `Training`.

    ``config`` is ``{"settings": …, "resources": …}``: a `TrialSettings` in JSON form, and Ray's shares.

    An exception of the trial's own ends it with a result that has ``failure`` (the reason, one line) beside the last
    epochs, and leaves the traceback in its folder; so only lost workers are Ray's to try again, and those go on from
    the trial's last checkpoint.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """The shares of CPUs and GPUs that the configuration asks for."""
        return tune.PlacementGroupFactory([config["resources"]])

    def setup(self, config: dict[str, Any]) -> None:
        self._settings = TrialSettings.model_validate(config["settings"])
        self._training: Training | None = None
        self._given = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Serve the next trial in this process: torch stays imported, the backbone stays loaded."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next epoch's metrics, in a list; or those of several epochs, where they take a fraction of a second, as
        Ray's round trip would take longer than they do. A checkpoint may know epochs that were not reported yet.

        Where a fold ends, so does the list, for the trial may be stopped there, and has `Training.image_scores` beside.
        """
        epochs: list[dict[str, float]] = []
        began = time.monotonic()
        try:
            if self._training is not None and self._given == len(self._training.history):
                self._training.forget_other_logits()
            while True:
                epochs.append(self._next_epoch())
                done = self._given >= self._settings.epochs
                if scores := self._scores():
                    return {"epochs": epochs, "scores": scores, "done": done}
                if done or time.monotonic() - began >= _ROUND_TRIP_S:
                    return {"epochs": epochs, "done": done}
        except Exception as error:
            return {"epochs": epochs, "failure": self._record(error), "done": True}

    def _next_epoch(self) -> dict[str, float]:
        if self._training is None:
            self._training = start_training(self._settings)
            self._training.resume()
        if self._given == len(self._training.history):
            self._training.run_epoch()
            self._training.save()
        self._given += 1
        return self._training.history[self._given - 1]

    def _scores(self) -> list[float] | None:
        """None but at the end of a fold; and of one that a checkpoint knows the next of, which was judged before."""
        training = self._training
        assert training is not None
        return training.image_scores() if training.fold_ended and self._given == len(training.history) else None

    def _record(self, error: Exception) -> str:
        if self._settings.folder is not None:
            self._settings.folder.mkdir(parents=True, exist_ok=True)
            (self._settings.folder / FAILURE_FILE).write_text(traceback.format_exc())
        return f"{type(error).__name__}: {error}".splitlines()[0]

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial keeps its checkpoint in its own folder, written before its epoch is reported."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: see `save_checkpoint`."""


def start_training(settings: TrialSettings) -> Training:
    """A training at its beginning; backbone and images are kept for the next one in this process."""
    images = _load_images(settings.images, settings.images.stat().st_mtime_ns)
    return Training(settings, images, load_cached_backbone(settings.backbone, settings.weights, len(images.classes)))


@functools.lru_cache(maxsize=1)
def _load_images(file: Path, _modified: int) -> ImageSet:
    return ImageSet.load(file)


def main(arguments: list[str] | None = None) -> int:
    """Train one configuration in this process, without Ray (under a debugger, say), and print its epochs."""
    parser = argparse.ArgumentParser(prog="python -m trainable.trial", description=main.__doc__)
    parser.add_argument("--settings", type=Path, metavar="FILE", help="a trial's settings.json: train that trial again")
    parser.add_argument("--images", type=Path, metavar="FILE", help="images.csv of a run (default: see --data)")
    parser.add_argument("--data", action="append", metavar="SOURCE", help="a folder of images, or a built-in name")
    parser.add_argument("--limit", type=int, default=600, metavar="N", help="at most so many images of --data (600)")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="a classifier of torchvision or timm")
    parser.add_argument("--weights", default="pretrained", help="pretrained, random, or a file (default: pretrained)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, such as lr=0.01")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (default: all)")
    parser.add_argument("--folder", type=Path, help="where to keep the checkpoint, and to go on from")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1; got {options.threads}")
    try:
        with tempfile.TemporaryDirectory(prefix="transfer-search-") as scratch:
            _print_epochs(_settings(options, Path(scratch)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NonFiniteLossError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _settings(options: argparse.Namespace, scratch: Path) -> TrialSettings:
    train = _with(TrainSettings(), options.set)
    if options.settings is not None:
        base = _read_settings(options.settings)
        return base.model_copy(update={"train": _with(base.train, options.set), "folder": options.folder, "memo": None})
    if options.images is None:
        options.images = scratch / "images.csv"
        listing = find_source(options.data or ["hymenoptera", "elpv"], print)
        images = find_images(
            listing, limit=options.limit, test=None, val=0.25, seed=options.seed, skip_unreadable=False, progress=print
        )
        print(*(f"note: {note}" for note in images.notes), images, sep="\n")
        images.save(options.images)
    return TrialSettings(
        images=options.images,
        backbone=options.backbone,
        weights=options.weights,
        train=train,
        seed=options.seed,
        threads=options.threads,
        folder=options.folder,
    )


def _read_settings(file: Path) -> TrialSettings:
    try:
        return TrialSettings.model_validate_json(file.read_text())
    except (OSError, ValidationError) as error:
        raise InputError(f"--settings must be a settings.json out of a run's trials/; got {file}: {error}") from error


def _with(settings: TrainSettings, assignments: list[str]) -> TrainSettings:
    pairs = [assignment.partition("=") for assignment in assignments]
    try:
        return TrainSettings.model_validate(
            {**settings.model_dump(), **{name: yaml.safe_load(value) for name, _, value in pairs}}
        )
    except yaml.YAMLError as error:
        raise InputError(f"--set must be NAME=VALUE with a value in YAML; got {', '.join(assignments)}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise InputError(
            f"--set must name settings and values that hold: {problems}. "
            f"The settings: {', '.join(TrainSettings.model_fields)}"
        ) from error


def _print_epochs(settings: TrialSettings) -> None:
    if not settings.images.is_file():
        raise InputError(f"--images must be the images.csv of a run; there is no file {settings.images}")
    training = start_training(settings)
    training.resume()
    while len(training.history) < settings.epochs:
        metrics = training.run_epoch()
        if settings.folder is not None:
            training.save()
        print("  ".join(f"{name} {value:.4g}" for name, value in metrics.items()), flush=True)
    print(f"best epoch: {training.best_epoch}")


if __name__ == "__main__":
    sys.exit(main())
