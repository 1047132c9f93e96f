"""Ray Tune as the study's hands: a searcher that asks and tells it, a scheduler that reports to it.

Tune decides nothing: what to run next, when to stop a trial and how it ended are the study's to say.
"""

from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.study import Proposal, Study
from trainable.settings import EPOCH_METRICS

Event = Callable[[str, int, dict[str, Any]], None]
"""Called with what happened (started, epoch, complete, pruned, failed), the trial's number, and its metrics."""


class Execution:
    """What the searcher and the scheduler share: the study, and which of its trials run now.

    Tune pickles its searcher and scheduler into snapshots that we never read; this is left out of them.
    """

    def __init__(
        self, study: Study, make_config: Callable[[Proposal], dict[str, Any]], concurrency: int, notify: Event
    ) -> None:
        self.study, self.make_config, self.concurrency, self.notify = study, make_config, concurrency, notify
        self.running: dict[str, int] = {}
        """Tune's trial ids and the numbers of their trials in the study."""
        self.pruned: dict[int, str] = {}
        """Trials that must stop, and why."""
        self.stopping = False
        self.unfinished: list[int] = []
        """Trials that were cut off when the whole search was told to stop."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (object, ())

    def report(self, number: int, result: dict[str, Any]) -> bool:
        """Record the epochs of a result, up to the one behind which the trial must stop; whether it must. Behind the
        last epoch of a trial that is done there is nothing to stop."""
        epochs = result.get("epochs", ())
        for epoch in epochs:
            if number in self.pruned:
                break
            metrics = {name: epoch[name] for name in (*(["fold"] if "fold" in epoch else []), *EPOCH_METRICS)}
            scores = result.get("scores") if epoch is epochs[-1] else None
            reason = self.study.report(number, metrics, node=result.get("hostname", ""), scores=scores)
            if reason and not (result.get("done") and epoch is epochs[-1]):
                self.pruned[number] = reason
            self.notify("epoch", number, metrics)
        return number in self.pruned

    def finish(self, number: int, result: dict[str, Any] | None) -> None:
        """Tell the study how a trial ended; ``result`` is Tune's last for it, None when its worker was lost."""
        # Tune does not show the scheduler the result of a trial that says it is done; and it calls the last result of a
        # trial that was stopped done, too, which was reported then.
        if number not in self.pruned and result is not None and result.get("done"):
            self.report(number, result)
        if number in self.pruned:
            self.study.prune(number, self.pruned[number])
            self.notify("pruned", number, {})
        elif result is not None and "failure" in result:
            self._fail(number, result["failure"])
        elif result is not None and result.get("done"):
            self.study.complete(number)
            self.notify("complete", number, {})
        elif self.stopping:
            self.unfinished.append(number)
        else:
            self._fail(number, "its worker process was lost, and lost again when it was tried once more")

    def _fail(self, number: int, reason: str) -> None:
        self.study.fail(number, reason)
        self.notify("failed", number, {"reason": reason})


class StudySearcher(Searcher):
    """Asks the study for trials, as many at a time as there is room for, so that each is chosen knowing the most."""

    def __init__(self, execution: Execution) -> None:
        super().__init__()
        self._execution = execution

    def suggest(self, trial_id: str) -> Any:
        execution = self._execution
        if len(execution.running) >= execution.concurrency:
            return None
        proposal = None if execution.stopping else execution.study.ask()
        if proposal is None:
            return None if execution.running else Searcher.FINISHED
        execution.running[trial_id] = proposal.number
        execution.notify("started", proposal.number, dict(proposal.values))
        return execution.make_config(proposal)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._execution.running.pop(trial_id, None)
        if number is not None:
            self._execution.finish(number, None if error else result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class StudyScheduler(FIFOScheduler):
    """Reports each epoch to the study and stops the trial when the study's pruner says so."""

    def __init__(self, execution: Execution) -> None:
        super().__init__()
        self._execution = execution

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = self._execution.running.get(trial.trial_id)
        if number is not None and self._execution.report(number, result):
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE
