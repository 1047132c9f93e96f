"""A sampler or a pruner by name, with its own options and no others."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from search.problem import Problem, refusal, shown, unknown


class _Method(BaseModel):
    """A name and its options; options that the named method does not have are None. A bare name is enough."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    OPTIONS: ClassVar[Mapping[str, Mapping[str, int]]]
    """Every name, with its options and their defaults."""
    NOUN: ClassVar[str]

    name: str

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if given is None or isinstance(given, str):
            given = {"name": given or "none"}
        if not isinstance(given, dict):
            raise ValueError(f"must be a {cls.NOUN}'s name, or its name and options (got {shown(given)})")
        name = given.get("name", cls.model_fields["name"].default)
        if name not in tuple(cls.OPTIONS):
            text = f"no such {cls.NOUN}: {shown(name)}; {unknown(str(name), cls.OPTIONS)}"
            raise refusal(cls.__name__, [Problem(("name",), text)])
        options = cls.OPTIONS[name]
        wrong = [key for key in given if key != "name" and key not in options]
        if wrong:
            rest = "it has none"
            texts = {key: f"no option of {name}; {unknown(key, options) if options else rest}" for key in wrong}
            raise refusal(cls.__name__, [Problem((key,), text) for key, text in texts.items()])
        return {"name": name, **options, **given}

    @model_serializer(mode="wrap")
    def _own_options(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class SamplerConfig(_Method):
    """What chooses the next configuration; see Optuna's samplers of these names."""

    OPTIONS = {
        "tpe": {"startup_trials": 10},
        "gp": {"startup_trials": 10},
        "random": {},
        "grid": {"steps": 5},
        "cmaes": {"startup_trials": 1},
        "qmc": {},
    }
    NOUN = "sampler"

    name: str = "tpe"
    startup_trials: Annotated[int, Field(ge=0)] | None = None
    """Trials chosen at random before the sampler has enough to go by."""
    steps: Annotated[int, Field(ge=2)] | None = None
    """Values that each continuous parameter is cut in."""


class PrunerConfig(_Method):
    """What stops a trial that does not look promising; see Optuna's pruners of these names."""

    OPTIONS = {
        "successive_halving": {"reduction_factor": 3, "min_epochs": 1},
        "hyperband": {"reduction_factor": 3, "min_epochs": 1},
        "median": {"startup_trials": 5, "min_epochs": 1},
        "none": {},
    }
    NOUN = "pruner"

    name: str = "successive_halving"
    reduction_factor: Annotated[int, Field(ge=2)] | None = None
    """One in so many trials goes on to the next rung, and the rung after it is so many times as long."""
    startup_trials: Annotated[int, Field(ge=0)] | None = None
    """Trials that run to their end before any is stopped."""
    min_epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs that every trial is given."""
