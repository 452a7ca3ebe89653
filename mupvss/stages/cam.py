"""Stage `cam`: a plain CAM trained separately in the same budget, with the same backbone, decay and augmentation."""

from __future__ import annotations

from pathlib import Path

from mupvss.data.sources import load_dataset
from mupvss.predictor import Predictor
from mupvss.search.maps import CAM_MAPS
from mupvss.stages.search_all import score_maps, search_all
from mupvss.stages.stage import Metrics, Run, dataset_identity, fingerprint, run_stage
from mupvss.stages.train import fit, training_fingerprint

NAME = "cam"
KEYS = {"cam": "oracle", "cam_attention": "attention_oracle", "cam_refined": "refined_oracle"}


def run_cam(run: Run) -> Metrics:
    """-> DIR/cam/model.safetensors, its maps, and their oracle figures where there are masks."""
    config = run.config
    model = config.model.model_copy(update={"method": "cam"})
    train, seeds = (load_dataset(config.data, purpose, config.limit) for purpose in ("train", "seeds"))
    depends_on = fingerprint(NAME, training_fingerprint(config, model, train), config.search, dataset_identity(seeds))

    def work(folder: Path) -> Metrics:
        metrics: Metrics = {}
        if not (folder / "model.safetensors").is_file():
            metrics = fit(config, model, train, folder, NAME)
        predictor = Predictor(folder / "model.safetensors", config.search, None, config.device)
        search_all(predictor, seeds, list(CAM_MAPS), folder)
        for kind, key in KEYS.items():
            found = score_maps(seeds, folder, kind)
            if found.oracle is not None and found.plain is not None:
                metrics |= {key: found.oracle.miou, key.replace("oracle", "miou"): found.plain.miou}
                metrics[key.replace("oracle", "threshold")] = found.threshold
        return metrics

    return run_stage(run, NAME, depends_on, work)
