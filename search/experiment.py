"""Runs a study's trials on Ray Tune, and ends when told to."""

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ray import tune

from search.cluster import environment
from search.config import SearchConfig
from search.executor import Execution, StudyScheduler, StudySearcher
from search.prestart import TUNE_ENVIRONMENT
from search.progress import Progress
from search.resources import Cluster
from search.study import Proposal, Study
from trainable.settings import METRICS, TrialSettings
from trainable.trial import ImageTrial

WORKER_RETRIES = 1


def run_experiment(
    study: Study,
    search: SearchConfig,
    cluster: Cluster,
    progress: Progress,
    make_settings: Callable[[Proposal], TrialSettings],
    on_finished: Callable[[], None],
) -> str:
    """Run trials until the study has no more, or the time budget, the target or the user ends the search.

    Args:
        on_finished: called whenever a trial has ended.

    Returns:
        Why it ended, in words: `INTERRUPTED` where the user did; then running trials stay as they are, to be resumed.
    """
    stopper = _Stopper(study, search, progress, on_finished)
    trial_resources = {"CPU": cluster.cpus_per_trial, "GPU": cluster.gpus_per_trial}

    def make_config(proposal: Proposal) -> dict[str, Any]:
        settings = make_settings(proposal)
        return {"settings": settings.model_dump(mode="json"), "resources": trial_resources}

    execution = Execution(study, make_config, cluster.concurrency, stopper.notify)
    stopper.execution = execution
    with (
        tempfile.TemporaryDirectory(prefix="transfer-search-") as scratch,
        environment(TUNE_ENVIRONMENT),
        stopper.signals(),
    ):
        tuner = tune.Tuner(
            ImageTrial,
            tune_config=tune.TuneConfig(
                num_samples=-1,
                search_alg=StudySearcher(execution),
                scheduler=StudyScheduler(execution),
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                name="tune",
                verbose=0,
                stop=stopper,
                failure_config=tune.FailureConfig(max_failures=WORKER_RETRIES),
            ),
        )
        tuner.fit()
    progress.close()
    if stopper.reason and stopper.reason != INTERRUPTED:
        for number in [*execution.running.values(), *execution.unfinished]:
            study.prune(number, stopper.reason)
    return stopper.reason or ("every configuration of the space was tried" if study.exhausted else "all trials done")


INTERRUPTED = "interrupted"


class _Stopper(tune.Stopper):
    """Ends the whole experiment; Tune asks it after every event."""

    def __init__(self, study: Study, search: SearchConfig, progress: Progress, on_finished: Callable[[], None]) -> None:
        self._study, self._search, self._progress, self._on_finished = study, search, progress, on_finished
        self._began = time.monotonic()
        self.reason = ""
        self.execution: Execution | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (object, ())

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        budget = self._search.time_budget
        if not self.reason and budget is not None and time.monotonic() - self._began > budget:
            self._stop(f"the time budget of {budget:g} s is spent")
        return bool(self.reason)

    def notify(self, event: str, number: int, details: Mapping[str, Any]) -> None:
        """Take note of an event of the execution."""
        best = self._study.best() if event == "complete" else None
        if best is not None and best.value is not None:
            self._progress.note_best(best.value, best.number)
            target, maximize = self._search.target, METRICS[self._search.metric] == "maximize"
            if target is not None and (best.value >= target - 1e-8 if maximize else best.value <= target):
                self._stop(f"the target {self._search.metric} {target:g} is reached")
        self._progress(event, number, details)
        if event not in ("started", "epoch"):
            self._on_finished()

    @contextmanager
    def signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the search cleanly, the second one at once."""
        handlers = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        self._handlers = handlers
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.reason:
            raise KeyboardInterrupt
        print("\nstopping; once more to stop at once", flush=True)
        self._stop(INTERRUPTED)

    def _stop(self, reason: str) -> None:
        self.reason = reason
        if self.execution is not None:
            self.execution.stopping = True
