"""The main command: search, then report.

python -m search.run --space default.yaml
"""

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from search.config import Config, find_config, load_config
from search.duration import seconds
from search.guard import guard
from trainable.errors import InputError

if TYPE_CHECKING:
    from search.cluster import Started
    from search.journal import Journal
    from search.plan import Plan
    from search.study import Proposal
    from trainable.images import ImageSet
    from trainable.listing import Listing
    from trainable.settings import TrialSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 2 for a mistake of the user's, 130 where the user interrupted, or 141
    where nobody reads the output any more."""
    options = _parser().parse_args(arguments)

    def run() -> int:
        with ExitStack() as stack:  # what is wrong is told before Ray, which starts meanwhile, has been ended
            return guard(lambda: _run(options, stack), options.debug)

    return guard(run, options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.run",
        allow_abbrev=False,
        description="Find the best way to fine-tune a pretrained network on your images.",
        epilog="Shipped configurations: default.yaml, hymenoptera.yaml, elpv.yaml, feature_extractor.yaml, smoke.yaml.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--space", metavar="FILE", help="the configuration: a file here, or the name of a shipped one")
    what.add_argument("--resume", metavar="RUN", type=Path, help="go on with an interrupted run, given its folder")
    parser.add_argument("--data", metavar="SOURCE", help="a folder of images, or a built-in name (data.source)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("results"), help="where runs go (results)")
    parser.add_argument("--name", help="the run's name (the configuration's with date and time)")
    parser.add_argument("--trials", metavar="N", help="how many configurations to try (search.trials)")
    parser.add_argument("--epochs", metavar="N", help="epochs of a trial (train.epochs)")
    parser.add_argument("--time-budget", metavar="TIME", help="end the search after so long: 90s, 10m, 1h30m")
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", help="any other setting")
    parser.add_argument("--address", metavar="ADDR", help="a Ray cluster to join, instead of starting one here")
    parser.add_argument("--plan", action="store_true", help="print what would run, and stop")
    parser.add_argument("--no-report", action="store_true", help="search only; search.report can follow later")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _run(options: argparse.Namespace, stack: ExitStack) -> int:
    folder, config = _read(options)
    from search.folder import LOG, check_is_free, create_folder, holding, load_images
    from search.journal import Journal
    from trainable.sources import find_source

    say = Journal()
    if options.plan:
        from search.outline import outline

        say(outline(_plan(config, _find_images(find_source(config.data.source, say), config, say), say)))
        return 0

    @cache
    def start() -> "Started":
        from search.cluster import ray_cluster

        trials = 0 if options.resume else config.search.trials  # to go on, Tune asks as soon as Ray is there
        return stack.enter_context(ray_cluster(options.address, config.resources, say, trials))

    if options.resume:
        with holding(folder):  # said now, not after the plan was made
            images = load_images(folder)
        plan = _plan(config, images, say)
    else:
        check_is_free(folder)
        listing = find_source(config.data.source, say)
        start()  # beside the check of the images and the plan, which imports torch; a resumed run may need no Ray
        plan = _plan(config, _find_images(listing, config, say), say)
        create_folder(folder, plan)
    with holding(folder):
        say.open(folder / LOG)
        reason = _search(folder, plan, options, say, start)
        say(f"search ended: {reason}")
        if reason == "interrupted":
            say(f"To go on: python -m search.run --resume {folder}")
            return 130
        return 0 if options.no_report else _report(folder, say, options.address)


def _find_images(listing: "Listing", config: Config, say: "Journal") -> "ImageSet":
    from trainable.images import find_images

    data = config.data
    images = find_images(
        listing,
        limit=data.limit,
        test=data.test,
        val=data.val if data.folds is None else None,
        seed=config.search.seed,
        skip_unreadable=data.skip_unreadable,
        progress=say,
    )
    say(f"data: {images}")
    return images


def _plan(config: Config, images: "ImageSet", say: "Journal") -> "Plan":
    from search.plan import make_plan

    plan = make_plan(config, images, say)
    for note in plan.notes:
        say(f"note: {note}")
    return plan


def _report(folder: Path, say: "Journal", address: str | None) -> int:
    from search.report import make_report

    try:
        return make_report(folder, None, say, address)
    except KeyboardInterrupt:
        say(f"\ninterrupted. To report: python -m search.report {folder}")
        raise


def _read(options: argparse.Namespace) -> tuple[Path, Config]:
    """The run's folder and its configuration."""
    data = json.dumps(options.data) if options.data is not None else None
    given = {"data.source": data, "search.trials": options.trials, "train.epochs": options.epochs}
    overrides = [*options.set, *(f"{key}={value}" for key, value in given.items() if value is not None)]
    if options.time_budget is not None:
        overrides.append(f"search.time_budget={_seconds(options.time_budget):g}")
    if options.resume:
        return options.resume.resolve(), _resumed(options.resume / "config.yaml", overrides)
    file = find_config(options.space)
    name = options.name or f"{file.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    if not re.fullmatch(r"[\w.-]+", name):
        raise InputError(f"--name must be made of letters, digits, dots, dashes and underscores; got {name!r}")
    return (options.out / name).resolve(), load_config(file, overrides)


