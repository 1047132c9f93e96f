"""What a Ray worker imports when it starts: see `search.experiment`."""

import gc

from trainable.collector import collect_rarely

gc.disable()

import trainable.trial  # noqa: E402, F401

gc.enable()
gc.freeze()
collect_rarely()
