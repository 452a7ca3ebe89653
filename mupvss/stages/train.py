"""Stages `train` and `cam_train`: the classifier of the chosen method, and a plain CAM with the same backbone and budget."""

from __future__ import annotations

from dataclasses import replace

from mupvss.config.run import RunConfig
from mupvss.methods import NoOptions, find_method
from mupvss.options import CNNConfig, ModelConfig, Section, TrainConfig
from mupvss.runtime.processes import processes
from mupvss.stages.preview import preview_of
from mupvss.stages.run_folder import Metrics, Stage, Work
from mupvss.training.classifier import train_classifier


class TrainInputs(Section):
    """All that a training depends on besides its pictures."""

    method: str
    model: ModelConfig
    options: Section
    train: TrainConfig
    seed: int


def train_inputs(config: RunConfig) -> TrainInputs:
    return TrainInputs.model_construct(
        method=config.method, model=config.model, options=config.options, train=config.train, seed=config.seed
    )


def cam_inputs(config: RunConfig) -> TrainInputs:
    method = "cnn-cam" if isinstance(config.model, CNNConfig) else "vit-cam"
    return train_inputs(config).model_copy(update={"method": method, "options": NoOptions()})


def train(work: Work) -> Metrics:
    """-> model.safetensors and log.jsonl."""
    inputs, manner = work.inputs, work.run.manner
    if manner.preview_at and work.folder.name == "train" and processes().count == 1:
        manner = replace(manner, preview=preview_of(work.dataset, work.run.out, str(work.device), work.run.config))
    method = find_method(inputs.method)
    settings = (method, inputs.model, inputs.options, inputs.train, inputs.seed)
    origins = work.run.origins(inputs.model)
    return train_classifier(*settings, work.dataset, manner, work.folder, work.identity, inputs.method, work.folder.name, origins)


TRAIN = Stage("train", train_inputs, train, pictures="train", does="learns from the tags of {pictures}")
CAM_TRAIN = Stage(
    "cam_train", cam_inputs, train, pictures="train", does="trains a plain CAM on the tags of {pictures}, to compare with"
)