def _resumed(file: Path, overrides: list[str]) -> Config:
    """The configuration to go on with: what was trained so far must stay comparable with what comes."""
    if not file.is_file():
        raise InputError(f"--resume must name the folder of a run, with a config.yaml in it; got {file.parent}")
    fixed = [text for text in overrides if not text.startswith(("search.", "resources.")) or "search.metric" in text]
    if fixed:
        raise InputError(
            f"--resume can change how long and on what a search goes on (search.trials, search.time_budget, "
            f"resources.…), not what it compares; got {', '.join(fixed)}"
        )
    return load_config(file, overrides)


def _seconds(text: str) -> float:
    try:
        return float(seconds(text))
    except ValueError as error:
        raise InputError(f"--time-budget {error}") from error


def _search(
    folder: Path, plan: "Plan", options: argparse.Namespace, say: "Journal", start: "Callable[[], Started]"
) -> str:
    """Run the trials; why the search ended, in words."""
    from search.experiment import run_experiment
    from search.folder import IMAGES, held_since, study_address, trial_folder, write_settings
    from search.progress import Progress
    from search.results import write_tables
    from search.storage import open_study
    from search.study import Study

    search = plan.config.search
    stored = open_study(*study_address(folder, plan.config), search.metric, resume=options.resume is not None)
    folds = plan.config.data.folds
    images = len(plan.images.validating(folds))
    study = Study(stored, plan.space, search, plan.first, images, plan.config.train.epochs if folds else None)

    def write() -> None:
        write_tables(folder, *study.tables(), plan.space.keys)

    if study.finished:
        write()
        return "all trials are done"
    cluster = start()()
    say(f"running {search.trials} trials, {cluster.concurrency} at a time; results go to {folder}")
    epochs = plan.config.train.epochs * (folds or 1)
    progress = Progress(search.trials, search.metric, epochs, study.counts(), note=say.note, folds=folds)

    def make_settings(proposal: "Proposal") -> "TrialSettings":
        own = trial_folder(folder, proposal.number)
        gpu, since = cluster.gpus_per_trial > 0, held_since(folder)
        return write_settings(plan.settings(proposal, folder / IMAGES, own, cluster.threads, gpu, since))

    try:
        return run_experiment(study, search, cluster, progress, make_settings, on_finished=now_and_then(write))
    finally:
        write()


def now_and_then(work: Callable[[], None], seconds: float = 2) -> Callable[[], None]:
    """``work``, but not again before so many seconds have gone since it was done."""
    done = -math.inf

    def maybe() -> None:
        nonlocal done
        if time.monotonic() - done > seconds:
            work()
            done = time.monotonic()

    return maybe


if __name__ == "__main__":
    sys.exit(main())
