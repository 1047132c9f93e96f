"""One configuration being trained, epoch by epoch."""

import hashlib
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainable.allocator import keep_freed_memory
from trainable.backbone import Backbone
from trainable.checkpoint import load_checkpoint, save_checkpoint
from trainable.epoch import SCORES, NonFiniteLossError, predict, rebatch, score, train_epoch
from trainable.folds import OutOfFold
from trainable.frozen import FrozenPass
from trainable.images import ImageSet, Record
from trainable.memo import Memo
from trainable.settings import TrialSettings, best_epoch
from trainable.whole import written_whole

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
_LOGITS = "val_logits_{}.npy"


def logits_file(folder: Path, epoch: int) -> Path:
    """Where a trial keeps its logits of the validation images, ``[N, C]``, if ``epoch`` was its best one so far."""
    return folder / _LOGITS.format(epoch)


class Training:
    """Trains one configuration. Every epoch's result depends on the settings and the images alone: a training that
    goes on from a checkpoint gives the same numbers, bit for bit, as one that was never interrupted.

    With folds, a model is trained for each of them in turn, all from the same head, learning rates and views: what
    differs is which images it sees. The images of all folds have their activations in the memo together.

    The backbone is reset and used by this training until the next one takes it.
    """

    def __init__(self, settings: TrialSettings, images: ImageSet, backbone: Backbone) -> None:
        torch.set_num_threads(settings.threads)
        keep_freed_memory()
        train = settings.train
        self.settings, self.images, self.backbone = settings, images, backbone
        self.history: list[dict[str, float]] = []
        """The metrics of each epoch so far; with folds, those of each fold after those of the one before."""
        self.device = torch.device("cuda" if settings.gpu and torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            _make_deterministic()
        self.depth = backbone.depth(train.freeze_depth)
        self._open = backbone.stages[self.depth :]
        self._folds = images.folds(settings.folds, settings.seed) if settings.folds else ()
        self._out_of_fold = OutOfFold(self._folds, _labels(images.split("train")), train.epochs)
        self._begin(0)
        frozen = FrozenPass(backbone, train, settings.seed, self.device)
        self._memo = Memo(frozen, self.depth, settings.memo)

    def _begin(self, fold: int) -> None:
        """A new model, with nothing learnt yet."""
        self._fold = fold
        train = self.settings.train
        self.backbone.reset(self.depth, _derive_seed(self.settings.seed, train.seed, "head"))
        self.backbone.to(self.device)
        self._optimizer = _make_optimizer(self.settings, [p for stage in self._open for p in stage.parameters()])
        self._schedule = torch.optim.lr_scheduler.StepLR(self._optimizer, train.step_size, train.gamma)

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 1, with the best metric; of equals the one with the lower loss. With folds, see
        `trainable.settings.across_folds`."""
        return best_epoch(self.history, self.settings.metric)

    @property
    def fold_ended(self) -> bool:
        """Whether the last epoch was the last of a fold."""
        return bool(self._folds) and len(self.history) % self.settings.train.epochs == 0 and bool(self.history)

    def image_scores(self) -> list[float]:
        """How the images of the folds so far fared at the best epoch: see `trainable.folds.OutOfFold.scores`."""
        return self._out_of_fold.scores(self.best_epoch, self.settings.metric)

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch, validate, and return the metrics; NaN of what no image validates.

        Raises:
            NonFiniteLossError: training diverged.
        """
        began = time.perf_counter()
        fold, number = divmod(len(self.history), self.settings.train.epochs) if self._folds else (0, len(self.history))
        if fold != self._fold:
            self._begin(fold)
        rate = self._optimizer.param_groups[0]["lr"]
        train_loss, train_accuracy = self._train(number)
        logits, scores = self._validate()
        seen = len(self._part("train")[1]) + len(self._part("val")[1])
        seconds = time.perf_counter() - began
        metrics = {
            **({"fold": fold + 1} if self._folds else {}),
            "epoch": number + 1,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            **{f"val_{name}": value for name, value in scores.items()},
            "lr": rate,
            "epoch_time_s": seconds,
            "images_per_s": seen / seconds,
        }
        self.history.append(metrics)
        if logits is not None:
            self._keep(logits, number + 1)
        return metrics

    def _validate(self) -> tuple[torch.Tensor | None, dict[str, float]]:
        if not self._part("val")[1]:
            return None, dict.fromkeys(SCORES, math.nan)
        logits, labels = self.predict("val")
        scores = score(logits, labels)
        if not math.isfinite(scores["loss"]):
            raise NonFiniteLossError(f"the validation loss became {scores['loss']}: the learning rate is too high")
        return logits, scores

    def _keep(self, logits: torch.Tensor, epoch: int) -> None:
        """Save the logits of the best epoch so far; with folds, of all images in folds that are whole."""
        if self._folds:
            self._out_of_fold.logits.append(logits)
            logits = self._out_of_fold.at(self.best_epoch)
        best_of_one = self._fold == 0 and self.best_epoch == epoch
        if (best_of_one or self.fold_ended) and self.settings.folder is not None:
            save_array(logits.numpy(), logits_file(self.settings.folder, self.best_epoch))
            if self.settings.keep_best and not self._folds:
                save_checkpoint({"model": self._open_state()}, self.settings.folder / BEST)

    def forget_other_logits(self) -> None:
        """Remove those of all epochs but the best. To be called when the trial is known to go on behind the last epoch:
        it could be stopped at an earlier one, which may have another best."""
        if self.settings.folder is not None and self.history:
            for file in self.settings.folder.glob(_LOGITS.format("*")):
                if file != logits_file(self.settings.folder, self.best_epoch):
                    file.unlink(missing_ok=True)

    def _part(self, split: str) -> tuple[Sequence[Record], Sequence[int]]:
        """The records whose activations are kept together, and the places of the split's images among them; with folds,
        this fold's images are val."""
        if not self._folds or split == "test":
            records = self.images.split(split)
            return records, range(len(records))
        held = self._folds[self._fold]
        records = self.images.split("train")
        return records, held if split == "val" else sorted({*range(len(records))} - {*held})

    def predict(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``[N, C]`` and labels ``[N]`` of a split, in its records' order."""
        for stage in self._open:
            stage.eval()
        records, places = self._part(split)
        blocks = self._memo.activations(records, None, places)
        return predict(self._open, blocks), _labels([records[i] for i in places])

    def _train(self, epoch: int) -> tuple[float, float]:
        train = self.settings.train
        seeds = self.settings.seed, train.seed
        records, places = self._part("train")
        shuffle = torch.Generator().manual_seed(_derive_seed(*seeds, "order", epoch))
        order = [places[i] for i in torch.randperm(len(places), generator=shuffle).tolist()]
        labels = _labels([records[i] for i in order]).to(self.device)
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
        save_checkpoint(
            {
                "history": self.history,
                "model": self._open_state(),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
                **({"logits": self._out_of_fold.logits} if self._folds else {}),
            },
            self.settings.folder / CHECKPOINT,
        )

    def _open_state(self) -> dict[str, torch.Tensor]:
        state = self.backbone.model.state_dict()
        return {name: state[name] for name in self.backbone.state_names(self.depth)}

    def load_best(self) -> bool:
        """Take the weights of the best epoch, where they were kept (`TrialSettings.keep_best`)."""
        state = load_checkpoint(self.settings.folder / BEST) if self.settings.folder is not None else None
        if state is not None:
            self.backbone.model.load_state_dict(state["model"], strict=False)
        return state is not None

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
            self._fold = max(len(self.history) - 1, 0) // self.settings.train.epochs if self._folds else 0
            self._out_of_fold.logits = state.get("logits", [])


def _labels(records: Sequence[Record]) -> torch.Tensor:
    return torch.tensor([record.label for record in records], dtype=torch.int64)


def _make_deterministic() -> None:
    """On a GPU some operations have faster variants whose last bits differ from run to run."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill every new tensor, in case somebody reads what was not written: a third of the time of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def _make_optimizer(settings: TrialSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    train = settings.train
    if train.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=train.lr, weight_decay=train.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters, lr=train.lr, momentum=train.momentum, weight_decay=train.weight_decay, fused=True
    )


def _derive_seed(search: int, trial: int, *purpose: str | int) -> int:
    """A seed for one purpose, independent of those for others."""
    return int.from_bytes(hashlib.blake2b(repr((search, trial, *purpose)).encode(), digest_size=7).digest(), "big")


def save_array(array: np.ndarray, file: Path) -> None:
    """Write ``.npy``; the file is whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as draft:
        np.save(draft, array)
