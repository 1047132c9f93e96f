"""The sections of a configuration, but for the space and what is trained."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from search.byte_count import byte_count
from search.duration import seconds
from search.method import PrunerConfig, SamplerConfig
from search.problem import shown, unknown
from trainable.settings import METRICS


def _one_or_more(value: Any) -> Any:
    """A single value as the list of it; lists as the tuples that frozen settings hold."""
    return value if isinstance(value, tuple) else tuple(value) if isinstance(value, list) else (value,)


def _metric(value: Any) -> Any:
    if str(value).startswith("test"):
        raise ValueError(
            f"must be a validation metric: the test split is opened once, by the report (got {value}); "
            f"there is {', '.join(METRICS)}"
        )
    if value not in tuple(METRICS):
        raise ValueError(f"no such metric: {shown(value)}; {unknown(str(value), METRICS)}")
    return value


def _cpus(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"must be auto or a number > 0, the CPUs of each trial (got {shown(value)})")
    return float(value)


def _gpus(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"must be auto or a number >= 0, the GPUs of each trial (got {shown(value)})")
    if value > 1 and value != int(value):
        raise ValueError(f"must be whole above 1: a trial has a share of one GPU, or several (got {value})")
    return float(value)


def _at_least_two(value: int) -> int:
    if value < 2:
        raise ValueError(f"must be at least 2, or null to score on the val split (got {value})")
    return value


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_one_or_more)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """Which images."""

    source: Annotated[Texts, Field(min_length=1)]
    """Folders or built-in names; the first that can be had is used."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """At most so many images, stratified; None: all."""
    test: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of the training images to seal as test split; None: test/ if there is one."""
    val: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """The share of the training images that validates where there is no val/, and where there are no folds."""
    folds: Annotated[int, AfterValidator(_at_least_two)] | None = None
    """Each configuration is scored by cross-validation on train/ and val/ together: by the mean over so many folds, of
    which it runs the first, and the others while it is in the running. None: by the val split."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, instead of stopping."""


class ModelConfig(Section):
    """Which pretrained model."""

    backbone: Texts = ()
    """torchvision or timm names; the first whose weights can be had is used. Empty only where the space chooses it."""
    weights: Text = "pretrained"
    """pretrained, random, or a file."""


class SearchConfig(Section):
    """How the space is searched, and until when."""

    trials: Annotated[int, Field(ge=1)] = 30
    time_budget: Annotated[float, BeforeValidator(seconds), Field(gt=0)] | None = None
    """Seconds after which the search ends, and what still runs counts as pruned; None: no limit. In YAML also 90s, 10m,
    1h30m."""
    target: float | None = None
    """The value of the metric with which the search ends; None: none."""
    metric: Annotated[str, BeforeValidator(_metric)] = "val_accuracy"
    sampler: SamplerConfig = SamplerConfig()
    pruner: PrunerConfig = PrunerConfig()
    first: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_one_or_more)] | None = None
    """Configurations to run before sampling; None: the tutorial's two recipes."""
    order: Literal["deep_first", "as_sampled"] = "deep_first"
    """deep_first: of a range of freeze depths, the deepest and cheapest quarter is open at first, then all to a quarter
    beyond the best depth so far: the deepest one within a standard error of the best trial (of a loss: equal to it).
    tpe and random do so, the other samplers take the whole range at once."""
    seed: Annotated[int, Field(ge=0)] = 0
    storage: Text | None = None
    """An Optuna storage URL; None: study.db in the run's folder."""


class ResourcesConfig(Section):
    """What one trial is given."""

    cpus: Annotated[float | Literal["auto"], BeforeValidator(_cpus)] = "auto"
    """A number; auto: one, or where trials have GPUs, the machine's CPUs but one, shared by the trials that its GPUs
    can hold; in a cluster, the smallest such share."""
    gpus: Annotated[float | Literal["auto"], BeforeValidator(_gpus)] = "auto"
    """A number or share of GPUs; auto: none on a machine without any, else a quarter."""


class MemoConfig(Section):
    """Where the frozen stages' activations are kept: for all trials, and for later searches on the same images."""

    enabled: bool = True
    """Without it every trial computes them anew, each epoch; the results are the same."""
    budget: Annotated[int, BeforeValidator(byte_count), Field(ge=0)] | None = None
    """Bytes that it may take; None: a quarter of the disk that is free or the memo's, and at most 20 GB. In
    YAML also 200MB, 20GB."""
    folder: Text | None = None
    """None: in the user's cache."""


class ReportConfig(Section):
    """How the best configuration is found among those that looked best, and what it is trained on at last."""

    finalists: Annotated[int, Field(ge=0)] = 3
    """So many of the best configurations, and the tutorial's recipes, are trained again with other seeds; 0: none, the
    best trial is taken at its word."""
    seeds: Annotated[int, Field(ge=1)] = 3
    """How often each is trained again."""
    retrain_on: Literal["train", "train+val"] = "train"
    """train+val: the model that is handed over learns from the validation images, too; only with a test split."""
