"""Optuna's samplers and pruners by the names and options of the configuration."""

import hashlib
import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import optuna

from search.config import PrunerConfig, SamplerConfig, SearchConfig
from search.space import Space


def grid(space: Space, search: SearchConfig) -> Iterator[dict[str, Any]]:
    """The grid's configurations in an order shuffled by the seed, so that a part of it is a fair sample."""
    axes = space.grid(_of(search.sampler.steps))
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    random.Random(search.seed).shuffle(points)
    return iter(points)


def make_sampler(sampler: SamplerConfig, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """A sampler for trial ``number``. Its state is the study, but for its random numbers: a seed of its own for each
    trial lets a search that was interrupted go on as if it had not been."""
    mixed = int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=4).digest(), "big")
    with warnings.catch_warnings():
        # TPE's multivariate and group options, and the Gaussian process, are called experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _SAMPLERS[sampler.name](sampler, seed, mixed)


# Of the sequences, scrambling must be the same for all points, so these take the search's own seed.
_SAMPLERS: dict[str, Callable[[SamplerConfig, int, int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda s, seed, mixed: optuna.samplers.TPESampler(
        seed=mixed, n_startup_trials=_of(s.startup_trials), multivariate=True, group=True, constant_liar=True
    ),
    "gp": lambda s, seed, mixed: optuna.samplers.GPSampler(seed=mixed, n_startup_trials=_of(s.startup_trials)),
    "random": lambda s, seed, mixed: optuna.samplers.RandomSampler(seed=mixed),
    "grid": lambda s, seed, mixed: optuna.samplers.RandomSampler(seed=mixed),  # every point is enqueued
    "cmaes": lambda s, seed, mixed: optuna.samplers.CmaEsSampler(
        seed=mixed, n_startup_trials=_of(s.startup_trials), warn_independent_sampling=False
    ),
    "qmc": lambda s, seed, mixed: optuna.samplers.QMCSampler(
        seed=seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
    ),
}


def make_pruner(pruner: PrunerConfig, fold_epochs: int | None = None) -> optuna.pruners.BasePruner:
    """A pruner for trials without folds, or for the first fold, of so many epochs. Hyperband would take the number of
    epochs from the complete trials, which have those of all folds."""
    return _PRUNERS[pruner.name](pruner, fold_epochs)


_PRUNERS: dict[str, Callable[[PrunerConfig, int | None], optuna.pruners.BasePruner]] = {
    "successive_halving": lambda p, _: optuna.pruners.SuccessiveHalvingPruner(
        min_resource=_of(p.min_epochs), reduction_factor=_of(p.reduction_factor)
    ),
    "hyperband": lambda p, epochs: optuna.pruners.HyperbandPruner(
        min_resource=_of(p.min_epochs),
        max_resource="auto" if epochs is None else epochs + 1,
        reduction_factor=_of(p.reduction_factor),
    ),
    "median": lambda p, _: optuna.pruners.MedianPruner(
        n_startup_trials=_of(p.startup_trials), n_warmup_steps=_of(p.min_epochs)
    ),
    "none": lambda p, _: optuna.pruners.NopPruner(),
}


def _of(option: int | None) -> int:
    """An option of a sampler or pruner that has it."""
    assert option is not None
    return option
