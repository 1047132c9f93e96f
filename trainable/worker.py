"""What a Ray worker imports when it starts: see `search.experiment`."""

from trainable.collector import collect_rarely

collect_rarely()

import trainable.trial  # noqa: E402, F401
