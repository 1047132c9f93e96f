"""Configurations: what is read, and the text of every mistake."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.config import SHIPPED, Config, find_config, load_config
from search.depths import resolve_depths
from search.space import Categorical, Constant, DepthChoices, Depths, Float, Int
from trainable.errors import InputError
from trainable.settings import METRICS

LR = "lr: {low: 0.001, high: 0.1, log: true}"


def write(folder: Path, text: str) -> Path:
    file = folder / "x.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def text_of(space: str = LR, train: str = "", search: str = "", data: str = "", more: str = "") -> str:
    """Four lines, then what is given: data on 1, model on 2, space on 3, train on 4, search on 5, more from 6 on."""
    return (
        f"data: {{source: hymenoptera{', ' if data else ''}{data}}}\nmodel: {{backbone: resnet18}}\n"
        f"space: {{{space}}}\ntrain: {{{train}}}\nsearch: {{{search}}}\n{more}\n"
    )


def mistake(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(write(folder, text), overrides)
    return str(caught.value)


def load(folder: Path, text: str, *overrides: str) -> Config:
    return load_config(write(folder, text), overrides)


SPACE_MISTAKES = {
    "lr: {low: 0, high: 1}": "x.yaml:3: space.lr.low: must be > 0 (got 0)",
    "momentum: {low: 0, high: 1}": "x.yaml:3: space.momentum.high: must be < 1 (got 1)",
    "momentum: {choices: [0.9, 1.5]}": "x.yaml:3: space.momentum.choices[1]: must be < 1 (got 1.5)",
    "lr: fast": 'x.yaml:3: space.lr: must be a number (got "fast")',
    "lr: '1e-4'": 'x.yaml:3: space.lr: must be a number (got "1e-4")',
    "lr:": "x.yaml:3: space.lr: must be a number (got null)",
    "lr: {low: 0.1, high: 0.01}": (
        "x.yaml:3: space.lr: low must be below high, but the range is reversed (got low 0.1, high 0.01)"
    ),
    "step_size: {low: 5, high: 5}": "x.yaml:3: space.step_size: low and high are both 5; write the constant 5 instead",
    "step_size: {low: 1.5, high: 5}": "x.yaml:3: space.step_size.low: must be a whole number (got 1.5)",
    "step_size: {low: yes, high: 5}": "x.yaml:3: space.step_size.low: must be a whole number (got true)",
    "step_size: 010": 'x.yaml:3: space.step_size: must be a whole number (got "010")',
    "weight_decay: {low: 0, high: 1, log: true}": (
        "x.yaml:3: space.weight_decay: low must be > 0 where log is true, as zero has no logarithm (got 0.0)"
    ),
    "lr: {low: 0.1, high: 1, log: maybe}": 'x.yaml:3: space.lr.log: must be true or false (got "maybe")',
    "lr: {low: 0.1, high: 1, log: true, step: 0.1}": (
        "x.yaml:3: space.lr: step cannot go with log: true (got step 0.1); leave out one of the two"
    ),
    "lr: {low: 0.1, high: 1, step: 0}": "x.yaml:3: space.lr: step must be > 0 and at most high - low = 0.9 (got 0.0)",
    "step_size: {low: 1, high: 9, step: 0.5}": "x.yaml:3: space.step_size.step: must be a whole number (got 0.5)",
    "lr: {low: 0.1, high: 1, step: 1e-30}": (
        "x.yaml:3: space.lr: step must be larger: 1e-30 gives over 1e9 values; leave it out for a continuous range"
    ),
    "batch_size: [4, 8]": "x.yaml:3: space.batch_size: a list is no spec; write {choices: [4, 8]}",
    "batch_size: {choices: []}": "x.yaml:3: space.batch_size: choices must hold at least one value",
    "batch_size: {choices: 4}": "x.yaml:3: space.batch_size.choices: must be a list (got 4)",
    "batch_size: {choices: [4, 8, 4]}": "x.yaml:3: space.batch_size: choices must differ (got 4 twice)",
    "batch_size: {choices: [4], low: 1}": (
        "x.yaml:3: space.batch_size: must have either choices or low and high, not both"
    ),
    "lr: {low: 0.1}": "x.yaml:3: space.lr: must be a constant, {low: …, high: …} or {choices: […]}",
    "lr: {low: 0.1, hihg: 1}": (
        "x.yaml:3: space.lr.hihg: unknown key; did you mean high?\n"
        "x.yaml:3: space.lr: must be a constant, {low: …, high: …} or {choices: […]}"
    ),
    "optimizer: {choices: [sgd, adam]}": (
        "x.yaml:3: space.optimizer.choices[1]: must be 'sgd' or 'adamw' (got \"adam\")"
    ),
    "optimizer: {low: 1, high: 2}": (
        "x.yaml:3: space.optimizer: cannot be a range, as it is a name; write {choices: [sgd, adamw]}"
    ),
    "backbone: {low: 1, high: 2}": (
        "x.yaml:3: space.backbone: cannot be a range, as it is a name; write {choices: […]}"
    ),
    "backbone: {choices: [resnet18, 50]}": "x.yaml:3: space.backbone.choices[1]: must be a name (got 50)",
    "crop_scale: {low: 0.1, high: 0.5}": (
        "x.yaml:3: space.crop_scale: cannot be a range, as each value has views of its own to compute; "
        "write {choices: […]} with a few values"
    ),
    "augmentation: {low: 1, high: 2}": (
        "x.yaml:3: space.augmentation: cannot be a range, as each value has views of its own to compute; "
        "write {choices: […]} with a few values"
    ),
    "epochs: {low: 1, high: 9}": (
        "x.yaml:3: space.epochs: cannot be searched: the pruner decides how long a trial runs; "
        "give train.epochs instead"
    ),
    "views: 4": (
        "x.yaml:3: space.views: cannot be searched: all trials share the same views; give train.views instead"
    ),
    "lrr: 1": "x.yaml:3: space.lrr: unknown setting; did you mean lr?",
    "freeze_depth: -1": "x.yaml:3: space.freeze_depth: must be >= 0 (got -1)",
    "freeze_depth: 1.5": "x.yaml:3: space.freeze_depth: must be a whole number or text (got 1.5)",
    "freeze_depth: {low: 5, high: 2}": (
        "x.yaml:3: space.freeze_depth: low must be below high, but the range is reversed (got low 5, high 2)"
    ),
    "freeze_depth: {low: all, high: all}": (
        "x.yaml:3: space.freeze_depth: low and high are both all; write the constant all instead"
    ),
    "freeze_depth: {low: 0, high: all, log: true}": (
        "x.yaml:3: space.freeze_depth.log: must be false: depths are counted from 0, which has no logarithm"
    ),
    "freeze_depth: {choices: [[0]]}": (
        "x.yaml:3: space.freeze_depth.choices[0]: must be a whole number or text (got [0])"
    ),
    "batch_size: 9223372036854775808": "x.yaml:3: space.batch_size: must be below 2^63 (got 9223372036854775808)",
    "": "x.yaml:3: space: must not be empty (got {})",
    "lr: {choices: [.nan]}": "x.yaml:3: space.lr.choices[0]: must be finite (got nan)",
    "lr: {low: 0.1, high: .inf}": "x.yaml:3: space.lr.high: must be finite (got inf)",
    "weight_decay: {choices: [0, 0.1], when: adamw}": (
        'x.yaml:3: space.weight_decay.when: must be a section such as {optimizer: adamw} (got "adamw")'
    ),
    "weight_decay: {choices: [0, 0.1], when: {optimiser: adamw}}": (
        "x.yaml:3: space.weight_decay.when.optimiser: unknown setting; did you mean optimizer?"
    ),
    "weight_decay: {choices: [0, 0.1], when: {optimizer: adam}}": (
        "x.yaml:3: space.weight_decay.when.optimizer: must be 'sgd' or 'adamw' (got \"adam\")"
    ),
    "weight_decay: {choices: [0, 0.1], when: {optimizer: []}}": (
        "x.yaml:3: space.weight_decay.when.optimizer: must name at least one value"
    ),
    "weight_decay: {choices: [0, 0.1], when: {batch_size: 5}}, batch_size: {choices: [4, 8]}": (
        "x.yaml:3: space.weight_decay.when.batch_size: is never 5: its values are 4 | 8"
    ),
    "weight_decay: {choices: [0, 0.1], when: {backbone: vit_b_16}}": (
        "x.yaml:3: space.weight_decay.when.backbone: is never vit_b_16: model.backbone is resnet18"
    ),
    "weight_decay: {choices: [0, 0.1], when: {freeze_depth: 0}}": (
        "x.yaml:3: space.weight_decay.when.freeze_depth: cannot be a condition: its values depend on the backbone"
    ),
    "lr: {choices: [1, 2], when: {gamma: 1}}, gamma: {choices: [1], when: {lr: 2}}": (
        "x.yaml:3: space.lr.when: conditions must not go round in a circle (lr → gamma → lr)"
    ),
}


@pytest.mark.parametrize("space", SPACE_MISTAKES)
def test_mistakes_in_the_space(space: str, tmp_path: Path) -> None:
    assert mistake(tmp_path, text_of(space)) == SPACE_MISTAKES[space]


SECTION_MISTAKES: dict[str, tuple[dict[str, str], str]] = {
    "unknown key": ({"data": "limt: 3"}, "x.yaml:1: data.limt: unknown key; did you mean limit?"),
    "unknown section": ({"more": "trian: {}"}, "x.yaml:6: trian: unknown key; did you mean train?"),
    "key in the wrong place": ({"more": "epochs: 3"}, "x.yaml:6: epochs: unknown key; it belongs under train"),
    "bool for an int": ({"data": "limit: yes"}, "x.yaml:1: data.limit: must be a whole number (got true)"),
    "text for an int": ({"data": "limit: '5'"}, 'x.yaml:1: data.limit: must be a whole number (got "5")'),
    "int for a bool": (
        {"data": "skip_unreadable: 1"},
        "x.yaml:1: data.skip_unreadable: must be true or false (got 1)",
    ),
    "one fold": (
        {"data": "folds: 1"},
        "x.yaml:1: data.folds: must be at least 2, or null to score on the val split (got 1)",
    ),
    "half a fold": ({"data": "folds: 2.5"}, "x.yaml:1: data.folds: must be a whole number (got 2.5)"),
    "share of one": ({"data": "test: 1"}, "x.yaml:1: data.test: must be < 1 (got 1)"),
    "null section": (
        {"more": "resources:"},
        "x.yaml:6: resources: must be a section of keys and values (got null)",
    ),
    "no trials": ({"search": "trials: 0"}, "x.yaml:5: search.trials: must be >= 1 (got 0)"),
    "infinite target": ({"search": "target: .inf"}, "x.yaml:5: search.target: must be finite (got inf)"),
    "unknown metric": (
        {"search": "metric: val_acuracy"},
        'x.yaml:5: search.metric: no such metric: "val_acuracy"; did you mean val_accuracy?',
    ),
    "test metric": (
        {"search": "metric: test_accuracy"},
        "x.yaml:5: search.metric: must be a validation metric: the test split is opened once, by the report "
        "(got test_accuracy); there is val_accuracy, val_balanced_accuracy, val_macro_f1, val_loss",
    ),
    "unknown sampler": (
        {"search": "sampler: tpee"},
        'x.yaml:5: search.sampler: no such sampler: "tpee"; did you mean tpe?',
    ),
    "another sampler's option": (
        {"search": "sampler: {name: tpe, steps: 4}"},
        "x.yaml:5: search.sampler.steps: no option of tpe; there is startup_trials",
    ),
    "misspelt option": (
        {"search": "pruner: {reduction_facter: 3}"},
        "x.yaml:5: search.pruner.reduction_facter: no option of successive_halving; did you mean reduction_factor?",
    ),
    "option where there are none": (
        {"search": "pruner: {name: none, min_epochs: 3}"},
        "x.yaml:5: search.pruner.min_epochs: no option of none; it has none",
    ),
    "option's value": (
        {"search": "pruner: {reduction_factor: 1}"},
        "x.yaml:5: search.pruner.reduction_factor: must be >= 2 (got 1)",
    ),
    "sampler is a number": (
        {"search": "sampler: 3"},
        "x.yaml:5: search.sampler: must be a sampler's name, or its name and options (got 3)",
    ),
    "duration": (
        {"search": "time_budget: 1:30"},
        "x.yaml:5: search.time_budget: must be a duration such as 90s, 10m or 1h30m, or a number of seconds (got 1:30)",
    ),
    "no time": ({"search": "time_budget: 0s"}, 'x.yaml:5: search.time_budget: must be > 0 (got "0s")'),
    "half a GPU more": (
        {"more": "resources: {gpus: 1.5}"},
        "x.yaml:6: resources.gpus: must be whole above 1: a trial has a share of one GPU, or several (got 1.5)",
    ),
    "GPUs by another word": (
        {"more": "resources: {gpus: many}"},
        'x.yaml:6: resources.gpus: must be auto or a number >= 0, the GPUs of each trial (got "many")',
    ),
    "no CPU": (
        {"more": "resources: {cpus: 0}"},
        "x.yaml:6: resources.cpus: must be auto or a number > 0, the CPUs of each trial (got 0)",
    ),
    "fixed and searched": (
        {"train": "lr: 0.1"},
        "x.yaml:4: train.lr: stands under space too; keep one of the two (--set space.lr=… fixes it)",
    ),
    "first outside": (
        {"search": "first: [{lr: 0.01}, {lr: 0.5}]"},
        "x.yaml:5: search.first[1]: lr must lie in 0.001 … 0.1, log (got 0.5)",
    ),
    "first of another type": (
        {"search": "first: [{lr: high}]"},
        'x.yaml:5: search.first[0].lr: must be a number (got "high")',
    ),
    "first not searched": (
        {"search": "first: [{gamma: 0.5}]"},
        "x.yaml:5: search.first[0]: gamma is not in the space, which has lr",
    ),
    "cmaes and choices": (
        {"search": "sampler: cmaes", "space": "lr: {low: 1, high: 2}, batch_size: {choices: [4, 8]}"},
        "x.yaml:5: search.sampler: cmaes searches only ranges, not choices (batch_size); "
        "use tpe, or write {low: …, high: …}",
    ),
    "cmaes and one range": (
        {"search": "sampler: cmaes"},
        "x.yaml:5: search.sampler: cmaes must have at least two ranges to search; use tpe",
    ),
    "grid and conditions": (
        {
            "search": "sampler: grid",
            "space": "lr: {low: 1, high: 2, when: {optimizer: sgd}}, optimizer: {choices: [sgd, adamw]}",
        },
        "x.yaml:5: search.sampler: grid cannot search lr: a condition decides whether it is searched; "
        "use tpe or random",
    ),
    "grid and backbones": (
        {"search": "sampler: grid", "space": "freeze_depth: {low: 0, high: all}, backbone: {choices: [a, b]}"},
        "x.yaml:5: search.sampler: grid cannot search freeze_depth: each backbone has depths of its own; "
        "use tpe or random",
    ),
}


@pytest.mark.parametrize("name", SECTION_MISTAKES)
def test_mistakes_in_the_sections(name: str, tmp_path: Path) -> None:
    given, text = SECTION_MISTAKES[name]
    assert mistake(tmp_path, text_of(**given)) == text


FILE_MISTAKES = {
    "": "x.yaml is empty; a configuration has at least the sections data, model and space",
    "# nothing\n": "x.yaml is empty; a configuration has at least the sections data, model and space",
    "- a\n": "x.yaml must be a mapping of sections, data: and so on (got a list)",
    "data: {source: [a\n": "x.yaml:2: not valid YAML: expected ',' or ']', but got '<stream end>'",
    "data:\n\tsource: a\n": "x.yaml:2: not valid YAML: found character '\\t' that cannot start any token",
    "a: \x00": "x.yaml: not valid YAML: special characters are not allowed",
    "a: 1\n---\nb: 2\n": "x.yaml:2: not valid YAML: but found another document",
    "a: !!python/object:os.system x": (
        "x.yaml:1: not valid YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object:os.system'"
    ),
    "data:\n  source: a\n  limit: 3\n  source: b\n": "x.yaml:4: data.source: stands twice (first on line 2); keep one",
    "data:\n  1: a\n": "x.yaml:2: a key must be text (got 1); quote it",
    "data: &loop\n  source: *loop\n": "x.yaml:2: data.source: must not contain itself; write the value out",
    "model: {backbone: a}\nspace: {lr: 1}\n": "x.yaml: data: must be given",
    "data: {source: {a: 1}}\nmodel: {backbone: [a, 1]}\nspace: {lr: 1}\nsearch: {first: 3, metric: {}}\n": (
        'x.yaml:1: data.source: must be text (got {"a": 1})\n'
        "x.yaml:2: model.backbone[1]: must be text (got 1)\n"
        "x.yaml:4: search.metric: no such metric: {}; there is " + ", ".join(METRICS) + "\n"
        "x.yaml:4: search.first: must be a section of keys and values (got 3)"
    ),
    "data: {limit: 3}\nspace: {lr: 1}\nmodel: {backbone: []}\n": (
        "x.yaml:1: data.source: must be given\n"
        "x.yaml:3: model.backbone: must be given: a torchvision or timm name such as resnet18"
    ),
}


@pytest.mark.parametrize("text", FILE_MISTAKES, ids=range(len(FILE_MISTAKES)))
def test_mistakes_in_the_file(text: str, tmp_path: Path) -> None:
    assert mistake(tmp_path, text) == FILE_MISTAKES[text]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read: Is a directory"):
        load_config(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"data: \xe9\n")
    with pytest.raises(InputError, match=r"latin\.yaml cannot be read: it is not UTF-8 text"):
        load_config(latin)


def test_all_mistakes_are_reported_at_once_by_line(tmp_path: Path) -> None:
    text = text_of("lr: {low: 0, high: 1}", "lr: 2, gamma: 3", "sampler: tpee, metric: mse", "limt: 3", "zoo: 1")
    places = [line.split(": ")[:2] for line in mistake(tmp_path, text, "data.val=7").splitlines()]
    assert places == [
        ["x.yaml:1", "data.limt"],
        ["x.yaml:3", "space.lr.low"],
        ["x.yaml:4", "train.gamma"],
        ["x.yaml:4", "train.lr"],
        ["x.yaml:5", "search.metric"],
        ["x.yaml:5", "search.sampler"],
        ["x.yaml:6", "zoo"],
        ["--set data.val", "must be < 1 (got 7)"],
    ]


OVERRIDE_MISTAKES = {
    "lr": '--set takes key.path=value, for example space.lr=0.01 (got "lr")',
    "space..lr=1": '--set takes key.path=value, for example space.lr=0.01 (got "space..lr=1")',
    "=1": '--set takes key.path=value, for example space.lr=0.01 (got "=1")',
    "space.lr=": "--set space.lr must have a value, null for none (got an empty one)",
    "space.lr={low: 1": "--set space.lr:1: not valid YAML: expected ',' or '}', but got '<stream end>'",
    "space.lr=0": "--set space.lr: must be > 0 (got 0)",
    "space.lr.low=0": "--set space.lr.low: must be > 0 (got 0)",
    "space.lr={low: 0, high: 1}": "--set space.lr.low: must be > 0 (got 0)",
    "train.lr=0.1": "--set train.lr: stands under space too; keep one of the two (--set space.lr=… fixes it)",
    "data.source.first=a": (
        "--set data.source.first: data.source is a value, not a section; "
        "give it as a whole: --set 'data.source={..., first: a}'"
    ),
    "serach.trials=3": "--set serach: unknown key; did you mean search?",
}


@pytest.mark.parametrize("override", OVERRIDE_MISTAKES)
def test_mistakes_in_overrides(override: str, tmp_path: Path) -> None:
    assert mistake(tmp_path, text_of(), override) == OVERRIDE_MISTAKES[override]


def test_overrides_win_and_say_where_they_are_from(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        text_of() + "resources:\n",
        "space.lr.high=5e-2",
        "space.gamma=0.5",
        "search.trials=7",
        "search.trials=8",
        "resources.gpus=0.25",
        "search.sampler={name: grid, steps: 3}",
    )
    assert config.parameters().parameters[0].domain == Float(0.001, 0.05, log=True)
    assert config.parameters().parameters[1].domain == Constant(0.5)
    assert (config.search.trials, config.search.sampler.steps, config.resources.gpus) == (8, 3, 0.25)
    assert config.where("space", "lr", "high") == "--set space.lr.high"
    assert config.where("space", "lr", "low") == "x.yaml:3: space.lr.low"
    assert config.where("search", "sampler", "steps") == "--set search.sampler.steps"
    assert config.where("search", "metric") == "x.yaml:5: search.metric"
    assert config.where("record", "x") == "x.yaml: record.x"
    assert config.where("search", "first", 0, "lr") == "x.yaml:5: search.first[0].lr"
    assert config.where() == "x.yaml"


def test_a_constant_replaces_a_range(tmp_path: Path) -> None:
    config = load(tmp_path, text_of(), "space.lr=0.01")
    assert config.parameters().parameters[0].domain == Constant(0.01)


READ: dict[str, tuple[str, Any]] = {
    "1e-4 is a number": ("lr: 1e-4", Constant(0.0001)),
    "so is 1E4": ("lr: {low: 1E-4, high: 1e+0}", Float(0.0001, 1.0)),
    "an int is a float where one is asked": ("lr: {low: 1, high: 2}", Float(1.0, 2.0)),
    "ints stay ints": ("batch_size: {low: 4, high: 64, log: true}", Int(4, 64, log=True)),
    "an int's step": ("step_size: {low: 1, high: 10, step: 4}", Int(1, 9, step=4)),
    "a float's step": ("momentum: {low: 0, high: 0.95, step: 0.1}", Float(0.0, 0.9, step=0.1)),
    "choices": ("optimizer: {choices: [sgd, adamw]}", Categorical(("sgd", "adamw"))),
    "choices of floats": ("weight_decay: {choices: [0, 1e-4]}", Categorical((0.0, 0.0001))),
    "depths": ("freeze_depth: {low: 0, high: all}", Depths(0, "all")),
    "named depths": ("freeze_depth: {low: layer2, high: layer4.1, step: 2}", Depths("layer2", "layer4.1", 2)),
    "depth choices": ("freeze_depth: {choices: [0, layer3, all]}", DepthChoices((0, "layer3", "all"))),
    "one depth": ("freeze_depth: all", Constant("all")),
}


@pytest.mark.parametrize("name", READ)
def test_specs_are_read(name: str, tmp_path: Path) -> None:
    spec, domain = READ[name]
    (parameter,) = load(tmp_path, text_of(spec)).parameters().parameters
    assert parameter.domain == domain
    assert type(getattr(parameter.domain, "low", None)) is type(getattr(domain, "low", None))


DURATIONS = {"90": 90, "90s": 90, "10m": 600, "1h30m": 5400, "1.5h": 5400, "1d": 86400, "null": None}


@pytest.mark.parametrize("text", DURATIONS)
def test_durations(text: str, tmp_path: Path) -> None:
    assert load(tmp_path, text_of(search=f"time_budget: {text}")).search.time_budget == DURATIONS[text]


METHODS = {
    "pruner: none": ("pruner", {"name": "none"}),
    "pruner: null": ("pruner", {"name": "none"}),
    "pruner: median": ("pruner", {"name": "median", "startup_trials": 5, "min_epochs": 1}),
    "pruner: {min_epochs: 2}": ("pruner", {"name": "successive_halving", "reduction_factor": 3, "min_epochs": 2}),
    "pruner: hyperband": ("pruner", {"name": "hyperband", "reduction_factor": 3, "min_epochs": 1}),
    "sampler: grid": ("sampler", {"name": "grid", "steps": 5}),
    "sampler: {name: gp, startup_trials: 4}": ("sampler", {"name": "gp", "startup_trials": 4}),
    "sampler: random": ("sampler", {"name": "random"}),
    "sampler: qmc": ("sampler", {"name": "qmc"}),
    "": ("sampler", {"name": "tpe", "startup_trials": 10}),
}


@pytest.mark.parametrize("text", METHODS)
def test_samplers_and_pruners(text: str, tmp_path: Path) -> None:
    key, options = METHODS[text]
    assert getattr(load(tmp_path, text_of(search=text)).search, key).model_dump() == options


class TestConditions:
    SPACE = "weight_decay: {low: 0.1, high: 0.5, when: {optimizer: adamw}}"

    def test_come_after_what_they_name(self, tmp_path: Path) -> None:
        space = load(tmp_path, text_of(f"{self.SPACE}, optimizer: {{choices: [sgd, adamw]}}")).parameters()
        assert space.keys == ("optimizer", "weight_decay")
        assert space.parameters[1].when == {"optimizer": ("adamw",)}

    @pytest.mark.parametrize("fixed", [{"train": "optimizer: adamw"}, {"space": f"{SPACE}, optimizer: adamw"}])
    def test_that_hold_for_certain_are_left_out(self, fixed: dict[str, str], tmp_path: Path) -> None:
        space = load(tmp_path, text_of(**{"space": self.SPACE, **fixed})).parameters()
        assert [parameter.when for parameter in space.sampled] == [{}]

    def test_that_never_hold_leave_the_parameter_out_and_what_depends_on_it(self, tmp_path: Path) -> None:
        chain = f"{LR}, gamma: {{choices: [0.1, 0.5], when: {{weight_decay: 0.2}}}}, {self.SPACE}"
        assert load(tmp_path, text_of(chain)).parameters().keys == ("lr",)

    def test_on_a_backbone_that_is_not_decided_wait(self, tmp_path: Path) -> None:
        spec = "crop_scale: {choices: [0.1, 0.5], when: {backbone: resnet18}}"
        config = load(tmp_path, text_of(f"{LR}, {spec}"), "model.backbone=[resnet18, vit_b_16]")
        space = config.parameters()
        assert resolve_depths(space, lambda _, depth: int(depth), ["resnet18"]).parameters[1].when == {}
        assert resolve_depths(space, lambda _, depth: int(depth), ["vit_b_16"]).keys == ("lr",)


def test_a_searched_backbone_needs_none_under_model_and_comes_before_the_depths(tmp_path: Path) -> None:
    text = "data: {source: a}\nspace: {freeze_depth: {low: 0, high: all}, backbone: {choices: [a, b]}}\n"
    config = load(tmp_path, text)
    assert config.model.backbone == ()
    assert config.parameters().keys == ("backbone", "freeze_depth")


def test_first_keeps_its_entries(tmp_path: Path) -> None:
    config = load(tmp_path, text_of("freeze_depth: {low: 0, high: all}", search="first: [{freeze_depth: layer3}]"))
    assert config.search.first == ({"freeze_depth": "layer3"},)
    assert load(tmp_path, text_of(search="first: []")).search.first == ()
    assert load(tmp_path, text_of()).search.first is None


def test_what_a_run_writes_loads_again(tmp_path: Path) -> None:
    text = text_of(
        f"{LR}, freeze_depth: all", "epochs: 3", "sampler: gp, pruner: null, first: [{lr: 0.01}]", "limit: 9"
    )
    config = load(tmp_path, text, "search.time_budget=10m", "resources.gpus=0.5")
    tree = config.resolved()
    assert tree["data"] == {
        "source": ["hymenoptera"],
        "limit": 9,
        "test": None,
        "val": 0.25,
        "folds": None,
        "skip_unreadable": False,
    }
    assert tree["search"]["sampler"] == {"name": "gp", "startup_trials": 10}
    assert "lr" not in tree["train"] and tree["train"]["epochs"] == 3
    assert load(tmp_path, yaml.safe_dump(tree)) == config
    assert load(tmp_path, yaml.safe_dump({**tree, "record": {"digest": "ab"}})).record == {"digest": "ab"}


def test_settings_are_frozen(tmp_path: Path) -> None:
    config = load(tmp_path, text_of())
    with pytest.raises(ValueError, match="frozen"):
        config.search.trials = 3


class TestFindConfig:
    def test_the_current_folder_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "default.yaml").touch()
        assert find_config("default.yaml") == Path("default.yaml")

    def test_an_installed_wheel_has_them_inside_the_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "wheel").mkdir()
        (tmp_path / "wheel" / "only.yaml").touch()
        monkeypatch.setattr("search.config.SHIPPED", (tmp_path / "wheel", *SHIPPED))
        assert find_config("only.yaml") == tmp_path / "wheel" / "only.yaml"

    def test_what_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError) as caught:
            find_config("defualt.yaml")
        assert str(caught.value) == (
            "no configuration defualt.yaml in this folder, nor shipped under that name; did you mean default.yaml? "
            "(shipped: default.yaml, elpv.yaml, feature_extractor.yaml, hymenoptera.yaml, smoke.yaml)"
        )


def test_reading_a_configuration_imports_nothing_slow() -> None:
    code = (
        "import sys, search.config, search.depths; "
        "print([name for name in ('torch', 'ray', 'optuna', 'numpy') if name in sys.modules])"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
