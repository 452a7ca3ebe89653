"""Stage `seeds`: the spatial search over every picture, a background threshold without masks, and palette PNGs."""

from __future__ import annotations

from pathlib import Path

from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.evaluation.palette import write_palette_png
from mupvss.predictor import Predictor
from mupvss.search.seeds import read_seeds
from mupvss.stages.search_all import MapScores, score_maps, search_all, seed_path
from mupvss.stages.stage import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint

NAME = "seeds"
KINDS = ("default", "prototype", "prototype_only", "without_prototype", "attended_cam", "class_attention", "cam")
ORACLE_KEYS = {
    "default": "miou_oracle",
    "prototype": "prototype_oracle",
    "prototype_only": "prototype_unrefined_oracle",
    "without_prototype": "without_prototype_oracle",
    "attended_cam": "attended_cam_oracle",
    "cam": "cam_oracle",
}


def run_seeds(run: Run) -> Metrics:
    """-> DIR/seeds/maps/KIND/NAME.npz and, at the mask-free threshold, DIR/seeds/masks/NAME.png."""
    config = run.config
    dataset = load_dataset(config.data, "seeds", config.limit)
    trained = stage_fingerprint(run.folder("train"))
    depends_on = fingerprint(NAME, trained, config.search, dataset_identity(dataset))

    def work(folder: Path) -> Metrics:
        predictor = Predictor(run.folder("train") / "model.safetensors", config.search, None, config.device)
        search_all(predictor, dataset, KINDS, folder)
        found = {kind: score_maps(dataset, folder, kind) for kind in ORACLE_KEYS}
        threshold = found[config.search.maps].threshold
        write_masks(dataset, folder, config.search.maps, threshold)
        return {"threshold": threshold, **_figures(found, config.search.maps, dataset.classes)}

    return run_stage(run, NAME, depends_on, work)


def write_masks(dataset: Dataset, folder: Path, kind: str, threshold: float) -> None:
    for sample in dataset.samples:
        labels = read_seeds(seed_path(folder, kind, sample.name)).labels(threshold)
        write_palette_png(folder / "masks" / f"{sample.name}.png", labels)


def _figures(found: dict[str, MapScores], kind: str, classes: tuple[str, ...]) -> Metrics:
    chosen = found[kind]
    if chosen.plain is None or chosen.oracle is None:
        return {}
    figures: Metrics = {"miou": chosen.plain.miou, "threshold_oracle": chosen.threshold_oracle}
    figures |= {key: entry.oracle.miou for k, key in ORACLE_KEYS.items() if (entry := found[k]).oracle is not None}
    figures["prototype_miou"] = found["prototype"].plain.miou if found["prototype"].plain else None
    names = ("background", *classes)
    figures["iou"] = dict(zip(names, chosen.plain.iou, strict=True))
    return figures
