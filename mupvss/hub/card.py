"""The model card: what the network is, what it learned from, how good it was, and how to use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mupvss
from mupvss.config.load import load_config
from mupvss.files import read_json

FIGURES = {
    "seeds/miou": "seeds on the training pictures, threshold chosen without masks",
    "seeds/miou_oracle": "seeds on the training pictures, oracle threshold",
    "masks/miou": "pseudo masks of the training pictures",
    "val/miou_single": "segmentation network on the pictures of val, one scale",
    "val/miou": "segmentation network on the pictures of val",
}

KINDS = {
    "scenes": "Drawn scenes",
    "voc": "A data set in Pascal VOC's layout",
    "coco": "A data set in COCO's layout",
    "folder": "Own pictures",
}


def card_text(run: Path | None, classes: Sequence[str], licence: str | None, data: str | None) -> str:
    """Markdown with the hub's YAML header. licence and data: the owner's words, else unstated and what the run says."""
    lines = ["---", "library_name: mupvss", "pipeline_tag: image-segmentation"]
    lines += [f"license: {json.dumps(licence)}"] if licence else []
    lines += ["tags:", "- weakly-supervised-segmentation", "- image-segmentation", "---", "", f"# {_title(run)}", ""]
    lines += ["Segmentation masks, learned from image tags alone with MuP-VSS (CVPR 2025).", ""]
    lines += ["## Use", "", "```python", "from mupvss import load", "", 'predictor = load("FOLDER OF THIS MODEL")']
    lines += ['found = predictor("picture.jpg")', "found.labels  # (H, W) uint8 class ids, 0 background", "```", ""]
    lines += ["## Classes", "", ", ".join(f"{i} {name}" for i, name in enumerate(classes, 1)), ""]
    lines += ["## Data", "", data or _data(run), "", "## Figures", "", *_figures(run), ""]
    lines += ["## Licence", "", licence or "Not stated by the owner.", "", f"Written by mupvss {mupvss.__version__}."]
    return "\n".join(lines) + "\n"


def _title(run: Path | None) -> str:
    return "Segmentation from image tags" if run is None else run.resolve().name


def _data(run: Path | None) -> str:
    path = None if run is None else run / "train" / "config.toml"
    if path is None or not path.is_file():
        return "Not stated."
    config = load_config(path)
    kind = KINDS[config.data.source]
    return (
        f"{kind}, image tags only; {config.train.image_steps} image steps, backbone {config.model.backbone}, seed {config.seed}."
    )


def _figures(run: Path | None) -> list[str]:
    """mIoU of what was measured; nothing is claimed where there were no masks to measure against."""
    path = None if run is None else run / "metrics.json"
    found: dict[str, Any] = read_json(path) if path is not None and path.is_file() else {}
    rows = [f"| {text} | {found[key]:.1f} |" for key, text in FIGURES.items() if isinstance(found.get(key), float)]
    return ["| mIoU of | % |", "|---|---|", *rows] if rows else ["None were measured: there were no masks to compare with."]
