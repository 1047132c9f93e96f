"""Images drawn again with replacement (Efron, *Ann. Stat.* 7, 1979)."""

import numpy as np
from numpy.typing import NDArray


def resample(chance: np.random.Generator, images: int, samples: int) -> NDArray[np.float32]:
    """How often each image is in each of several samples of as many images, ``[samples, images]``."""
    drawn = chance.integers(images, size=(samples, images)) + images * np.arange(samples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=samples * images)
    return counts.reshape(samples, images).astype(np.float32)
