"""The training loop: one function, resumable at every checkpoint with the result of an unbroken run."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from mupvss.config.schema import LossConfig, ModelConfig, TrainConfig
from mupvss.data.sample import Dataset
from mupvss.engine.batches import Batch, batches
from mupvss.engine.checkpoint import load_state, save_model, save_state
from mupvss.engine.device import autocast
from mupvss.engine.log import Journal, console, progress_bar
from mupvss.engine.objective import loss_terms, total_loss
from mupvss.engine.optimizer import build_optimizer, learning_rate_factor, set_learning_rate
from mupvss.errors import DataError, TrainingDivergedError
from mupvss.model.build import build_model

LOG_EVERY = 10
WITHOUT_EFFECT = ("workers", "checkpoint_every", "tensorboard", "snapshots")
"""Options of the training that do not change its result."""


@dataclass(frozen=True)
class Training:
    """One training's ingredients."""

    dataset: Dataset
    model: ModelConfig
    losses: LossConfig
    train: TrainConfig
    seed: int
    device: torch.device

    @property
    def steps(self) -> int:
        return max(1, self.train.image_steps // self.train.batch_size)

    @property
    def identity(self) -> str:
        """Changes with anything that changes the result, so that only the same training is resumed."""
        parts = [
            self.model.model_dump(mode="json", exclude_defaults=True),
            self.losses.model_dump(mode="json", exclude_defaults=True),
            self.train.model_dump(mode="json", exclude_defaults=True, exclude=set(WITHOUT_EFFECT)),
            self.seed,
            self.dataset.classes,
            [(sample.name, sorted(sample.tags)) for sample in self.dataset.samples],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def train(training: Training, folder: Path, title: str = "train") -> dict[str, float]:
    """Trains into folder/model.safetensors and returns the figures of the last steps.

    Resumes from folder/state.safetensors if that is a checkpoint of this very training.
    """
    _check(training)
    config, device = training.train, training.device
    torch.manual_seed(training.seed)
    network = build_model(training.model, len(training.dataset.classes)).to(device).train()
    optimizer = build_optimizer(network, training.model, config)
    state = folder / "state.safetensors"
    first = load_state(state, network, optimizer, training.identity) if state.is_file() else 0
    if first:
        console.print(f"{title}: going on from step {first}", highlight=False)
    journal = Journal(folder / "log.jsonl", first, config.tensorboard)
    loader = batches(training.dataset, config, training.model.image_size, training.seed, first, training.steps)
    kept = {training.steps * k // (config.snapshots + 1) for k in range(1, config.snapshots + 1)}
    begin = time.monotonic()
    entry: dict[str, float] = {}
    with progress_bar(title, training.steps * config.batch_size, "images", first * config.batch_size) as advance:
        for step, batch in enumerate(loader, first):
            set_learning_rate(optimizer, learning_rate_factor(step, training.steps, config.warmup_steps))
            figures = _step(network, optimizer, batch, training, step / training.steps)
            done = step + 1
            if done % LOG_EVERY == 0 or done == training.steps:
                rate = (done - first) * config.batch_size / (time.monotonic() - begin)
                entry = {"step": done, **figures, "images_per_s": round(rate, 2)}
                journal.write(entry)
            if done in kept:
                save_model(snapshot_path(folder, done * config.batch_size), network, training.dataset.classes, training.model)
            if done % config.checkpoint_every == 0 and done < training.steps:
                save_state(state, done, network, optimizer, training.identity)
            advance(config.batch_size, f"loss {figures['loss']:.3f}")
    save_model(folder / "model.safetensors", network, training.dataset.classes, training.model)
    state.unlink(missing_ok=True)
    return entry


def snapshot_path(folder: Path, image_steps: int) -> Path:
    """Where the network is kept that has seen `image_steps` pictures."""
    return folder / "snapshots" / f"{image_steps:08d}.safetensors"


def _step(network, optimizer, batch: Batch, training: Training, progress: float) -> dict[str, float]:  # type: ignore[no-untyped-def]
    images, tags = batch.images.to(training.device), batch.tags.to(training.device)
    with autocast(training.device, training.train.precision):
        features = network(images)
    terms = loss_terms(network, features, tags, training.losses, training.model)
    loss = total_loss(terms, training.losses, progress)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), training.train.clip_norm)
    figures = {"loss": loss.item(), **{name: value.item() for name, value in terms.items()}}
    if not torch.isfinite(norm) or not torch.isfinite(loss):
        parts = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        raise TrainingDivergedError(
            f"the loss or its gradient is no longer finite ({parts}, gradient norm {norm.item():.4g}). "
            f"Lower train.lr, or look at the pictures of this batch: {', '.join(batch.origins)}"
        )
    optimizer.step()
    if features.prototypes is not None:
        figures["prototype_variance"] = prototype_variance(features.prototypes)
    return figures


@torch.no_grad()
def prototype_variance(prototypes: torch.Tensor) -> float:
    """Mean squared distance of a class's unit prototypes (B, C, D) from their mean over the pictures, in [0, 1].

    Zero means collapse: prototypes that ignore the picture.
    """
    unit = torch.nn.functional.normalize(prototypes.float(), dim=-1)
    return (1 - unit.mean(0).square().sum(-1)).mean().item()


def _check(training: Training) -> None:
    if not training.dataset.classes:
        raise DataError("the data set has no class; set data.classes or tag at least one picture")
    if not training.dataset.samples:
        raise DataError("the training split has no picture; check data.root and data.train_split")
    if not any(sample.tags for sample in training.dataset.samples):
        raise DataError(
            f"no training picture has any of the classes {', '.join(training.dataset.classes)}; check data.classes and the tags"
        )
