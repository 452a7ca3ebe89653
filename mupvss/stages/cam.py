"""Stages `cam_train` and `cam`: a plain CAM trained separately in the same budget, and what its maps score.

Same backbone, pooling decay, augmentation and number of picture steps as MuP-VSS; same scales and mirror in the search.
"""

from __future__ import annotations

from pathlib import Path

from mupvss.config.schema import ModelConfig, RunConfig
from mupvss.data.sources import load_dataset
from mupvss.predict.predictor import Predictor
from mupvss.stages.run_folder import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint, truth_identity
from mupvss.stages.search import score_maps, search_all
from mupvss.stages.train import fit, training_fingerprint

TRAIN, NAME = "cam_train", "cam"
KEYS = {"cam": "", "cam_attention": "attention_", "cam_refined": "refined_"}


def run_cam_train(run: Run) -> Metrics:
    """-> DIR/cam_train/model.safetensors."""
    config, model = run.config, _model(run.config)
    dataset = load_dataset(config.data, "train", config.limit)
    depends_on = training_fingerprint(config, model, dataset)
    return run_stage(run, TRAIN, depends_on, lambda folder: fit(config, model, dataset, folder, TRAIN))


def run_cam(run: Run) -> Metrics:
    """-> DIR/cam/maps/KIND/NAME.npz, and their figures where there are masks."""
    config = run.config
    dataset = load_dataset(config.data, "seeds", config.limit)
    depends_on = fingerprint(NAME, stage_fingerprint(run.folder(TRAIN)), config.search, dataset_identity(dataset))

    search = config.search.model_copy(update={"maps": "default", "kinds": ()})

    def work(folder: Path) -> Metrics:
        predictor = Predictor.open(run.folder(TRAIN) / "model.safetensors", search, None, config.device)
        kinds = [kind for kind in KEYS if kind in predictor.network.kinds]
        search_all(predictor, dataset, kinds, folder)
        metrics: Metrics = {}
        for kind in kinds:
            prefix, found = KEYS[kind], score_maps(dataset, folder, kind)
            if found.oracle is not None and found.plain is not None:
                metrics |= {f"{prefix}oracle": found.oracle.miou, f"{prefix}miou": found.plain.miou}
                metrics[f"{prefix}threshold"] = found.threshold
        return metrics

    return run_stage(run, NAME, depends_on, work, truth_identity(dataset, config.data))


def _model(config: RunConfig) -> ModelConfig:
    return config.model.model_copy(update={"method": "cam"})
