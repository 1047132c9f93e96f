"""One configuration trained again, for a given number of epochs: what shows how much of its score was luck."""

import signal
import time

from trainable.epoch import NonFiniteLossError
from trainable.settings import TrialSettings
from trainable.trial import start_training


def train_for(settings: TrialSettings, epochs: int) -> dict[str, float] | str:
    """Train for so many epochs.

    Returns:
        The last epoch's metrics and ``seconds``, or why there are none, in words.
    """
    # Where a shell started the search in the background, SIGINT is ignored, by which Ray calls off a training.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    training = start_training(settings)
    try:
        while len(training.history) < epochs:
            training.run_epoch()
    except NonFiniteLossError as error:
        return str(error)
    return {**training.history[-1], "seconds": time.monotonic() - began}
