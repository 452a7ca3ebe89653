"""Stage `train`: the classifier with its prototypes."""

from __future__ import annotations

from pathlib import Path

from mupvss.config.schema import ModelConfig, RunConfig
from mupvss.config.used import used_options
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.runtime.device import pick_device
from mupvss.stages.run_folder import Metrics, Run, dataset_identity, fingerprint, run_stage
from mupvss.training.classifier import Training, train

NAME = "train"


def run_train(run: Run) -> Metrics:
    """-> DIR/train/model.safetensors and log.jsonl."""
    config = run.config
    dataset = load_dataset(config.data, "train", config.limit)
    depends_on = training_fingerprint(config, config.model, dataset)
    return run_stage(run, NAME, depends_on, lambda folder: fit(config, config.model, dataset, folder, NAME))


def training_fingerprint(config: RunConfig, model: ModelConfig, dataset: Dataset) -> str:
    return fingerprint(NAME, *used_options(model, config.losses), config.train, config.seed, dataset_identity(dataset))


def fit(config: RunConfig, model: ModelConfig, dataset: Dataset, folder: Path, title: str) -> Metrics:
    """Trains one network of any method into `folder`; returns its last figures, and what it was computed in and on."""
    training = Training(dataset, model, config.losses, config.train, config.seed, pick_device(config.device))
    return train(training, folder, title)
