"""What will run, found out before it does: the images, the backbones and their stages, the space in numbers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from search.config import Config
from search.depths import resolve_depths
from search.shelves import Shelf, choose_for, memo_budget, memo_folder
from search.space import Space
from search.study import FirstTrial, Proposal
from trainable.backbone import Backbone, load_cached_backbone
from trainable.errors import InputError
from trainable.frozen import resolve_precision
from trainable.images import ImageSet
from trainable.model_zoo import WeightsUnavailableError
from trainable.settings import MemoSettings, TrainSettings, TrialSettings
from trainable.sources import SOURCES

Say = Callable[[str], None]

RECIPES: Mapping[str, int | str] = {"fine-tune everything": 0, "train the head only": "all"}
"""The two recipes of PyTorch's transfer-learning tutorial, by the depth they freeze; the rest of each is the defaults
of `TrainSettings`."""


MOVED = " (moved into the space)"
"""Behind the name of a recipe that lies outside of the space, and so is not the tutorial's own."""


@dataclass(frozen=True)
class Plan:
    """A search that could start now."""

    config: Config
    images: ImageSet
    backbones: Mapping[str, Backbone]
    """The one in use, or all that the space chooses from."""
    space: Space
    first: tuple[FirstTrial, ...]
    shelves: Mapping[str, tuple[Shelf, ...]]
    """Of each backbone, the depths whose activations are kept, or could be."""
    memo_budget: int
    """Bytes that the memo may take: decided once, since the memo itself takes of the free disk."""
    notes: tuple[str, ...]
    """What the user should be told before it starts."""

    def settings(
        self, proposal: Proposal, images: Path, folder: Path, threads: int, gpu: bool, since: float
    ) -> TrialSettings:
        """A trial's complete settings.

        Args:
            images: the run's table of images.
            folder: the trial's own.
            threads: CPU threads of the trial.
            gpu: whether it has a GPU, or a share of one.
            since: when the search began, in seconds since 1970.
        """
        values = {**self.config.train.model_dump(), "backbone": next(iter(self.backbones)), **proposal.values}
        backbone = values.pop("backbone")
        return TrialSettings(
            images=images,
            backbone=backbone,
            weights=self.config.model.weights,
            train=TrainSettings.model_validate(values),
            metric=self.config.search.metric,
            folds=self.config.data.folds,
            seed=self.config.search.seed,
            threads=threads,
            gpu=gpu,
            folder=folder,
            keep_best=proposal.first,
            memo=self._memo(backbone, since),
        )

    def _memo(self, backbone: str, since: float) -> MemoSettings | None:
        memo = self.config.memo
        if not memo.enabled:
            return None
        kept = tuple(sorted(shelf.depth for shelf in self.shelves[backbone] if shelf.kept))
        return MemoSettings(folder=memo_folder(memo), budget=self.memo_budget, kept=kept, since=since)


def make_plan(config: Config, images: ImageSet, say: Say) -> Plan:
    """Load the backbones, number the space's freeze depths, and check that all fits together.

    Raises:
        InputError: something that must hold does not.
    """
    notes = list(images.notes)
    check_retraining(config, images)
    folds = fold_sizes(config, images)
    backbones = _load_backbones(config, len(images.classes), notes)
    for backbone in backbones.values():
        say(f"backbone: {backbone.name}, {backbone.weights_note}")
    space = resolve_depths(
        config.parameters(), lambda name, value: backbones[name].depth(value), tuple(backbones), config.where
    )
    _check_fixed_depth(config, backbones)
    _check_batch_sizes(config, space, len(images.split("train")) - max(folds, default=0))
    config = _with_precision(_with_whole_paths(config))
    first = _first_trials(config, space, backbones, notes)
    if len(first) >= config.search.trials:  # nothing is left for the sampler to learn
        first = _longest_first(first[: config.search.trials], config.train, backbones)
    budget = memo_budget(config.memo, notes)
    share = budget // len(backbones)
    shelves = {
        name: choose_for(config, images, backbone, space, share, len(backbones)) for name, backbone in backbones.items()
    }
    return Plan(config, images, backbones, space, first, shelves, budget, tuple(notes))


def check_retraining(config: Config, images: ImageSet) -> None:
    """Raises InputError where the model could not be judged any more."""
    if config.report.retrain_on == "train+val" and not config.data.folds and not images.split("test"):
        raise InputError(
            f"{config.where('report', 'retrain_on')}: train+val must have a test split to judge the model, and there "
            "is none; seal one with --set data.test=0.2, or train on the training images alone with --set "
            "report.retrain_on=train (with python -m search.report: --set retrain_on=train)"
        )


def fold_sizes(config: Config, images: ImageSet) -> tuple[int, ...]:
    """Images in each fold; () where there are no folds.

    Raises:
        InputError: there cannot be so many folds.
    """
    if config.data.folds is None:
        return ()
    return tuple(len(fold) for fold in images.folds(config.data.folds, config.search.seed))


