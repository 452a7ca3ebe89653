"""save_pretrained, from_pretrained and push_to_hub for predictors, through huggingface_hub's own mixin.

A shared folder holds model.safetensors, our one checkpoint format; config.json with the predictor's settings; and README.md, the
model card: what the network is, what it learned from, how good it is, and how to use it.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from mupvss.errors import CheckpointError
from mupvss.files import read_json, write_json
from mupvss.model.licences import Origin
from mupvss.predict.run import FinishedRun
from mupvss.version import VERSION

FIGURES = {
    "seeds/miou": "seeds on the training pictures, threshold chosen without masks",
    "seeds/miou_oracle": "seeds on the training pictures, oracle threshold",
    "masks/miou": "pseudo-masks of the training pictures",
    "val/miou_single": "segmentation network on the pictures of val, one scale",
    "val/miou": "segmentation network on the pictures of val",
}

KINDS = {
    "scenes": "Drawn scenes",
    "voc": "A data set in Pascal VOC's layout",
    "coco": "A data set in COCO's layout",
    "folder": "Own pictures",
}


def card_text(
    run: Path | None, classes: Sequence[str], licence: str | None, data: str | None, origins: Sequence[Origin] = ()
) -> str:
    """Markdown with the hub's YAML header. licence, data: the owner's words; by default unstated, and what the run says. origins:
    what the network was made from."""
    lines = ["---", "library_name: mupvss", "pipeline_tag: image-segmentation"]
    lines += [f"license: {json.dumps(licence)}"] if licence else []
    lines += ["tags:", "- weakly-supervised-segmentation", "- image-segmentation", "---", "", f"# {_title(run)}", ""]
    lines += ["Segmentation masks, learned from image tags alone with MuP-VSS (CVPR 2025).", ""]
    lines += ["## Use", "", "```python", "from mupvss import load", "", 'predictor = load("FOLDER OF THIS MODEL")']
    lines += ['found = predictor("picture.jpg")', "found.labels  # (H, W) uint8 class ids, 0 background", "```", ""]
    lines += ["## Classes", "", ", ".join(f"{i} {name}" for i, name in enumerate(classes, 1)), ""]
    lines += ["## Data", "", data or _data(run), "", "## Figures", "", *_figures(run), ""]
    lines += ["## Licence", "", licence or "Not stated by the owner.", "", *_made_from(origins), f"{OURS} {VERSION}."]
    return "\n".join(lines) + "\n"


def _made_from(origins: Sequence[Origin]) -> list[str]:
    cells = [(one.part, one.source or "-", one.licence or "not known", one.sha256[:16] or "-") for one in origins]
    rows = [f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in row)} |" for row in cells]
    head = ["Made from:", "", "| part | source | licence | SHA-256 |", "|---|---|---|---|"]
    return [*head, *rows, ""] if rows else []


def _title(run: Path | None) -> str:
    return "Segmentation from image tags" if run is None else run.resolve().name


def _data(run: Path | None) -> str:
    if run is None or not (run / "train" / "config.toml").is_file():
        return "Not stated."
    config = FinishedRun(run).config()
    kind = KINDS[config.data.source]
    return (
        f"{kind}, image tags only; {config.train.image_steps} image steps, backbone {config.model.backbone}, seed {config.seed}."
    )


def _figures(run: Path | None) -> list[str]:
    """Rows of measured mIoU; one sentence instead if there were no masks to compare with."""
    path = None if run is None else run / "metrics.json"
    found: dict[str, Any] = read_json(path) if path is not None and path.is_file() else {}
    which = "training pictures, which is too good" if found.get("val/learned") else "the pictures of val"
    named = {key: text.replace("the pictures of val", which) for key, text in FIGURES.items()}
    rows = [f"| {text} | {found[key]:.1f} |" for key, text in named.items() if isinstance(found.get(key), float)]
    return ["| mIoU of | % |", "|---|---|", *rows] if rows else ["None were measured: there were no masks to compare with."]


CHECKPOINT, SETTINGS, CARD = "model.safetensors", "config.json", "README.md"
OURS = "Written by mupvss"
"""Words of every card that was generated."""
T = TypeVar("T", bound="SharedPredictor")


class SharedPredictor(ModelHubMixin, library_name="mupvss", pipeline_tag="image-segmentation"):
    run: Path | None = None
    """The run it was loaded from; the card reports its figures."""

    @abstractmethod
    def save_checkpoint(self, path: Path) -> None:
        """Writes the network in our checkpoint format."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs besides the checkpoint, as plain JSON."""

    @classmethod
    @abstractmethod
    def from_settings(cls: type[T], checkpoint: Path, settings: dict[str, Any], device: str) -> T:
        """Restores the predictor."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def origins(self) -> tuple[Origin, ...]:
        """What the network was made from, with licences."""

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """As the mixin's, which keeps a card that is there. One that we wrote for an earlier network must not stand beside this
        one: it is kept under another name, since someone may have added to it."""
        card = Path(save_directory) / CARD
        before = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        if OURS not in before:
            return super().save_pretrained(save_directory, **options)
        aside = next(place for n in range(1, 1000) if not (place := card.with_name(f"README.earlier-{n}.md")).exists())
        card.replace(aside)
        pushed = super().save_pretrained(save_directory, **options)
        if card.is_file() and card.read_text(encoding="utf-8") == before:
            aside.unlink()
        return pushed

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save_checkpoint(save_directory / CHECKPOINT)
        write_json(save_directory / SETTINGS, {"mupvss": type(self).__name__, **self.settings()})

    @classmethod
    def from_pretrained(cls: type[T], pretrained_model_name_or_path: str | Path, **options: Any) -> T:
        """Loads from the hub (OWNER/NAME) or a folder. options: the mixin's, and `device`. CheckpointError if neither exists."""
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            raise CheckpointError(
                f"{pretrained_model_name_or_path}: cannot be fetched from the Hugging Face hub ({type(error).__name__}). "
                "Offline? Give the folder that save_pretrained wrote"
            ) from None

    @classmethod
    def _from_pretrained(cls: type[T], *, model_id: str, device: str = "auto", **options: Any) -> T:
        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        chosen = {name: options[name] for name in known if name in options}
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(snapshot_download(model_id, allow_patterns=[CHECKPOINT, SETTINGS], **chosen))
        settings = read_settings(folder)
        if settings["mupvss"] != cls.__name__:
            raise CheckpointError(f"{model_id}: holds a {settings['mupvss']}; use {settings['mupvss']}.from_pretrained")
        return cls.from_settings(folder / CHECKPOINT, settings, device)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        return ModelCard(card_text(self.run, self.classes, kwargs.get("licence"), kwargs.get("data"), self.origins))


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings in a shared folder. CheckpointError for a folder that `save_pretrained` did not write."""
    try:
        found = read_json(folder / SETTINGS)
        known = isinstance(found, dict) and "mupvss" in found
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        known = False
    if not known:
        raise CheckpointError(f"{folder}: no {SETTINGS} in there that mupvss wrote; expected a folder that save_pretrained wrote")
    return dict(found)
