"""One configuration being trained, epoch by epoch."""

import hashlib
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainable.allocator import keep_freed_memory
from trainable.backbone import Backbone
from trainable.checkpoint import load_checkpoint, save_checkpoint
from trainable.epoch import NonFiniteLossError, predict, rebatch, score, train_epoch
from trainable.frozen import FrozenPass
from trainable.images import ImageSet
from trainable.memo import Memo
from trainable.settings import TrialSettings, best_epoch

CHECKPOINT = "checkpoint.pt"
LOGITS = "val_logits.npy"


class Training:
    """Trains one configuration. Every epoch's result depends on the settings and the images alone: a training that
    goes on from a checkpoint gives the same numbers, bit for bit, as one that was never interrupted.

    The backbone is reset and used by this training until the next one takes it.
    """

    def __init__(self, settings: TrialSettings, images: ImageSet, backbone: Backbone) -> None:
        torch.set_num_threads(settings.threads)
        keep_freed_memory()
        train = settings.train
        self.settings, self.images, self.backbone = settings, images, backbone
        self.history: list[dict[str, float]] = []
        """The metrics of each epoch so far."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            _make_deterministic()
        self.depth = backbone.depth(train.freeze_depth)
        backbone.reset(self.depth, _derive_seed(settings.seed, train.seed, "head"))
        backbone.model.to(self.device)
        self._open = backbone.stages[self.depth :]
        frozen = FrozenPass(backbone, train, settings.seed, self.device)
        self._memo = Memo(frozen, self.depth, settings.memo)
        self._optimizer = _make_optimizer(settings, [p for stage in self._open for p in stage.parameters()])
        self._schedule = torch.optim.lr_scheduler.StepLR(self._optimizer, train.step_size, train.gamma)

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 1, with the best metric; of equals the one with the lower loss."""
        return best_epoch(self.history, self.settings.metric)

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch, validate, and return the metrics.

        Raises:
            NonFiniteLossError: training diverged.
        """
        began = time.perf_counter()
        number, rate = len(self.history), self._optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy = self._train(number)
        logits, labels = self.predict("val")
        scores = score(logits, labels)
        if not math.isfinite(scores["loss"]):
            raise NonFiniteLossError(f"the validation loss became {scores['loss']}: the learning rate is too high")
        seen = len(self.images.split("train")) + len(labels)
        seconds = time.perf_counter() - began
        metrics = {
            "epoch": number + 1,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            **{f"val_{name}": value for name, value in scores.items()},
            "lr": rate,
            "epoch_time_s": seconds,
            "images_per_s": seen / seconds,
        }
        self.history.append(metrics)
        if self.best_epoch == number + 1 and self.settings.folder is not None:
            save_array(logits.numpy(), self.settings.folder / LOGITS)
        return metrics

    def predict(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``[N, C]`` and labels ``[N]`` of a split, in its records' order."""
        for stage in self._open:
            stage.eval()
        records = self.images.split(split)
        blocks = self._memo.activations(records, None)
        return predict(self._open, blocks), torch.tensor([record.label for record in records])

    def _train(self, epoch: int) -> tuple[float, float]:
        train = self.settings.train
        seeds = self.settings.seed, train.seed
        records = self.images.split("train")
        shuffle = torch.Generator().manual_seed(_derive_seed(*seeds, "order", epoch))
        order = torch.randperm(len(records), generator=shuffle).tolist()
        labels = torch.tensor([records[i].label for i in order]).to(self.device)
        blocks = self._memo.activations(records, epoch % (train.views or train.epochs), order)
        for stage in self._open:
            stage.train()
        with torch.random.fork_rng():
            torch.manual_seed(_derive_seed(*seeds, "dropout", epoch))
            result = train_epoch(
                self._open, rebatch(blocks, train.batch_size), labels, self._optimizer, train.label_smoothing
            )
        self._schedule.step()
        return result

    def save(self) -> None:
        """Write everything that a bit-identical continuation needs into the trial's folder."""
        assert self.settings.folder is not None
        names = self.backbone.state_names(self.depth)
        state = self.backbone.model.state_dict()
        save_checkpoint(
            {
                "history": self.history,
                "model": {name: state[name] for name in names},
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
            },
            self.settings.folder / CHECKPOINT,
        )

    def resume(self) -> None:
        """Go on from the checkpoint in the trial's folder, where there is one."""
        state: dict[str, Any] | None = None
        if self.settings.folder is not None:
            state = load_checkpoint(self.settings.folder / CHECKPOINT)
        if state is not None:
            self.history = state["history"]
            self.backbone.model.load_state_dict(state["model"], strict=False)
            self._optimizer.load_state_dict(state["optimizer"])
            self._schedule.load_state_dict(state["schedule"])


def _make_deterministic() -> None:
    """On a GPU some operations have faster variants whose last bits differ from run to run."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def _make_optimizer(settings: TrialSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    train = settings.train
    if train.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay)
    return torch.optim.SGD(parameters, lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay)


def _derive_seed(search: int, trial: int, *purpose: str | int) -> int:
    """A seed for one purpose, independent of those for others."""
    return int.from_bytes(hashlib.blake2b(repr((search, trial, *purpose)).encode(), digest_size=7).digest(), "big")


def save_array(array: np.ndarray, file: Path) -> None:
    """Write ``.npy``; the file is whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name("." + file.name)
    np.save(partial, array)
    partial.replace(file)
