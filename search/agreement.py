"""What must hold between the sections of a configuration, each of which is right by itself."""

from collections.abc import Iterator, Mapping
from typing import Any

from search.problem import Problem, broken_rule
from search.sections import ModelConfig, SearchConfig
from search.space import Categorical, DepthChoices, Depths, Space
from trainable.settings import TrainSettings


def disagreements(
    model: ModelConfig, space: Mapping[str, Any], train: TrainSettings, search: SearchConfig, read: Space | None
) -> list[Problem]:
    """All problems between the sections; ``read`` is the space read from its section, None where it has a mistake."""
    return [
        *_backbone_is_given(model, space),
        *_fixed_and_searched(space, train),
        *(_sampler_fits(search, read) if read else ()),
        *(_first_lie_inside(search, read) if read else ()),
    ]


def _backbone_is_given(model: ModelConfig, space: Mapping[str, Any]) -> Iterator[Problem]:
    if not model.backbone and "backbone" not in space:
        yield Problem(("model", "backbone"), "must be given: a torchvision or timm name such as resnet18")


def _fixed_and_searched(space: Mapping[str, Any], train: TrainSettings) -> Iterator[Problem]:
    for key in sorted(train.model_fields_set & space.keys()):
        yield Problem(("train", key), f"stands under space too; keep one of the two (--set space.{key}=… fixes it)")


def _sampler_fits(search: SearchConfig, space: Space) -> Iterator[Problem]:
    name, path = search.sampler.name, ("search", "sampler")
    backbones = next((parameter.domain for parameter in space.sampled if parameter.key == "backbone"), None)
    conditional = [
        parameter.name
        for parameter in space.sampled
        if parameter.when or (backbones and isinstance(parameter.domain, Depths | DepthChoices))
    ]
    choices = [
        parameter.name for parameter in space.sampled if isinstance(parameter.domain, Categorical | DepthChoices)
    ]
    if name in ("grid", "cmaes") and conditional:
        reason = "each backbone has depths of its own" if backbones else "a condition decides whether it is searched"
        yield Problem(path, f"{name} cannot search {', '.join(conditional)}: {reason}; use tpe or random")
    if name == "cmaes" and choices:
        yield Problem(
            path,
            f"cmaes searches only ranges, not choices ({', '.join(choices)}); use tpe, or write {{low: …, high: …}}",
        )
    if name == "cmaes" and len(space.sampled) < 2:
        yield Problem(path, "cmaes must have at least two ranges to search; use tpe")


def _first_lie_inside(search: SearchConfig, space: Space) -> Iterator[Problem]:
    for index, values in enumerate(search.first or ()):
        wrong = {key: _broken(space, key, value) for key, value in values.items()}
        for key, rule in wrong.items():
            if rule:
                yield Problem(("search", "first", index, key), rule)
        if not any(wrong.values()):
            try:
                space.params(values)
            except ValueError as error:
                yield Problem(("search", "first", index), str(error))


def _broken(space: Space, key: str, value: Any) -> str | None:
    if key in TrainSettings.model_fields and key in space.keys:
        return broken_rule(TrainSettings, key, value)
    return None
