"""One configuration trained again, for a given number of epochs: what shows how much of its score was luck."""

import time

from trainable.epoch import NonFiniteLossError
from trainable.settings import TrialSettings
from trainable.training import save_array
from trainable.trial import start_training

FINAL_LOGITS = "final_logits.npy"
"""The validation logits behind the last epoch, in the folder of a training that was repeated."""


def train_for(settings: TrialSettings, epochs: int) -> dict[str, float] | str:
    """Train for so many epochs, or go on to there from the checkpoint in the settings' folder, and leave the logits of
    the validation images beside the checkpoint.

    Returns:
        The last epoch's metrics and ``seconds``, or why there are none, in words.
    """
    assert settings.folder is not None
    settings.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    training = start_training(settings)
    training.resume()
    try:
        while len(training.history) < epochs:
            training.run_epoch()
            training.save()
    except NonFiniteLossError as error:
        return str(error)
    logits, _ = training.predict("val")
    save_array(logits.numpy(), settings.folder / FINAL_LOGITS)
    return {**training.history[-1], "seconds": time.monotonic() - began}
