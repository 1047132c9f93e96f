"""The report of a run: the finalists, the winner trained again, its predictions, the figures, the verdict.

python -m search.report results/RUN
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from search.guard import guard
from trainable.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m search.report",
        description="Train a run's best configurations again, save the winner's model, and write report.html.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a run")
    parser.add_argument(
        "--trial", metavar="N", type=int, help="any trial, instead of the winner; its report goes into its own folder"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="finalists, seeds or retrain_on, for this report",
    )
    parser.add_argument("--address", metavar="ADDR", help="a Ray cluster to join, instead of starting one here")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    return guard(lambda: _report(options), options.debug)


def _report(options: argparse.Namespace) -> int:
    from search.folder import CONFIG, LOG, holding
    from search.journal import Journal

    if not (options.run / CONFIG).is_file():
        raise InputError(f"RUN must be the folder of a run, with a {CONFIG} in it; got {options.run}")
    say = Journal(options.run / LOG)
    with holding(options.run):
        try:
            return make_report(options.run, options.trial, say, options.address, options.set)
        except KeyboardInterrupt:
            say("\ninterrupted; the same command goes on")
            raise


def make_report(
    folder: Path, trial: int | None, say: Callable[[str], None], address: str | None = None, given: Sequence[str] = ()
) -> int:
    """Write ``best/``, ``figures/``, ``predictions.csv``, ``report.json`` and ``report.html``; 0, an exit code.

    Args:
        trial: the trial to retrain; None: the winner. Of a trial that was asked for, all goes into its own folder, and
            the sealed test split is not opened.
        address: of the Ray cluster that trains the finalists; None: one is started where there is none.
        given: settings of ``report`` that are other than the run's, ``KEY=VALUE``.

    Raises:
        InputError: no such run or trial, or none that was trained.
    """
    import pandas as pd

    from search.config import load_config
    from search.folder import trial_folder
    from search.judgement import judge
    from search.presentation import present
    from search.results import load_run
    from search.wording import paragraphs

    folder = folder.resolve()
    run, config = load_run(folder), load_config(folder / "config.yaml", [f"report.{one}" for one in given])
    if trial is not None:
        folds = config.data.folds
        trained = sorted(run.ranked(pruned=not folds))
        if trial not in trained:
            enough = "went through all folds" if folds else "ended, and was trained at least one epoch"
            raise InputError(f"--trial must be one that {enough}: {', '.join(map(str, trained))}; got {trial}")
    out = folder if trial is None else trial_folder(folder, trial) / "report"
    # Names of files and classes need not be text: Arrow cannot hold those, Python can.
    with pd.option_context("mode.string_storage", "python"):
        judgement = judge(run, config, trial, out / "best", address, say)
        (out / "report.json").write_text(json.dumps(judgement.to_dict(), indent=2))
        present(run, config, judgement, out)
    for paragraph in paragraphs(judgement.verdict):
        say(paragraph)
    say(f"report: {out / 'report.html'}")
    say(f"to classify new images: python -m search.predict {out} IMAGE|FOLDER…")
    return 0


if __name__ == "__main__":
    sys.exit(main())