def describe_values(values: Mapping[str, Any]) -> str:
    """Settings in one line: ``freeze_depth 3, lr 0.00123``."""
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


def _load_backbones(config: Config, classes: int, notes: list[str]) -> dict[str, Backbone]:
    searched = next((p.domain for p in config.parameters().parameters if p.key == "backbone"), None)
    if searched is not None:
        names = [str(name) for name in searched.values() or ()]
        return {name: load_cached_backbone(name, config.model.weights, classes) for name in names}
    problems: list[str] = []
    for name in config.model.backbone:
        try:
            found = {name: load_cached_backbone(name, config.model.weights, classes)}
        except WeightsUnavailableError as error:
            problems.append(str(error))
        else:
            notes += [f"passed over: {problem}" for problem in problems]
            return found
    raise InputError(
        f"{config.where('model', 'backbone')}: none of the backbones' weights can be had:\n"
        + "\n".join(f"  {problem}" for problem in problems)
    )


def _with_precision(config: Config) -> Config:
    """``precision: auto`` decided here and now: all trials of a search compute in the same one, wherever they run."""
    device = torch.device("cuda" if config.resources.gpus != 0 and torch.cuda.is_available() else "cpu")
    precision = resolve_precision(config.train.precision, device)
    return config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})


def _with_whole_paths(config: Config) -> Config:
    """Workers, and later reports, may run in another folder than this process."""

    def whole(path: str) -> str:
        return str(Path(os.path.expanduser(path)).resolve())  # a user who is not there stays as written, as in a shell

    source = tuple(name if name in SOURCES else whole(name) for name in config.data.source)
    weights = config.model.weights
    weights = weights if weights in ("pretrained", "random") else whole(weights)
    changed = {
        "data": config.data.model_copy(update={"source": source}),
        "model": config.model.model_copy(update={"weights": weights}),
    }
    return config.model_copy(update=changed)


def _check_fixed_depth(config: Config, backbones: Mapping[str, Backbone]) -> None:
    if "freeze_depth" in config.space:
        return
    for backbone in backbones.values():
        try:
            backbone.depth(config.train.freeze_depth)
        except InputError as error:
            raise InputError(f"{config.where('train', 'freeze_depth')}: {error}") from error


def _check_batch_sizes(config: Config, space: Space, count: int) -> None:
    domains = [p.domain for p in space.parameters if p.key == "batch_size"]
    largest = max((max(domain.values() or ()) for domain in domains), default=config.train.batch_size)
    if largest > count:
        where = config.where("space" if domains else "train", "batch_size")
        raise InputError(f"{where}: batch_size must be at most the number of training images, {count} (got {largest})")


def _first_trials(
    config: Config, space: Space, backbones: Mapping[str, Backbone], notes: list[str]
) -> tuple[FirstTrial, ...]:
    if config.search.first is None:
        return _recipes(space, next(iter(backbones)), backbones, notes)
    found = []
    for i, given in enumerate(config.search.first):
        where = config.where("search", "first", i)
        values = {**given}
        try:
            if "freeze_depth" in values:
                name = values.get("backbone", next(iter(backbones)))
                values["freeze_depth"] = backbones[name].depth(values["freeze_depth"])
            space.params(values)
        except (InputError, ValueError) as error:
            raise InputError(f"{where}: {error}") from error
        found.append(FirstTrial(f"first {i + 1}", values))
    return tuple(found)


def _longest_first(
    first: Sequence[FirstTrial], train: TrainSettings, backbones: Mapping[str, Backbone]
) -> tuple[FirstTrial, ...]:
    """So that no long trial is left to run alone at the end."""

    def open_flops(trial: FirstTrial) -> int:
        backbone = backbones[trial.values.get("backbone", next(iter(backbones)))]
        depth = backbone.depth(trial.values.get("freeze_depth", train.freeze_depth))
        return sum(stage.flops for stage in backbone.stages[depth:])

    return tuple(sorted(first, key=open_flops, reverse=True))


def _recipes(space: Space, name: str, backbones: Mapping[str, Backbone], notes: list[str]) -> tuple[FirstTrial, ...]:
    """The tutorial's recipes, moved into the space where they lie outside; of equal ones only one."""
    found: dict[str, tuple[int, FirstTrial]] = {}
    for recipe, depth in RECIPES.items():
        wanted = {**TrainSettings().model_dump(), "backbone": name, "freeze_depth": backbones[name].depth(depth)}
        values = space.nearest(wanted)
        moved = [f"{key} {wanted[key]} is {value} there" for key, value in values.items() if wanted[key] != value]
        if moved:
            notes.append(f"the tutorial's recipe “{recipe}” is moved into the space: {', '.join(moved)}")
        trial = FirstTrial(recipe + MOVED if moved else recipe, values)
        # Of equal ones, the one that had the shorter way keeps its name.
        if len(moved) < found.get(repr(values), (len(values) + 1, trial))[0]:
            found[repr(values)] = len(moved), trial
    return tuple(trial for _, trial in found.values())
