"""Where the network looked."""

from dataclasses import replace

import pytest
import torch

from trainable.backbone import load_backbone
from trainable.errors import InputError
from trainable.explain import draw_overlay, explain
from trainable.images import ImageSet, read_image
from trainable.views import plain_view


@pytest.fixture(scope="module")
def views(lite0, cells) -> list[torch.Tensor]:
    records = ImageSet.load(cells).records[:3]
    return [plain_view(read_image(record.path), lite0.preprocessing) for record in records]


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "timm/resnet18", "timm/swin_tiny_patch4_window7_224"])
def test_before_a_plain_average_over_places_it_is_the_class_activation_map(name, views):
    """There the gradient is the head's weights over the number of places: the map of Zhou et al., *CVPR* 2016."""
    backbone = load_backbone(name, "random", 8)
    with torch.no_grad():
        features = backbone.model.eval().forward_features(backbone.preprocessing.normalise(views[0][None]))
        if features.shape[1] == features.shape[2]:  # Swin has the channels last
            features = features.permute(0, 3, 1, 2)
        weights = backbone.model.get_classifier().weight
    seen = 0
    for label in range(8):
        evidence = (features[0] * weights[label].detach()[:, None, None]).sum(0).relu()
        expected = enlarge(evidence)
        given = explain(backbone, views[0], label)
        assert (given.shape, given.dtype) == ((224, 224), torch.float32)
        assert torch.allclose(given, expected, atol=1e-3)
        seen += bool(given.max() == 1)
    assert seen > 1  # else nothing was compared but nothing


def test_of_a_transformer_it_is_that_of_the_tokens_before_its_last_block(views):
    backbone = load_backbone("timm/vit_tiny_patch16_224", "random", 3)
    kept = []
    hook = backbone.model.blocks[-2].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    logits = backbone.model.eval()(backbone.preprocessing.normalise(views[0][None]))
    hook.remove()
    for label in range(3):
        (slope,) = torch.autograd.grad(logits[0, label], kept[0], retain_graph=True)
        places, slopes = kept[0][0, 1:].detach(), slope[0, 1:]
        evidence = (places * slopes.mean(0)).sum(1).relu().view(14, 14)
        assert evidence.max() > 0
        assert torch.allclose(explain(backbone, views[0], label), enlarge(evidence), atol=1e-3)


def enlarge(evidence: torch.Tensor) -> torch.Tensor:
    large = torch.nn.functional.interpolate(evidence[None, None], (224, 224), mode="bilinear")[0, 0]
    return large / large.max().clamp(min=1e-30)


def test_explaining_leaves_the_model_as_it_was(lite0, views):
    lite0.reset(len(lite0.stages) - 1, seed=1)
    before = {name: tensor.clone() for name, tensor in lite0.model.state_dict().items()}
    wanted = [p.requires_grad for p in lite0.model.parameters()]
    again = [explain(lite0, views[0], 1) for _ in range(2)]
    assert torch.equal(*again)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lite0.model.state_dict().items())
    assert [p.requires_grad for p in lite0.model.parameters()] == wanted
    assert all(p.grad is None for p in lite0.model.parameters())


def test_a_network_without_a_map_is_refused(lite0, views):
    blind = replace(lite0, stages=lite0.stages[-1:])
    with pytest.raises(InputError, match="needs a network with a stage that gives a map of the image, .* has none"):
        explain(blind, views[0], 0)


def test_the_overlay_is_the_image_where_nothing_matters(views):
    assert torch.equal(torch.from_numpy(draw_overlay(views[0], torch.zeros(224, 224))), views[0].permute(1, 2, 0))
    half = torch.zeros(224, 224)
    half[:, :112] = 1
    drawn = torch.from_numpy(draw_overlay(views[0], half)).permute(2, 0, 1)
    assert torch.equal(drawn[:, :, 112:], views[0][:, :, 112:])
    red, green, blue = drawn[:, :, :112].float().mean((1, 2))
    assert red > green + 30
    assert red > blue + 30
