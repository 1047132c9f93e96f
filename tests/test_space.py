"""The space: what is suggested, enqueued, counted and described."""

import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.depths import resolve_depths
from search.space import Categorical, Constant, DepthChoices, Depths, Domain, Float, Int, Parameter, Space
from trainable.errors import InputError

optuna.logging.set_verbosity(optuna.logging.WARNING)


def space_of(**domains: Domain) -> Space:
    return Space(tuple(Parameter(key, key, domain) for key, domain in domains.items()))


CONDITIONAL = Space(
    (
        Parameter("optimizer", "optimizer", Categorical(("sgd", "adamw"))),
        Parameter("lr", "lr", Float(1e-4, 0.1, log=True)),
        Parameter("momentum", "momentum", Float(0.0, 0.9, step=0.1), {"optimizer": ("sgd",)}),
        Parameter("weight_decay", "weight_decay", Categorical((0.0, 0.01)), {"optimizer": ("adamw",)}),
        Parameter("gamma", "gamma", Constant(0.1)),
    )
)

FINITE = Space(
    (
        Parameter("optimizer", "optimizer", Categorical(("sgd", "adamw"))),
        Parameter("momentum", "momentum", Float(0.0, 0.9, step=0.45), {"optimizer": ("sgd",)}),
        Parameter("batch_size", "batch_size", Int(4, 8)),
        Parameter("gamma", "gamma", Constant(0.1), {"optimizer": ("sgd",)}),
    )
)


# Ranges as people write them: bounds of a few digits, several orders of magnitude, with and without log and step.
@st.composite
def floats(draw: st.DrawFn) -> Float:
    low, high = sorted(draw(st.lists(st.integers(-5000, 5000), min_size=2, max_size=2, unique=True)))
    power = draw(st.integers(-6, 2))
    if low > 0 and draw(st.booleans()):
        return Float(float(f"{low}e{power}"), float(f"{high}e{power}"), log=True)
    step = draw(st.none() | st.integers(1, high - low))
    exact = None if step is None or step == high - low else float(f"{step}e{power}")
    return Float(float(f"{low}e{power}"), float(f"{high}e{power}"), step=exact)


@st.composite
def ints(draw: st.DrawFn) -> Int:
    low, high = sorted(draw(st.lists(st.integers(-300, 300), min_size=2, max_size=2, unique=True)))
    if low > 0 and draw(st.booleans()):
        return Int(low, high, log=True)
    return Int(low, high, step=draw(st.integers(1, high - low)))


CATEGORICALS = st.one_of(
    st.lists(st.sampled_from(["sgd", "adamw", "none", "flip"]), min_size=1, unique=True),
    st.lists(st.floats(-10, 10), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(1, 512), min_size=1, max_size=5, unique=True),
).map(lambda choices: Categorical(tuple(choices)))

