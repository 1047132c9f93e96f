"""A space whose freeze depths are numbers: what "all" and "layer3" mean is known once there is a backbone."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from search.space import Categorical, Constant, DepthChoices, Depths, Domain, Int, Parameter, Space
from trainable.errors import InputError

Depth = Callable[[str, int | str], int]


def _dotted(*path: str | int) -> str:
    return ".".join(map(str, path))


def resolve_depths(space: Space, depth: Depth, backbones: Sequence[str], where: Callable[..., str] = _dotted) -> Space:
    """Numbers the space's freeze depths.

    With one backbone, ``freeze_depth`` stays one parameter, and conditions that name the backbone are decided. With
    several, which the space then has to choose from, it becomes one conditional parameter a backbone, as each has
    stages of its own.

    Args:
        space: as read from the configuration.
        depth: (backbone, ordinal or name) to ordinal; raises InputError for what the backbone does not have.
        backbones: the one backbone in use, or all that the space chooses from.
        where: names the place of a setting for messages: ``Config.where``.

    Raises:
        InputError: with every depth that a backbone does not have.
    """
    if len(backbones) != 1 and not any(parameter.name == "backbone" for parameter in space.sampled):
        raise ValueError(f"there must be one backbone unless the space chooses it (got {', '.join(backbones)})")
    parameters: list[Parameter] = []
    problems: list[str] = []
    for parameter in space.parameters:
        if len(backbones) == 1:
            parameters += _decided(parameter, backbones[0])
        elif parameter.key == "freeze_depth":
            parameters += _each_backbone(parameter, backbones)
        else:
            parameters.append(parameter)
    numbered = [_numbered(parameter, depth, backbones[0], where, problems) for parameter in parameters]
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    return Space(tuple(numbered))


def _decided(parameter: Parameter, backbone: str) -> list[Parameter]:
    if backbone not in parameter.when.get("backbone", (backbone,)):
        return []
    return [replace(parameter, when={key: value for key, value in parameter.when.items() if key != "backbone"})]


def _each_backbone(parameter: Parameter, backbones: Sequence[str]) -> list[Parameter]:
    allowed = parameter.when.get("backbone", tuple(backbones))
    return [
        replace(parameter, name=f"{parameter.name}@{backbone}", when={**parameter.when, "backbone": (backbone,)})
        for backbone in backbones
        if backbone in allowed
    ]


def _numbered(
    parameter: Parameter, depth: Depth, only: str, where: Callable[..., str], problems: list[str]
) -> Parameter:
    if parameter.key != "freeze_depth":
        return parameter
    backbone = str(parameter.when.get("backbone", (only,))[0])

    def number(value: int | str, *path: str | int) -> int:
        try:
            return depth(backbone, value)
        except InputError as error:
            problems.append(f"{where('space', 'freeze_depth', *path)}: {error}")
            return -1

    ordinals = _ordinals(parameter.domain, number)
    if not problems and not ordinals:
        problems.append(f"{where('space', 'freeze_depth')}: {_reversed(parameter.domain, number, backbone)}")
    return replace(parameter, domain=_domain(parameter.domain, ordinals)) if ordinals else parameter


def _ordinals(domain: Domain, number: Callable[..., int]) -> list[int]:
    if isinstance(domain, Depths):
        return list(range(number(domain.low, "low"), number(domain.high, "high") + 1, domain.step))
    if isinstance(domain, DepthChoices):
        return sorted({number(value, "choices", index) for index, value in enumerate(domain.choices)})
    if isinstance(domain, Constant):
        return [number(domain.value)]
    return list(domain.values() or ())


def _domain(domain: Domain, ordinals: list[int]) -> Domain:
    """The numbers as a domain; names that mean the same depth on this backbone may leave a single one."""
    if len(ordinals) == 1:
        return Constant(ordinals[0])
    if isinstance(domain, DepthChoices | Categorical):
        return Categorical(tuple(ordinals))
    return Int(ordinals[0], ordinals[-1], step=ordinals[1] - ordinals[0])


def _reversed(domain: Domain, number: Callable[..., int], backbone: str) -> str:
    assert isinstance(domain, Depths), domain
    low, high = number(domain.low, "low"), number(domain.high, "high")
    return (
        f"low must not lie above high, but on {backbone} {domain.low} is depth {low} "
        f"and {domain.high} is depth {high}; swap them"
    )
