"""Stage `seeds`: the spatial search over every picture, a background threshold without masks, and palette PNGs."""

from __future__ import annotations

from pathlib import Path

from mupvss.config.schema import RunConfig
from mupvss.data.masks import write_palette_png
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.files import write_json
from mupvss.predict.predictor import Predictor
from mupvss.runtime.device import computed_in, device_name
from mupvss.runtime.processes import processes
from mupvss.search.seeds import read_seeds, seed_path
from mupvss.stages.run_folder import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint, truth_identity
from mupvss.stages.search import MapScores, as_record, score_maps, search_all

NAME = "seeds"


def run_seeds(run: Run) -> Metrics:
    """-> DIR/seeds/maps/KIND/NAME.npz, kinds.json and, at the mask-free threshold, masks/NAME.png."""
    config = run.config
    dataset = load_dataset(config.data, "seeds", config.limit)
    depends_on = seeds_fingerprint(config, stage_fingerprint(run.folder("train")), dataset)

    def work(folder: Path) -> Metrics:
        predictor = Predictor.open(run.folder("train") / "model.safetensors", config.search, None, config.device)
        kinds = sorted({*predictor.kinds, predictor.kind})
        search_all(predictor, dataset, kinds, folder)
        found = {kind: score_maps(dataset, folder, kind) for kind in kinds}
        threshold = found[predictor.kind].threshold
        write_masks(dataset, folder, predictor.kind, threshold)
        if processes().main:
            write_json(folder / "kinds.json", {kind: as_record(entry) for kind, entry in found.items()})
        return {
            "maps": predictor.kind,
            "threshold": threshold,
            "precision": computed_in(predictor.device, config.search.precision),
            "device": device_name(predictor.device),
            **_figures(found, predictor.kind, dataset.classes),
        }

    return run_stage(run, NAME, depends_on, work, truth_identity(dataset, config.data))


def seeds_fingerprint(config: RunConfig, trained: str, dataset: Dataset) -> str:
    """trained: the fingerprint of the training."""
    return fingerprint(NAME, trained, config.search, dataset_identity(dataset))


def write_masks(dataset: Dataset, folder: Path, kind: str, threshold: float) -> None:
    for sample in processes().share(dataset.samples):
        labels = read_seeds(seed_path(folder, kind, sample.name)).labels(threshold)
        write_palette_png(folder / "masks" / f"{sample.name}.png", labels)


def _figures(found: dict[str, MapScores], kind: str, classes: tuple[str, ...]) -> Metrics:
    chosen = found[kind]
    if chosen.plain is None or chosen.oracle is None:
        return {}
    figures: Metrics = {"miou": chosen.plain.miou, "miou_oracle": chosen.oracle.miou}
    figures["threshold_oracle"] = chosen.threshold_oracle
    for name, entry in found.items():
        if entry.plain is not None and entry.oracle is not None:
            figures |= {f"{name}_miou": entry.plain.miou, f"{name}_oracle": entry.oracle.miou}
    figures["iou"] = dict(zip(("background", *classes), chosen.plain.iou, strict=True))
    return figures