CONDITIONS: st.SearchStrategy[Any] = st.booleans()
DOMAINS: st.SearchStrategy[Any] = st.one_of(floats(), ints(), CATEGORICALS)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Up to four parameters, the later ones perhaps searched only with one value of an earlier categorical."""
    parameters: list[Parameter] = []
    for index, domain in enumerate(draw(st.lists(DOMAINS, min_size=1, max_size=4))):
        deciders = [earlier for earlier in parameters if isinstance(earlier.domain, Categorical)]
        when: dict[str, tuple[Any, ...]] = {}
        if deciders and draw(CONDITIONS):
            decider = draw(st.sampled_from(deciders))
            assert isinstance(decider.domain, Categorical)
            when = {decider.key: (draw(st.sampled_from(decider.domain.choices)),)}
        parameters.append(Parameter(f"p{index}", f"p{index}", domain, when))
    return Space(tuple(parameters))


def ask(space: Space, seed: int, params: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values that a real study suggests, and the trial's own parameters."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    if params is not None:
        study.enqueue_trial(params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trial = study.ask()
        return space.suggest(trial), dict(trial.params)


class TestProperties:
    @settings(deadline=None, max_examples=60)
    @given(spaces(), st.integers(0, 2**31))
    def test_suggestions_lie_inside_and_are_the_studys_parameters(self, space: Space, seed: int) -> None:
        values, params = ask(space, seed)
        for parameter in space.parameters:
            assert (parameter.key in values) == parameter.active(values)
            assert parameter.key not in values or parameter.domain.contains(values[parameter.key])
        assert space.params(values) == params

    @settings(deadline=None, max_examples=60)
    @given(spaces(), st.integers(0, 2**31))
    def test_what_is_enqueued_is_suggested(self, space: Space, seed: int) -> None:
        values, _ = ask(space, seed)
        again, _ = ask(space, seed + 1, space.params(values))
        assert again == values
        assert {key: type(value) for key, value in again.items()} == {key: type(value) for key, value in values.items()}

    @given(DOMAINS, st.one_of(st.floats(-1e9, 1e9), st.integers(-1000, 1000), st.sampled_from(["sgd", "zz"])))
    def test_nearest_is_inside_and_stays_there(self, domain: Domain, value: Any) -> None:
        near = domain.nearest(value)
        assert domain.contains(near)
        assert domain.nearest(near) == near

    @given(st.one_of(floats(), ints()), st.floats(-1e6, 1e6))
    def test_nothing_inside_is_nearer_than_nearest(self, domain: Float | Int, value: float) -> None:
        values = domain.values()
        assume(values is not None and len(values) < 500)
        distance = abs(domain.nearest(value) - value)
        assert all(distance <= abs(other - value) * (1 + 1e-9) + 1e-12 for other in values or ())

    @given(spaces(), st.integers(0, 1000))
    def test_nearest_of_a_space_can_be_enqueued(self, space: Space, value: int) -> None:
        values = space.nearest(dict.fromkeys(space.keys, value))
        assert space.nearest(values) == values
        space.params(values)

    @settings(deadline=None)
    @given(spaces())
    def test_size_is_the_number_of_configurations(self, space: Space) -> None:
        size = space.size()
        assume(size is not None and size < 2000)
        params = list(space.configurations())
        assert len(params) == size
        assert len({tuple(sorted(each.items())) for each in params}) == size

    @given(floats())
    def test_cuts_lie_inside_from_bound_to_bound(self, domain: Float) -> None:
        cut = domain.cut(5)
        assert len(cut) == 5 and (cut[0], cut[-1]) == (domain.low, domain.high)
        assert all(domain.low <= value <= domain.high for value in cut)


class TestDomains:
    @pytest.mark.parametrize(
        ("domain", "inside", "outside"),
        [
            (Float(0.1, 1.0), [0.1, 1.0, 1, 0.5], [0.09, 1.1, "0.5", True, None, float("nan")]),
            (Float(1e-6, 1e-3, log=True), [1e-6, 5e-5], [0.0, 0.9e-6, 1.1e-3]),
            (Float(0.0, 1.0, step=0.25), [0, 0.25, 0.75, 1.0], [0.3, 1.25, -0.25]),
            (Int(1, 10, step=3), [1, 4, 10, 4.0], [2, 0, 13, 4.5, True, "4"]),
            (Categorical((4, 8)), [4, 8, 8.0], [5, "4", True]),
            (Categorical((0, 1)), [0, 1], [False, True]),
            (Constant("all"), ["all"], ["none", 0]),
            (Depths(0, "all"), [0, 7, "layer3"], [-1, 1.5, None, True]),
        ],
    )
    def test_contains(self, domain: Domain, inside: list[Any], outside: list[Any]) -> None:
        assert [value for value in inside if not domain.contains(value)] == []
        assert [value for value in outside if domain.contains(value)] == []

    @pytest.mark.parametrize(
        ("domain", "value", "near"),
        [
            (Float(0.1, 1.0), 5, 1.0),
            (Float(0.0, 1.0, step=0.25), 0.3, 0.25),
            (Int(1, 10, step=3), 6, 7),
            (Int(1, 10), 2.6, 3),
            (Categorical((16, 64)), 4, 16),
            (Categorical((16, 64)), 33, 64),
            (Categorical((0.0, 10.0)), 6, 10.0),
            (Categorical(("sgd", "adamw")), "adam", "sgd"),
            (Categorical(("sgd", "adamw")), "adamw", "adamw"),
            (Constant(3), 4, 3),
        ],
    )
    def test_nearest(self, domain: Domain, value: Any, near: Any) -> None:
        assert domain.nearest(value) == near
        assert type(domain.nearest(value)) is type(near)

    @pytest.mark.parametrize(
        ("low", "high", "step", "last"), [(0, 0.95, 0.1, 0.9), (0.1, 1.0, 0.3, 1.0), (0.0, 1.0, 0.3, 0.9)]
    )
    def test_a_step_lowers_high_to_its_last_multiple(self, low: float, high: float, step: float, last: float) -> None:
        assert Float(low, high, step=step).high == last

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda: Float(2, 1), "low must be below high, but the range is reversed (got low 2, high 1)"),
            (lambda: Int(0, 5, log=True), "low must be > 0 where log is true, as zero has no logarithm (got 0)"),
            (lambda: Int(1, 5, step=9), "step must be > 0 and at most high - low = 4 (got 9)"),
            (lambda: Categorical(()), "choices must hold at least one value"),
            (lambda: DepthChoices(("all", "all")), "choices must differ (got all twice)"),
        ],
    )
    def test_what_is_no_domain(self, make: Callable[[], Domain], text: str) -> None:
        with pytest.raises(ValueError) as caught:
            make()
        assert str(caught.value) == text

    def test_depths_by_name_are_not_suggested(self) -> None:
        with pytest.raises(RuntimeError, match="call resolve_depths first"):
            space_of(freeze_depth=Depths(0, "all")).suggest(optuna.trial.FixedTrial({}))


class TestConditions:
    def test_inactive_parameters_are_absent(self) -> None:
        trial = optuna.trial.FixedTrial({"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.01})
        assert CONDITIONAL.suggest(trial) == {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.01, "gamma": 0.1}

    def test_a_condition_on_an_inactive_parameter_does_not_hold(self) -> None:
        chain = Space((*CONDITIONAL.parameters, Parameter("x", "x", Int(1, 2), {"momentum": (0.9,)})))
        trial = optuna.trial.FixedTrial({"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.01})
        assert "x" not in chain.suggest(trial)

    def test_what_decides_comes_first(self) -> None:
        with pytest.raises(ValueError, match="lr must come before gamma, whose condition names it"):
            Space((Parameter("gamma", "gamma", Int(1, 2), {"lr": (1,)}), Parameter("lr", "lr", Int(1, 2))))

    def test_names_are_unique(self) -> None:
        with pytest.raises(ValueError, match=r"parameters must have names of their own \(got a, a\)"):
            Space((Parameter("a", "a", Int(1, 2)), Parameter("a", "b", Int(1, 2))))


class TestParams:
    def test_have_the_domains_types_and_no_constants(self) -> None:
        params = CONDITIONAL.params({"optimizer": "sgd", "lr": 0.1, "momentum": 0, "gamma": 0.1})
        assert params == {"optimizer": "sgd", "lr": 0.1, "momentum": 0.0}
        assert type(params["momentum"]) is float

    def test_may_leave_keys_to_the_sampler(self) -> None:
        assert CONDITIONAL.params({"lr": 0.01}) == {"lr": 0.01}

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            ({"lrr": 1}, "lrr is not in the space, which has optimizer, lr, momentum, weight_decay, gamma"),
            ({"lr": 1}, "lr must lie in 0.0001 … 0.1, log (got 1)"),
            ({"gamma": 0.5}, "gamma must lie in 0.1 (constant) (got 0.5)"),
            (
                {"optimizer": "adamw", "momentum": 0.9},
                "momentum is not searched here: 0 … 0.9, step 0.1, when optimizer is sgd (got optimizer adamw)",
            ),
            (
                {"momentum": 0.9},
                "momentum is not searched here: 0 … 0.9, step 0.1, when optimizer is sgd (got optimizer not given)",
            ),
        ],
    )
    def test_refuses_what_lies_outside(self, values: dict[str, Any], text: str) -> None:
        with pytest.raises(ValueError) as caught:
            CONDITIONAL.params(values)
        assert str(caught.value) == text

    def test_nearest_leaves_out_what_is_not_searched(self) -> None:
        recipe = {"optimizer": "adam", "lr": 1, "momentum": 0.93, "weight_decay": 0.1, "gamma": 0.5, "epochs": 3}
        moved = CONDITIONAL.nearest(recipe)
        assert moved == {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "gamma": 0.1}


class TestSize:
    def test_counts_only_what_is_active(self) -> None:
        assert FINITE.size() == 3 * 5 + 5
        assert next(FINITE.configurations()) == {"optimizer": "sgd", "momentum": 0.0, "batch_size": 4}

    def test_is_none_where_it_is_infinite(self) -> None:
        assert CONDITIONAL.size() is None
        with pytest.raises(ValueError, match="a space with a continuous parameter has no list of configurations"):
            CONDITIONAL.configurations()

    def test_of_constants_is_one(self) -> None:
        assert space_of(lr=Constant(0.1)).size() == 1
        assert list(space_of(lr=Constant(0.1)).configurations()) == [{}]


class TestGrid:
    def test_cuts_what_is_continuous(self) -> None:
        space = space_of(lr=Float(1e-4, 1e-2, log=True), step_size=Int(1, 3), gamma=Constant(0.1))
        grid = space.grid(3)
        assert grid == {"lr": [1e-4, pytest.approx(1e-3), 1e-2], "step_size": [1, 2, 3]}

    def test_has_no_conditions(self) -> None:
        with pytest.raises(ValueError, match=r"a grid cannot have conditions \(got some on momentum, weight_decay\)"):
            CONDITIONAL.grid(3)

    def test_is_what_the_grid_sampler_takes(self) -> None:
        space = space_of(lr=Float(1e-4, 1e-2, log=True), momentum=Float(0, 0.9, step=0.3))
        study = optuna.create_study(sampler=optuna.samplers.GridSampler(space.grid(3), seed=0))
        study.optimize(lambda trial: float(len(space.suggest(trial))))
        assert len({tuple(trial.params.values()) for trial in study.trials}) == len(study.trials) == 12


def test_describes_itself() -> None:
    assert CONDITIONAL.describe() == (
        "optimizer     sgd | adamw\n"
        "lr            0.0001 … 0.1, log\n"
        "momentum      0 … 0.9, step 0.1, when optimizer is sgd\n"
        "weight_decay  0 | 0.01, when optimizer is adamw\n"
        "gamma         0.1 (constant)"
    )
    assert repr(space_of(lr=Float(1, 2), freeze_depth=Depths(0, "all"))) == "Space(lr: 1 … 2; freeze_depth: 0 … all)"


STAGES = {"resnet18": ["stem", "layer1", "layer2", "layer3", "layer4"], "lite0": ["stem", "blocks.0", "blocks.1"]}


def depth(backbone: str, value: int | str) -> int:
    stages = STAGES[backbone]
    if value == "all":
        return len(stages)
    if isinstance(value, str) and value in stages:
        return stages.index(value) + 1
    if isinstance(value, int) and value <= len(stages):
        return value
    raise InputError(f"{backbone} has no {value}")


class TestDepths:
    @pytest.mark.parametrize(
        ("domain", "numbered"),
        [
            (Depths(0, "all"), Int(0, 5)),
            (Depths("layer2", "layer4"), Int(3, 5)),
            (Depths(0, "all", step=2), Int(0, 4, step=2)),
            (Depths("layer4", "all"), Constant(5)),
            (DepthChoices(("all", "layer1", 0)), Categorical((0, 2, 5))),
            (DepthChoices(("all", "layer4")), Constant(5)),
            (Constant("layer3"), Constant(4)),
            (Constant(2), Constant(2)),
            (Int(0, 5), Int(0, 5)),
        ],
    )
    def test_are_numbered(self, domain: Domain, numbered: Domain) -> None:
        (parameter,) = resolve_depths(space_of(freeze_depth=domain), depth, ["resnet18"]).parameters
        assert (parameter.name, parameter.domain) == ("freeze_depth", numbered)

    def test_of_several_backbones_are_parameters_of_their_own(self) -> None:
        space = space_of(backbone=Categorical(("resnet18", "lite0")), freeze_depth=Depths(1, "all"))
        resolved = resolve_depths(space, depth, ["resnet18", "lite0"])
        assert resolved.describe() == (
            "backbone               resnet18 | lite0\n"
            "freeze_depth@resnet18  1 … 5, when backbone is resnet18\n"
            "freeze_depth@lite0     1 … 3, when backbone is lite0"
        )
        assert resolved.size() == 5 + 3
        trial = optuna.trial.FixedTrial({"backbone": "lite0", "freeze_depth@lite0": 3})
        assert resolved.suggest(trial) == {"backbone": "lite0", "freeze_depth": 3}
        params = {"backbone": "lite0", "freeze_depth@lite0": 2}
        assert resolved.params({"backbone": "lite0", "freeze_depth": 2}) == params
        assert resolved.nearest({"backbone": "lite0", "freeze_depth": 5}) == {"backbone": "lite0", "freeze_depth": 3}
        with pytest.raises(ValueError, match=r"freeze_depth must lie in 1 … 3 \(got 5\)"):
            resolved.params({"backbone": "lite0", "freeze_depth": 5})

    def test_of_several_backbones_keep_their_own_condition(self) -> None:
        backbone = Parameter("backbone", "backbone", Categorical(("resnet18", "lite0")))
        depths = Parameter("freeze_depth", "freeze_depth", Depths(1, "all"), {"backbone": ("lite0",)})
        resolved = resolve_depths(Space((backbone, depths)), depth, ["resnet18", "lite0"])
        assert [parameter.name for parameter in resolved.parameters] == ["backbone", "freeze_depth@lite0"]

    @pytest.mark.parametrize(
        ("domain", "text"),
        [
            (Depths(0, 9), "x.yaml:3: space.freeze_depth.high: resnet18 has no 9"),
            (
                Depths("layer7", "layer8"),
                "x.yaml:3: space.freeze_depth.low: resnet18 has no layer7\n"
                "x.yaml:3: space.freeze_depth.high: resnet18 has no layer8",
            ),
            (DepthChoices((0, 9)), "x.yaml:3: space.freeze_depth.choices.1: resnet18 has no 9"),
            (Constant("head"), "x.yaml:3: space.freeze_depth: resnet18 has no head"),
            (
                Depths("layer3", "layer1"),
                "x.yaml:3: space.freeze_depth: low must not lie above high, but on resnet18 layer3 is depth 4 "
                "and layer1 is depth 2; swap them",
            ),
        ],
    )
    def test_that_the_backbone_lacks_are_named_with_their_place(self, domain: Domain, text: str) -> None:
        def where(*path: str | int) -> str:
            return f"x.yaml:3: {'.'.join(map(str, path))}"

        with pytest.raises(InputError) as caught:
            resolve_depths(space_of(freeze_depth=domain), depth, ["resnet18"], where)
        assert str(caught.value) == text

    def test_one_backbone_unless_the_space_chooses(self) -> None:
        with pytest.raises(ValueError, match="there must be one backbone unless the space chooses it"):
            resolve_depths(space_of(lr=Int(1, 2)), depth, ["resnet18", "lite0"])
