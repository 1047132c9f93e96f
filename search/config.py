"""A configuration: a YAML file and the command line's overrides, as frozen settings without a mistake in them."""

import copy
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from search.agreement import disagreements
from search.method import PrunerConfig, SamplerConfig
from search.override import apply_overrides
from search.problem import Problem, problems_in, refusal, unusable_numbers
from search.sections import DataConfig, MemoConfig, ModelConfig, ReportConfig, ResourcesConfig, SearchConfig, Section
from search.space import Space
from search.spec import read_space
from search.yaml_source import Origins, read_yaml
from trainable.errors import InputError
from trainable.settings import TrainSettings

__all__ = [
    "Config",
    "DataConfig",
    "MemoConfig",
    "ModelConfig",
    "PrunerConfig",
    "ResourcesConfig",
    "SamplerConfig",
    "SearchConfig",
    "find_config",
    "load_config",
]

SHIPPED = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")
"""Where the shipped configurations lie: in an installed wheel, and in a checkout."""


def load_config(file: Path, overrides: Sequence[str] = ()) -> "Config":
    """Reads a configuration.

    Args:
        file: a YAML file; :func:`find_config` finds one by name.
        overrides: "key.path=value" with YAML values, which win over the file.

    Raises:
        InputError: with every mistake on a line of its own: file, line, key, what must hold, and what was received.
    """
    tree, origins = read_yaml(file)
    apply_overrides(tree, origins, overrides)
    config, problems = _checked(tree)
    if config is None or problems:
        problems.sort(key=lambda problem: origins.order(problem.path))
        raise InputError("\n".join(f"{origins.where(*problem.path)}: {problem.text}" for problem in problems))
    config._origins = origins
    return config


def find_config(name: str) -> Path:
    """The file of that name in the current folder, else among the shipped configurations."""
    if Path(name).is_file():
        return Path(name)
    shipped = {file.name: file for folder in SHIPPED for file in sorted(folder.glob("*.yaml"))}
    if name in shipped:
        return shipped[name]
    near = difflib.get_close_matches(Path(name).name, shipped, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"no configuration {name} in this folder, nor shipped under that name{guess} (shipped: {', '.join(shipped)})"
    )


class Config(Section):
    """Everything a search is told."""

    data: DataConfig
    model: ModelConfig = ModelConfig()
    space: Annotated[dict[str, Any], Field(min_length=1)]
    """Key to spec, as written; :meth:`parameters` reads it."""
    train: TrainSettings = TrainSettings()
    search: SearchConfig = SearchConfig()
    resources: ResourcesConfig = ResourcesConfig()
    memo: MemoConfig = MemoConfig()
    report: ReportConfig = ReportConfig()
    record: dict[str, Any] | None = None
    """What a run adds to the configuration that it keeps (digests, versions); nothing reads it as a setting."""
    _origins: Origins = PrivateAttr(default_factory=Origins)

    @model_validator(mode="after")
    def _agree(self) -> "Config":
        space, problems = read_space(self.space, self._fixed())
        sound = None if problems else space
        problems += disagreements(self.model, self.space, self.train, self.search, sound)
        if problems:
            raise refusal("Config", problems)
        return self

    def parameters(self) -> Space:
        """The search space; freeze depths are still by name (:func:`search.depths.resolve_depths`)."""
        return read_space(self.space, self._fixed())[0]

    def where(self, *path: str | int) -> str:
        """Where a setting was written: 'default.yaml:12: space.lr', or '--set space.lr'."""
        return self._origins.where(*path)

    def resolved(self) -> dict[str, Any]:
        """Plain values with every default written out; :func:`load_config` reads an equal configuration from them."""
        tree = self.model_dump(mode="json", exclude={"record"} if self.record is None else None)
        tree["train"] = {key: value for key, value in tree["train"].items() if key not in self.space}
        return tree

    def _fixed(self) -> dict[str, tuple[Any, ...]]:
        return {**{key: (value,) for key, value in self.train}, "backbone": self.model.backbone}


def _checked(tree: dict[str, Any]) -> tuple[Config | None, list[Problem]]:
    """The configuration, and all problems of the tree.

    What belongs together is compared only where each part is right by itself. So what is wrong is left out and the
    rest is looked at again, until nothing new comes up.
    """
    problems = list(unusable_numbers(tree))
    while True:
        config, found = _validated(_without(tree, problems))
        new = [one for one in found if not any(_touch(one, problem) for problem in problems)]
        if not new:
            return config, problems
        problems += new


def _validated(tree: dict[str, Any]) -> tuple[Config | None, list[Problem]]:
    try:
        return Config.model_validate(tree, strict=True), []
    except ValidationError as error:
        return None, problems_in(error, Config, tree)


def _without(tree: dict[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
    """A copy of the tree without the keys that the problems name, but with some source where the data's is wrong."""
    sound = copy.deepcopy(tree)
    for problem in problems:
        names = [part for part in problem.path if isinstance(part, str)]
        section: Any = sound
        for name in names[:-1]:
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.pop(names[-1], None)
        if names[0] == "data":
            sound.setdefault("data", {}).setdefault("source", "any")
    return sound


def _touch(one: Problem, other: Problem) -> bool:
    length = min(len(one.path), len(other.path))
    return one.path[:length] == other.path[:length]
