"""What each trial is given of the CPUs and GPUs there are."""

from collections.abc import Mapping, Sequence
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


def share_out(resources: ResourcesConfig, nodes: Sequence[Mapping[str, float]]) -> Cluster:
    """Fill in what is ``auto``, and count the trials that fit.

    Args:
        nodes: of each machine, CPU and GPU to their numbers.

    Raises:
        InputError: not a single trial fits.
    """
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in ("CPU", "GPU")}
    gpus = resources.gpus
    if gpus == "auto":
        gpus = AUTO_GPU_SHARE if most["GPU"] else 0.0
    cpus = resources.cpus
    if cpus == "auto":
        cpus = _cpus_beside(gpus, nodes)
    for name, need, have in (("cpus", cpus, most["CPU"]), ("gpus", gpus, most["GPU"])):
        if need > have:
            raise InputError(
                f"resources.{name} must be at most what the largest machine has, {have:g}, for a trial to start; "
                f"got {need:g}"
            )
    cluster = Cluster(cpus, gpus, sum(_fitting(node, cpus, gpus) for node in nodes))
    if not cluster.concurrency:
        raise InputError(
            f"one machine must have what resources asks for, {cpus:g} CPUs and {gpus:g} GPUs, for a trial to start; "
            f"there are {', '.join(_described(node) for node in nodes)}"
        )
    return cluster


def _cpus_beside(gpus: float, nodes: Sequence[Mapping[str, float]]) -> float:
    """One without GPUs. With them, whose trials need CPUs to read images, a fair part of all but one: another process
    may have asked Ray for that."""
    shares = [(node.get("CPU", 0.0) - 1) // _holding(node, gpus) for node in nodes if gpus and _holding(node, gpus)]
    return max(min(shares, default=1.0), 1.0)


def _fitting(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    by_cpus = int(node.get("CPU", 0.0) / cpus + 1e-6)
    return min(by_cpus, _holding(node, gpus)) if gpus else by_cpus


def _holding(node: Mapping[str, float], gpus: float) -> int:
    """Trials that a machine's GPUs can hold; none has parts of two."""
    there = int(node.get("GPU", 0.0))
    return there * int(1 / gpus + 1e-6) if gpus < 1 else int(there / gpus)


def _described(node: Mapping[str, float]) -> str:
    return " + ".join(f"{node.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU"))
