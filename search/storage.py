"""Where an Optuna study is kept."""

from pathlib import Path

import optuna
import sqlalchemy.exc
from optuna.study import StudyDirection

from trainable.errors import InputError
from trainable.settings import METRICS
from trainable.whole import written_whole


def open_study(storage: str, name: str, metric: str, *, resume: bool) -> optuna.Study:
    """Create the study, or, with ``resume``, go on with it.

    Raises:
        InputError: the storage cannot be had, or the study exists against expectation.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = StudyDirection[METRICS[metric].upper()]
    try:
        fresh = _create_file(storage, name, direction)
        return optuna.create_study(
            storage=storage, study_name=name, direction=direction, load_if_exists=resume or fresh
        )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise InputError(
            f"the study must be new; {storage} already holds one named {name!r}. Take another --name, or "
            f"go on with --resume"
        ) from error
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise InputError(f"search.storage must be a database that Optuna can open; got {storage}: {error}") from error


def _create_file(storage: str, name: str, direction: StudyDirection) -> bool:
    """Create an SQLite file with the study in it, whole from its first moment: a reader that opens it while Optuna is
    at work on its tables would create them too, and one of both would fail. Whether there was none before."""
    file = Path(storage.removeprefix("sqlite:///"))
    if not storage.startswith("sqlite:///") or file.exists() or not file.parent.is_dir():
        return False
    with written_whole(file) as draft:
        database = optuna.storages.RDBStorage(f"sqlite:///{draft}")
        optuna.create_study(storage=database, study_name=name, direction=direction)
        database.engine.dispose()
    return True
