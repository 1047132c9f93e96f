"""Every network, cut into stages, stays the network that it was: bit for bit, in both modes."""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.maxvit import MaxVit
from torchvision.models.vision_transformer import VisionTransformer

from trainable.backbone import Backbone, _classifier_name
from trainable.stages import Stage, cut_into_stages

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH = 4
"""Neither of the two batch sizes that the dry run sees."""


def tv(name: str, **options) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, **options)


def tm(name: str, drop_path: bool = True, **options) -> Callable[[], nn.Module]:
    options |= {"drop_path_rate": 0.1} if drop_path else {}
    return lambda: timm.create_model(name, num_classes=10, drop_rate=0.2, **options)


def tiny_vit() -> nn.Module:
    return VisionTransformer(64, 16, 4, 2, 32, 64, dropout=0.1, attention_dropout=0.1, num_classes=10)


def tiny_maxvit() -> nn.Module:
    return MaxVit((64, 64), 16, 2, [16, 32], [1, 1], 16, stochastic_depth_prob=0.2, num_classes=10)


AUX = {"init_weights": False, "aux_logits": False, "transform_input": True}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    # name: (builder, height and width of its images)
    "alexnet": (tv("alexnet"), 64),
    "vgg11_bn": (tv("vgg11_bn", init_weights=False), 32),
    "resnet18": (tv("resnet18"), 64),
    "squeezenet1_1": (tv("squeezenet1_1"), 64),
    "densenet121": (tv("densenet121", drop_rate=0.2), 64),
    "inception_v3": (tv("inception_v3", **AUX), 96),
    "googlenet": (tv("googlenet", **AUX), 64),
    "shufflenet_v2_x0_5": (tv("shufflenet_v2_x0_5"), 64),
    "mobilenet_v2": (tv("mobilenet_v2"), 64),
    "mobilenet_v3_small": (tv("mobilenet_v3_small"), 64),
    "mnasnet0_5": (tv("mnasnet0_5"), 64),
    "regnet_y_400mf": (tv("regnet_y_400mf"), 64),
    "efficientnet_b0": (tv("efficientnet_b0"), 64),
    "efficientnet_v2_s": (tv("efficientnet_v2_s"), 64),
    "convnext_tiny": (tv("convnext_tiny"), 64),
    "swin_t": (tv("swin_t"), 64),
    "swin_v2_t": (tv("swin_v2_t"), 64),
    "vision_transformer": (tiny_vit, 64),
    "maxvit": (tiny_maxvit, 64),
    "timm/resnet18": (tm("resnet18"), 64),
    "timm/resnetv2_18": (tm("resnetv2_18"), 64),
    "timm/convnext_atto": (tm("convnext_atto"), 64),
    "timm/vit_tiny": (tm("vit_tiny_patch16_224", img_size=64), 64),
    "timm/deit_tiny": (tm("deit_tiny_patch16_224", img_size=64), 64),
    "timm/swin": (
        tm("swin_tiny_patch4_window7_224", img_size=64, window_size=2, depths=(1, 1, 2, 1), embed_dim=24),
        64,
    ),
    "timm/mixer_s32": (tm("mixer_s32_224", img_size=64), 64),
    "timm/mobilenetv3_small_050": (tm("mobilenetv3_small_050"), 64),
    "timm/mobilenetv4_conv_small_035": (tm("mobilenetv4_conv_small_035"), 64),
    "timm/tf_efficientnet_lite0": (tm("tf_efficientnet_lite0"), 64),
    "timm/efficientvit_b0": (tm("efficientvit_b0", drop_path=False), 64),
    "timm/regnety_002": (tm("regnety_002"), 64),
    "timm/ghostnet_050": (tm("ghostnet_050", drop_path=False), 64),
    "timm/mobilevit_xxs": (tm("mobilevit_xxs"), 64),
    "timm/edgenext_xx_small": (tm("edgenext_xx_small"), 64),
    "timm/hrnet_w18_small": (tm("hrnet_w18_small", drop_path=False), 64),
    "timm/repvgg_a0": (tm("repvgg_a0"), 64),
    "timm/dla46_c": (tm("dla46_c", drop_path=False), 64),
    "timm/coatnet_nano": (tm("coatnet_nano_rw_224", img_size=64), 64),
}
WITHOUT_DROPOUT = {"resnet18", "shufflenet_v2_x0_5", "regnet_y_400mf"}


