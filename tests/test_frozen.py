"""The frozen pass: exact wherever an image stands, near to the network that it was made from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import trainable.frozen
from trainable.backbone import load_backbone
from trainable.errors import InputError
from trainable.frozen import FrozenPass, _cpu, resolve_precision
from trainable.images import ImageSet, Record
from trainable.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def records(cells) -> tuple[Record, ...]:
    return ImageSet.load(cells).records


@pytest.fixture
def frozen(lite0) -> FrozenPass:
    return frozen_pass(lite0)


def frozen_pass(backbone, precision="fp32") -> FrozenPass:
    backbone.reset(len(backbone.stages) - 1, seed=0)
    return FrozenPass(backbone, TrainSettings(precision=precision), 0, CPU)


def images_for(backbone, count: int) -> torch.Tensor:
    size = backbone.preprocessing.image_size
    return torch.randint(256, (count, 3, *size), generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "tf_efficientnet_b0"]
)
def test_folding_the_norms_moves_activations_by_rounding_alone(name) -> None:
    backbone = load_backbone(name, "random", 2)
    torch.manual_seed(0)
    with torch.no_grad():
        for module in backbone.model.modules():  # as after training: random statistics, not zeros and ones
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    for stage in backbone.stages:
        stage.eval()
    frozen, depth = FrozenPass(backbone, TrainSettings(precision="fp32"), 0, CPU), len(backbone.stages) - 1
    views = images_for(backbone, 2)
    plain = backbone.preprocessing.normalise(views)
    with torch.no_grad():
        for stage in backbone.stages[:depth]:
            plain = stage(plain)
    x = frozen.run(views, 0, depth)
    assert not torch.equal(x, plain)  # something was folded
    torch.testing.assert_close(x, plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item())


def test_a_half_frozen_pass_is_near_to_the_full_one(lite0, emulates_bf16) -> None:
    views = images_for(lite0, 4)
    if emulates_bf16:  # for which a CPU takes long
        views = views[..., :128, :128]
    full, half = (frozen_pass(lite0, precision).run(views, 0, 18) for precision in ("fp32", "bf16"))
    assert half.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(full, half.float()).min() > 0.99


def test_the_networks_input_is_in_full_precision(lite0) -> None:
    views = images_for(lite0, 4)
    assert torch.equal(frozen_pass(lite0, "bf16").run(views, 0, 0), lite0.preprocessing.normalise(views))


def test_the_frozen_pass_is_not_moved_by_training(lite0) -> None:
    frozen, views = frozen_pass(lite0), images_for(lite0, 4)
    before = frozen.run(views, 0, 5)
    with torch.no_grad():
        for parameter in lite0.stages[2].parameters():
            parameter += 1
    assert torch.equal(frozen.run(views, 0, 5), before)
    lite0.reset(18, seed=0)
    assert torch.equal(frozen_pass(replace(lite0)).run(views, 0, 5), before)


def test_auto_is_decided_by_the_device() -> None:
    here = "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    assert resolve_precision("auto", CPU) == here
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_an_image_that_changed_since_is_refused(frozen, records) -> None:
    other = Record(records[0].path, records[0].label, records[0].split, "0" * 64)
    with pytest.raises(InputError, match="must be the image that it was when the search began"):
        frozen.view(other, 0)


def test_whatever_decides_the_bits_has_a_key_of_its_own(frozen, records) -> None:
    other = records[0].__class__(records[0].path, records[0].label, records[0].split, "0" * 64)
    keys = [frozen.key(records, view) for view in (None, 0, 1)]
    keys += [replace(frozen, seed=1).key(records, 0)]
    keys += [
        replace(frozen, train=TrainSettings(**{"precision": "fp32"} | change)).key(records, 0)
        for change in ({"augmentation": "flip"}, {"crop_scale": 0.5}, {"precision": "bf16"})
    ]
    keys += [frozen.key(records[:-1], 0), frozen.key((*records[1:], records[0]), 0), frozen.key((other,), 0)]
    torch.set_num_threads(2)
    keys += [frozen.key(records, 0)]
    assert len(set(keys)) == len(keys)


def test_what_does_not_decide_the_bits_shares_a_key(frozen, records) -> None:
    alike = TrainSettings(lr=1.0, batch_size=64, freeze_depth=3, epochs=2, views=1, precision="fp32")
    assert replace(frozen, train=alike).key(records, 0) == frozen.key(records, 0)
    # Validation does not depend on the seed or on the augmentation.
    unaugmented = TrainSettings(augmentation="none", precision="fp32")
    assert replace(frozen, seed=1, train=unaugmented).key(records, None) == frozen.key(records, None)
    # Nor does training without augmentation: all its views are the plain one.
    assert replace(frozen, seed=1, train=unaugmented).key(records, 5) == frozen.key(records, None)
    assert torch.equal(replace(frozen, train=unaugmented).view(records[0], 5), frozen.view(records[0], None))
    flips = [TrainSettings(augmentation="flip", precision="fp32", crop_scale=scale) for scale in (0.1, 0.5)]
    assert len({replace(frozen, train=flip).key(records, 0) for flip in flips}) == 1


def test_our_own_code_decides_the_key(frozen, records, monkeypatch) -> None:
    before = frozen.key(records, 0)
    monkeypatch.setattr(trainable.frozen, "_code", lambda: "of another version")
    assert frozen.key(records, 0) != before


def test_frozen_stages_are_prepared_once_for_all_trials(lite0) -> None:
    lite0.reset(18, 0)
    first, second = frozen_pass(lite0), frozen_pass(lite0)
    views = images_for(lite0, 2)
    first.run(views, 0, 18)
    prepared = dict(lite0.frozen)
    second.run(views, 0, 18)
    assert lite0.frozen == prepared
    assert {number for number, _, _ in prepared} == set(range(18))


def test_other_weights_have_a_key_of_their_own_and_another_head_has_not(frozen, records) -> None:
    random = load_backbone("tf_efficientnet_lite0", "random", 2)
    assert replace(frozen, backbone=random).key(records, 0) != frozen.key(records, 0)
    assert load_backbone("tf_efficientnet_lite0", "pretrained", 5).digest == frozen.backbone.digest


def test_what_tells_a_library_to_compute_otherwise_has_a_key_of_its_own(frozen, records, monkeypatch) -> None:
    before = frozen.key(records, None)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert frozen.key(records, None) != before
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert frozen.key(records, None) == before


@pytest.mark.parametrize(
    ("text", "told_apart"),
    [
        ("processor: 0\nmodel name: EPYC\nflags: sse avx512_bf16\ncpu MHz: {}\n\nprocessor: 1\n", False),
        ("processor: 0\nmodel name: EPYC\nflags: sse {}\n\nprocessor: 1\n", True),
        ("processor: 0\nBogoMIPS: {}\nFeatures: fp bf16\nCPU part: 0xd0c\n\n", False),
        ("processor: 0\nFeatures: fp bf16\nCPU part: {}\n\n", True),
    ],
)
def test_cpus_of_other_kinds_are_told_apart(monkeypatch, text, told_apart) -> None:
    facts = []
    for value in ("0xd0c", "0xd40"):
        monkeypatch.setattr(Path, "read_text", lambda self, value=value: text.format(value))
        facts.append(_cpu())
    assert (facts[0] != facts[1]) is told_apart
