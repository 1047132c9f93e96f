"""The folder of a run: where each thing lies, and what is written there before the first trial."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from search.config import Config
from trainable.errors import InputError
from trainable.images import ImageSet
from trainable.lock import take_lock
from trainable.settings import TrialSettings
from trainable.whole import written_whole

if TYPE_CHECKING:
    from search.plan import Plan

CONFIG, IMAGES, STUDY, SETTINGS, LOG = "config.yaml", "images.csv", "study.db", "settings.json", "run.log"

SEALED = "sealed.csv"
"""The test images: in a table of their own, since trials are given ``images.csv``."""

_LOCK = ".lock"

_PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna", "numpy")
"""The packages whose versions decide results, and are kept with a run."""


@contextmanager
def holding(run: Path) -> Iterator[None]:
    """Keep other searches and reports away from the run, as long as this process lives.

    Raises:
        InputError: one is at work on it.
    """
    with open(run / _LOCK, "a+") as stream:
        if not take_lock(stream):
            stream.seek(0)
            holder = stream.read().strip()
            raise InputError(
                f"a run can be searched or reported on by one process at a time, and process {holder} is at work on "
                f"{run}: wait for it, or stop it"
            )
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def held_since(run: Path) -> float:
    """When the process that is at work on the run began, in seconds since 1970."""
    return (run / _LOCK).stat().st_mtime


def study_address(run: Path, config: Config) -> tuple[str, str]:
    """The storage URL and the name of the run's study; a run with a study file of its own can be renamed."""
    if config.search.storage is None:
        return f"sqlite:///{run / STUDY}", "search"
    return config.search.storage, run.name


def trial_folder(run: Path, number: int) -> Path:
    """Where trial ``number`` keeps its files."""
    return run / "trials" / f"{number:05}"


def check_is_free(folder: Path) -> None:
    """Raises InputError where a run cannot have this folder, since it exists, or cannot be made."""
    try:
        os.lstat(folder)
    except FileNotFoundError:
        above = next(parent for parent in folder.parents if parent.exists())
        if not os.access(above, os.W_OK | os.X_OK):
            raise _unwritable(folder, os.strerror(errno.EACCES)) from None
    except OSError as error:
        raise _unwritable(folder, error.strerror) from error
    else:
        raise _taken(folder)


def create_folder(folder: Path, plan: "Plan") -> None:
    """Make the run's folder, with everything in it that the trials depend on.

    Raises:
        InputError: it exists, or cannot be written.
    """
    try:
        folder.mkdir(parents=True)
        plan.images.only("train", "val").save(folder / IMAGES)
        if plan.images.split("test"):
            plan.images.only("test").save(folder / SEALED)
        (folder / CONFIG).write_text(yaml.safe_dump(_resolved(plan), sort_keys=False, allow_unicode=True))
    except FileExistsError as error:
        raise _taken(folder) from error
    except OSError as error:
        raise _unwritable(folder, error.strerror) from error


def _unwritable(folder: Path, why: str | None) -> InputError:
    return InputError(f"--out must be a folder that can be written to; got {folder}: {why}")


def _taken(folder: Path) -> InputError:
    return InputError(
        f"a run must have a name of its own, and {folder} exists. Take another --name, or go on with --resume {folder}"
    )


def load_images(run: Path) -> ImageSet:
    """All images of a run, those of the sealed test split among them.

    Raises:
        InputError: one of the images, or the table, has gone.
    """
    return ImageSet.load(run / IMAGES, *([run / SEALED] if (run / SEALED).is_file() else []))


def write_settings(settings: TrialSettings) -> TrialSettings:
    """Keep a trial's complete settings in its folder, so that it can be trained again from there alone."""
    assert settings.folder is not None
    settings.folder.mkdir(parents=True, exist_ok=True)
    with written_whole(settings.folder / SETTINGS) as draft:
        draft.write_text(settings.model_dump_json(indent=2))
    return settings


def read_settings(run: Path, number: int) -> TrialSettings:
    """The settings of trial ``number``, with the paths of where the run lies now, for the process at work on it."""
    file = trial_folder(run, number) / SETTINGS
    try:
        settings = TrialSettings.model_validate_json(file.read_text())
    except FileNotFoundError as error:
        raise InputError(f"the trial must be one of the run's; {run} has no trial {number}") from error
    memo = settings.memo and settings.memo.model_copy(update={"since": held_since(run)})
    return settings.model_copy(update={"images": run / IMAGES, "folder": file.parent, "memo": memo})


def _resolved(plan: "Plan") -> dict[str, Any]:
    """The configuration with every default written out, and what was found: data, weights, versions."""
    tree = plan.config.resolved()
    if "backbone" not in tree["space"]:
        tree["model"]["backbone"] = list(plan.backbones)
    tree["record"] = {
        "data": plan.images.source,
        "data_digest": plan.images.digest,
        "classes": list(plan.images.classes),
        "backbones": {
            backbone.name: {
                "weights": backbone.weights_note,
                "digest": backbone.digest,
                "stages": [stage.name for stage in backbone.stages],
            }
            for backbone in plan.backbones.values()
        },
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in _PACKAGES}},
    }
    return tree