@dataclass
class Cut:
    name: str
    model: nn.Module
    classifier: str
    stages: tuple[Stage, ...]
    images: torch.Tensor

    def train(self, training: bool) -> None:
        self.model.train(training)
        for stage in self.stages:
            stage.train(training)


@pytest.fixture(scope="module", params=NETWORKS)
def cut(request) -> Cut:
    build, size = NETWORKS[request.param]
    torch.manual_seed(0)
    model = shake(build())
    classifier = _classifier_name(model)
    return Cut(
        request.param,
        model,
        classifier,
        cut_into_stages(model, classifier, (size, size)),
        torch.randn(BATCH, 3, size, size),
    )


def shake(model: nn.Module) -> nn.Module:
    """Move all parameters a little: many a network begins with a head, or scales, of zeros, which hide its inside."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model


def run(stages, x: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """Through modules one after the other, with dropout drawn from ``seed``."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for stage in stages:
            x = stage(x)
    return x


def same_state(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_the_contract_covers_enough_networks() -> None:
    timms = [name for name in NETWORKS if name.startswith("timm/")]
    assert len(timms) >= 12
    assert len(NETWORKS) - len(timms) >= 14


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_stages_in_a_row_are_the_network(cut: Cut, training: bool) -> None:
    cut.train(training)
    before = copy.deepcopy(cut.model.state_dict())
    whole, after = run([cut.model], cut.images), copy.deepcopy(cut.model.state_dict())
    cut.model.load_state_dict(before)
    composed = run(cut.stages, cut.images)
    assert whole.std() > 0
    assert torch.equal(composed, whole)
    assert same_state(cut.model.state_dict(), after)
    moving = [key for key in after if key.endswith("running_mean")]
    assert all(torch.equal(after[key], before[key]) != training for key in moving)


def test_dropout_follows_the_mode(cut: Cut) -> None:
    cut.train(False)
    assert torch.equal(run(cut.stages, cut.images, seed=1), run(cut.stages, cut.images, seed=2))
    cut.train(True)
    differs = not torch.equal(run(cut.stages, cut.images, seed=1), run(cut.stages, cut.images, seed=2))
    assert differs == (cut.name not in WITHOUT_DROPOUT)


def test_a_stage_leaves_its_input_as_it_is(cut: Cut) -> None:
    for training in (False, True):
        cut.train(training)
        x = cut.images
        for stage in cut.stages:
            before, y = x.clone(), run([stage], x)
            assert torch.equal(x, before), f"{stage.name} changes its input"
            x = y


def test_frozen_stages_are_the_network_with_their_modules_in_eval_mode(cut: Cut) -> None:
    set_modes(cut.model, cut.stages, len(cut.stages) // 2)
    before = copy.deepcopy(cut.model.state_dict())
    whole, after = run([cut.model], cut.images), copy.deepcopy(cut.model.state_dict())
    cut.model.load_state_dict(before)
    assert torch.equal(run(cut.stages, cut.images), whole)
    assert same_state(cut.model.state_dict(), after)


def set_modes(model: nn.Module, stages: Sequence[Stage], depth: int) -> None:
    """The first stages in eval mode and the rest in training mode; and so the modules that lie wholly in them."""
    frozen, still_open = stages[:depth], stages[depth:]
    model.train()
    for stage in stages:
        stage.train(stage in still_open)
    for name, module in model.named_modules():
        if any(stage.contains(name) for stage in frozen) and not any(stage.contains(name) for stage in still_open):
            module.eval()


@pytest.mark.parametrize(
    "cut",
    ["resnet18", "densenet121", "efficientnet_b0", "swin_t", "timm/vit_tiny", "timm/mobilevit_xxs"],
    indirect=True,
)
def test_the_gradients_are_the_networks(cut: Cut) -> None:
    cut.train(True)
    gradients = []
    for modules in ([cut.model], cut.stages):
        cut.model.zero_grad()
        x = cut.images
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            for module in modules:
                x = module(x)
        functional.cross_entropy(x, torch.arange(BATCH)).backward()
        gradients.append({name: p.grad.clone() for name, p in cut.model.named_parameters() if p.grad is not None})
    assert gradients[0]
    assert same_state(*gradients)


def test_the_stages_have_exactly_the_networks_parameters(cut: Cut) -> None:
    whole = {id(p) for p in cut.model.parameters()}
    each = [{id(p) for p in stage.parameters()} for stage in cut.stages]
    assert set().union(*each) == whole
    assert all(not a & b for a, b in itertools.combinations(each, 2))


def test_the_head_is_the_classifier_and_nothing_else_with_parameters(cut: Cut) -> None:
    head = cut.model.get_submodule(cut.classifier)
    assert cut.stages[-1].name == cut.classifier
    assert {id(p) for p in cut.stages[-1].parameters()} == {id(p) for p in head.parameters()}


def test_names_are_unique_and_there_are_enough_of_them(cut: Cut) -> None:
    names = [stage.name for stage in cut.stages]
    assert len(set(names)) == len(names) >= 6
    assert all(stage.contains(stage.name) for stage in cut.stages)


class Small(nn.Module):
    """A network to be varied: three blocks of a convolution, then ``fc``."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(self.block() for _ in range(3))
        self.fc = nn.Linear(3, 2)

    def block(self) -> nn.Module:
        return nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.classify(x)

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.mean((2, 3)))


class Block(nn.Module):
    """What happens behind a block's convolution is the test's."""

    def __init__(self, then: Callable[[torch.Tensor, bool], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.then = nn.Conv2d(3, 3, 3, padding=1), then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.then(self.conv(x), self.training)


def small(then: Callable[[torch.Tensor, bool], torch.Tensor]) -> tuple[Small, tuple[Stage, ...], torch.Tensor]:
    class Varied(Small):
        def block(self) -> nn.Module:
            return Block(then)

    return prepared(Varied())


def prepared(model: nn.Module) -> tuple[nn.Module, tuple[Stage, ...], torch.Tensor]:
    return model, cut_into_stages(model, "fc", (16, 16)), torch.randn(BATCH, 3, 16, 16)


def test_constants_and_buffers_that_stages_use_by_name_move_with_them() -> None:
    class Shifted(Small):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + self.shift * torch.tensor([2.0]))

    model, stages, x = prepared(Shifted())
    backbone = Backbone("shifted", model, stages, None, model.state_dict(), "")
    backbone.to(torch.device("meta"))
    tensors = [tensor for stage in stages for tensor in (*stage.parameters(), *stage.buffers())]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert run(stages, x.to("meta")).device.type == "meta"


def names(stages: tuple[Stage, ...]) -> list[str]:
    return [stage.name for stage in stages]


def test_functional_dropout_follows_the_mode() -> None:
    model, stages, x = small(lambda x, training: functional.dropout(x, 0.5, training=training))
    assert names(stages) == ["blocks.0", "blocks.1", "blocks.2", "fc"]
    for training in (True, False):
        model.train(training)
        for stage in stages:
            stage.train(training)
        assert torch.equal(run(stages, x), run([model], x))
        assert torch.equal(run(stages, x), run(stages, x, seed=2)) != training
    model.blocks[1].train()
    stages[1].train()
    assert torch.equal(run(stages, x), run([model], x))
    assert not torch.equal(run(stages, x), run(stages, x, seed=2))


def test_what_is_computed_in_one_mode_only_is_never_done_twice_or_left_out() -> None:
    """fx numbers operations of one kind, so one mode's first product has the name of the other mode's second."""
    model, stages, x = small(lambda x, training: (x * 3 if training else x) * 2)
    assert len(stages) == 4
    for depth in range(len(stages) + 1):
        set_modes(model, stages, depth)
        assert torch.equal(run(stages, x), run([model], x))


class Writer(Small):
    def __init__(self, write: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.write(x))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.mul_(2),
        torch.relu_,
        nn.ReLU(inplace=True),
        lambda x: functional.relu(x, inplace=True),
        lambda x: x.view(-1).mul_(2).view(x.shape),
        nn.Dropout(0.5, inplace=True),
    ],
    ids=["method", "function", "module", "functional", "through a view", "dropout"],
)
def test_a_network_that_changes_its_input_does_not_change_the_callers(write, training: bool) -> None:
    model, stages, x = prepared(Writer(write))
    set_modes(model, stages, 0 if training else len(stages))
    before = x.clone()
    composed = run(stages, x)
    assert torch.equal(x, before)
    assert torch.equal(composed, run([model], x.clone()))


def test_there_is_no_cut_inside_a_long_skip_connection() -> None:
    class Skipping(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self.blocks[0](x)
            return self.classify(self.blocks[2](self.blocks[1](first)) + first)

    model, stages, x = prepared(Skipping())
    assert names(stages) == ["blocks.0", "blocks.1", "fc"]
    assert stages[1].contains("blocks.1")
    assert stages[1].contains("blocks.2")
    assert torch.equal(run(stages, x), run([model], x))


def test_a_network_that_is_one_long_skip_has_one_stage_before_its_head() -> None:
    class Skipping(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            shortcut = x
            for block in self.blocks:
                x = block(x)
            return self.classify(x + shortcut)

    _, stages, _ = prepared(Skipping())
    assert names(stages) == ["blocks.0", "fc"]


def test_a_size_that_crosses_a_cut_is_that_of_the_batch_at_hand() -> None:
    class Sizing(Small):
        def classify(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.mean((2, 3)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, channels, height, width = x.shape
            for block in self.blocks:
                x = block(x).reshape(batch, channels, height * width)
                x = x.view(x.shape[0], -1, height, width)
            return self.classify(x)

    model, stages, _ = prepared(Sizing())
    assert len(stages) == 4
    for batch in (1, 2, 3, 7):
        x = torch.randn(batch, 3, 16, 16)
        assert torch.equal(run(stages, x), run([model], x))


@pytest.mark.parametrize("how", ["module", "functional"])
def test_the_dropout_before_the_classifier_belongs_to_the_head(how: str) -> None:
    class Dropping(Small):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def classify(self, x: torch.Tensor) -> torch.Tensor:
            x = x.mean((2, 3))
            return self.fc(self.drop(x) if how == "module" else functional.dropout(x, 0.5, self.training))

    _, stages, x = prepared(Dropping())
    for stage in stages[:-1]:
        stage.train()
    assert torch.equal(run(stages[:-1], x, seed=1), run(stages[:-1], x, seed=2))
    features = run(stages[:-1], x)
    assert features.shape == (BATCH, 3)
    stages[-1].train()
    assert not torch.equal(run(stages[-1:], features, seed=1), run(stages[-1:], features, seed=2))


def test_the_stages_of_resnet18() -> None:
    stages = cut_into_stages(torchvision.models.resnet18(), "fc", (224, 224))
    blocks = [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert names(stages) == ["conv1", *blocks, "fc"]
    assert stages[0].paths == ("conv1", "bn1", "relu", "maxpool")
    assert stages[-2].paths[-2:] == ("avgpool", "flatten")
    assert repr(stages[-1]) == "Stage(fc, 513,000 parameters, 1.0 MFLOP)"
    assert repr(stages[1]) == "Stage(layer1.0, 73,984 parameters, 462.4 MFLOP)"


def test_the_stages_of_efficientnet_lite0() -> None:
    stages = cut_into_stages(timm.create_model("tf_efficientnet_lite0"), "classifier", (224, 224))
    blocks = [f"blocks.{i}.{j}" for i, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for j in range(count)]
    assert names(stages) == ["conv_stem", *blocks, "conv_head", "classifier"]


def test_contains_knows_modules_and_blocks_but_not_beginnings_of_names() -> None:
    stages = cut_into_stages(torchvision.models.resnet18(), "fc", (64, 64))
    assert [stage.name for stage in stages if stage.contains("layer3")] == ["layer3.0", "layer3.1"]
    assert [stage.name for stage in stages if stage.contains("layer3.1.conv2")] == ["layer3.1"]
    assert [stage.name for stage in stages if stage.contains("bn1")] == ["conv1"]
    assert not any(stage.contains("layer") for stage in stages)


@pytest.mark.parametrize(
    "build", [tv("resnet18"), tv("efficientnet_b0"), tiny_vit, tm("vit_tiny_patch16_224", img_size=64)]
)
def test_the_flops_are_those_of_the_whole_network(build: Callable[[], nn.Module]) -> None:
    model = build().eval()
    stages = cut_into_stages(model, _classifier_name(model), (64, 64))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert sum(stage.flops for stage in stages) == counter.get_total_flops() > 0


@pytest.mark.parametrize("training", [False, True])
def test_cutting_leaves_the_network_as_it_was(training: bool) -> None:
    model = torchvision.models.mobilenet_v3_small().train(training)
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    cut_into_stages(model, "classifier.3", (64, 64))
    assert same_state(model.state_dict(), before)
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)


def test_stages_hold_the_networks_own_parameters_and_survive_a_restored_state() -> None:
    model, stages, x = prepared(Small())
    model.load_state_dict({key: torch.zeros_like(value) for key, value in model.state_dict().items()})
    assert not run(stages, x).any()
