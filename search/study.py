"""The Optuna study: the only state of a search. It says what to try next, when to stop a trial, and how it ended."""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.config import SearchConfig
from search.deep_first import DeepFirst, shallowest_open
from search.history import Metrics, best_value, epochs_of, ranked_value, real_trials
from search.optuna_methods import grid, make_pruner, make_sampler
from search.race import LEVEL, chance_of_lag
from search.space import Space
from trainable.settings import across_folds, best_epoch, mean_metrics

_PATIENCE = 3
"""Duplicates in a row after which one of the configurations left is taken at random."""


@dataclass(frozen=True)
class Proposal:
    """A trial to be run."""

    number: int
    values: Mapping[str, Any]
    """Settings by key, constants included."""
    epochs_done: int = 0
    """Epochs that the study already knows, when an interrupted trial goes on."""
    first: bool = False
    """Whether it was asked for by name, and so runs in full."""


@dataclass(frozen=True)
class FirstTrial:
    """A configuration to try before the sampler is asked."""

    name: str
    values: Mapping[str, Any]
    """Settings that lie in the space; the sampler chooses those that are missing."""


class Study:
    """Asks and tells an Optuna study.

    A trial's value is its best epoch's metric, moved by at most a billionth by that epoch's loss
    (`search.history.ranked_value`), so that Optuna itself orders trials as we do: by the metric, then by the loss.

    With folds, the epochs of one fold count on from those of another, and what Optuna is told of an epoch is the mean
    over the folds so far: in the last fold, the very values of which the best is the trial's. The pruner looks at the
    first fold alone; behind each fold, a trial races the best one (`search.race`).

    Args:
        images: those by which each trial is valued.
        fold_epochs: epochs of each fold; None: there are no folds.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        search: SearchConfig,
        first: Sequence[FirstTrial],
        images: int,
        fold_epochs: int | None = None,
    ) -> None:
        self.study, self._space, self._search, self._first = study, space, search, first
        self._images = images
        self._handles: dict[int, optuna.Trial] = {}
        self._known: dict[int, list[Metrics]] = {}
        """Of each trial in ``_handles``, the epochs that the study has."""
        self._interrupted = [t.number for t in self._trials(TrialState.RUNNING)]
        self.exhausted = False
        """Whether every configuration of a finite space has been proposed."""
        study.pruner = make_pruner(search.pruner, fold_epochs)

    @property
    def asked(self) -> int:
        """Trials proposed so far, however they ended; duplicates, which are never trained, do not count."""
        return len(self._trials())

    @property
    def finished(self) -> bool:
        """Whether all trials that were asked for have been run."""
        return not self._interrupted and self.asked >= self._search.trials

    def ask(self) -> Proposal | None:
        """The next trial: first those that a crash interrupted, then new ones; None when there are no more."""
        if self._interrupted:
            return self._again(self._interrupted.pop(0))
        while self.asked < self._search.trials and not self.exhausted:
            proposal = self._propose()
            if proposal is not None:
                return proposal
        return None

    def report(self, number: int, metrics: Metrics, node: str = "", scores: Sequence[float] | None = None) -> str:
        """Record an epoch (its metrics hold ``epoch``, and ``fold`` if any, counted from 1); why the trial is to be
        stopped there, "" where it is not.

        An epoch that is known already is not recorded again.

        Args:
            scores: at the end of a fold, one of each image in the folds so far: see `search.race.chance_of_lag`.
        """
        trial, known = self._handles[number], self._known[number]
        if _place(metrics) in map(_place, known):
            return ""
        if not known:
            trial.set_user_attr("node", node)
        if scores is not None:  # before the epoch, which after a crash in between will be told again
            trial.set_user_attr("scores", list(scores))
        known.append(metrics)
        trial.set_user_attr(f"epoch:{len(known):04}", dict(metrics))
        so_far = mean_metrics([m for m in known if m["epoch"] == metrics["epoch"]])
        trial.report(ranked_value(so_far, self._search.metric), len(known))
        # Asked even of trials that always run in full: the pruner compares later ones with what it saw of these.
        reason = "pruned" if metrics.get("fold", 1) == 1 and trial.should_prune() else ""
        if scores is not None:
            reason = reason or self._lost(scores, int(metrics["fold"]))
        return "" if "first" in trial.user_attrs else reason

    def _lost(self, scores: Sequence[float], folds: int) -> str:
        """Why a trial with these scores, of so many folds, has no chance against the best one."""
        best = self.best()
        chance = 1.0 if best is None else chance_of_lag(scores, best.user_attrs["scores"])
        if best is None or chance >= LEVEL:
            return ""
        return f"worse than trial {best.number} over {folds} fold{'s' * (folds > 1)} (p = {chance:.2g})"

    def complete(self, number: int) -> None:
        """The trial ran all its epochs."""
        self._note_best(number)
        value = best_value(self._frozen(number), self._search.metric)
        self.study.tell(self._handles.pop(number), value)

    def prune(self, number: int, reason: str) -> None:
        """The trial was stopped early, for ``reason``; Optuna takes its last epoch's value."""
        self._note_best(number)
        self._handles[number].set_user_attr("reason", reason)
        self.study.tell(self._handles.pop(number), state=TrialState.PRUNED)

    def _note_best(self, number: int) -> None:
        history = epochs_of(self._frozen(number))
        if history:
            self._handles[number].set_user_attr("best_epoch", best_epoch(history, self._search.metric))

    def fail(self, number: int, reason: str) -> None:
        """The trial could not be trained, for ``reason``."""
        self._handles[number].set_user_attr("reason", reason)
        self.study.tell(self._handles.pop(number), state=TrialState.FAIL)

    def best(self) -> FrozenTrial | None:
        """The best complete trial so far."""
        return self.study.best_trial if self._trials(TrialState.COMPLETE) else None

    def counts(self) -> dict[str, int]:
        """How many trials ended in which way."""
        states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        return {name: len(self._trials(state)) for name, state in states.items()}

    def tables(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows of ``trials.csv`` and of ``curves.csv``."""
        rows, curves = [], []
        for trial in self._trials():
            history, attributes = epochs_of(trial), trial.user_attrs
            best = int(attributes.get("best_epoch") or (best_epoch(history, self._search.metric) if history else 0))
            mean = across_folds(history)
            rows.append(
                {
                    **(mean[best - 1] if best else {}),
                    **{p.key: trial.params[p.name] for p in self._space.sampled if p.name in trial.params},
                    "trial": trial.number,
                    "state": trial.state.name,
                    "value": mean[best - 1][self._search.metric] if best else None,
                    "best_epoch": best or None,
                    "epochs": len(history),
                    **({"folds": mean[0]["fold"]} if mean and "fold" in mean[0] else {}),
                    "first": attributes.get("first"),
                    "node": attributes.get("node"),
                    "reason": attributes.get("reason"),
                    "seconds": sum(m["epoch_time_s"] for m in history),
                }
            )
            curves += [{"trial": trial.number, **metrics} for metrics in history]
        return rows, curves

    def _again(self, number: int) -> Proposal:
        frozen = self._frozen(number)
        self._prepare_sampler(number)
        trial = self._handles[number] = optuna.Trial(self.study, frozen._trial_id)
        self._known[number] = [*epochs_of(frozen)[: len(frozen.intermediate_values)]]
        # What the trial was given before is returned again; the rest, had the crash come in between, is chosen now.
        done = len(frozen.intermediate_values)
        return Proposal(number, self._space.suggest(trial), done, "first" in frozen.user_attrs)

    def _propose(self) -> Proposal | None:
        """Ask the sampler once; None for a configuration that was proposed before."""
        seen = {_key(t): t.number for t in self._trials()}
        size = self._space.size()
        if size is not None and len(seen) >= size:
            self.exhausted = True
            return None
        self._enqueue(seen)
        if self.exhausted:
            return None
        self._prepare_sampler(len(self.study.get_trials(deepcopy=False)))
        trial = self.study.ask()
        values = self._space.suggest(trial)
        twin = seen.get(_key(self._frozen(trial.number)))
        if twin is not None:
            trial.set_user_attr("duplicate_of", twin)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        self._handles[trial.number], self._known[trial.number] = trial, []
        return Proposal(trial.number, values, first="first" in trial.user_attrs)

    def _prepare_sampler(self, number: int) -> None:
        """For trial ``number``."""
        sampler = make_sampler(self._search.sampler, self._search.seed, number)
        shallowest = shallowest_open(self._space, self._search, self._trials(), self._images)
        self.study.sampler = DeepFirst(sampler, shallowest) if shallowest else sampler

    def _enqueue(self, seen: Mapping[Any, int]) -> None:
        """Queue a configuration where the next one is not the sampler's to choose."""
        if self._waiting():
            return  # a crash came between queueing and asking
        proposed = {t.user_attrs.get("first") for t in self.study.get_trials(deepcopy=False)}
        if first := next((first for first in self._first if first.name not in proposed), None):
            self.study.enqueue_trial(self._space.params(first.values), user_attrs={"first": first.name})
        elif self._search.sampler.name == "grid":
            point = next((p for p in grid(self._space, self._search) if _frozenset(p) not in seen), None)
            self.exhausted = point is None
            if point is not None:
                self.study.enqueue_trial(point)
        elif self._duplicates_in_a_row() >= _PATIENCE and self._space.size() is not None:
            # Little is left of a finite space, and the sampler keeps proposing what it likes best.
            left = [p for p in self._space.configurations() if _frozenset(p) not in seen]
            self.study.enqueue_trial(random.Random(self._search.seed + len(seen)).choice(left))

    def _waiting(self) -> bool:
        """Whether a configuration is in the queue, to be asked for next."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _duplicates_in_a_row(self) -> int:
        newest_first = reversed(self.study.get_trials(deepcopy=False))
        return sum(1 for _ in itertools.takewhile(lambda t: "duplicate_of" in t.user_attrs, newest_first))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return real_trials(self.study, *states)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]


def _place(metrics: Metrics) -> tuple[float, float]:
    return metrics.get("fold", 1), metrics["epoch"]


def _key(trial: FrozenTrial) -> Any:
    return _frozenset(trial.params)


def _frozenset(params: Mapping[str, Any]) -> Any:
    return frozenset((name, repr(value)) for name, value in params.items())
