"""What each trial is given of the CPUs and GPUs there are."""

from collections.abc import Mapping
from dataclasses import dataclass

from search.config import ResourcesConfig
from trainable.errors import InputError

AUTO_GPU_SHARE = 0.25


@dataclass(frozen=True)
class Cluster:
    """What Ray has to give, and what each trial takes of it."""

    cpus_per_trial: float
    gpus_per_trial: float
    concurrency: int
    """Trials that fit at the same time."""

    @property
    def threads(self) -> int:
        """CPU threads of a trial."""
        return max(int(self.cpus_per_trial), 1)


def share_out(resources: ResourcesConfig, available: Mapping[str, float]) -> Cluster:
    """Fill in ``gpus: auto``, and count the trials that fit.

    Args:
        available: CPU and GPU to their numbers.

    Raises:
        InputError: not a single trial fits.
    """
    cpus, gpus = available.get("CPU", 0.0), available.get("GPU", 0.0)
    wanted = resources.gpus
    if wanted == "auto":
        wanted = AUTO_GPU_SHARE if gpus else 0.0
    for name, need, have in (("cpus", resources.cpus, cpus), ("gpus", wanted, gpus)):
        if need > have:
            raise InputError(
                f"resources.{name} must be at most what there is, {have:g} here, for a trial to start; got {need:g}"
            )
    fit = [cpus / resources.cpus] + ([gpus / wanted] if wanted else [])
    return Cluster(resources.cpus, wanted, int(min(fit) + 1e-6))
