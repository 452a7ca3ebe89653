"""save_pretrained, from_pretrained and push_to_hub for predictors, through huggingface_hub's own mixin.

A shared folder holds model.safetensors, our one checkpoint format; config.json with what the predictor was set to; and
README.md, the card.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from mupvss.errors import CheckpointError
from mupvss.files import read_json, write_json
from mupvss.hub.card import card_text

CHECKPOINT, SETTINGS = "model.safetensors", "config.json"
T = TypeVar("T", bound="SharedPredictor")


class SharedPredictor(ModelHubMixin, library_name="mupvss", pipeline_tag="image-segmentation"):
    run: Path | None = None
    """The run it was loaded from, whose figures the card tells."""

    @abstractmethod
    def save_checkpoint(self, path: Path) -> None:
        """Writes the network in our checkpoint format."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs beside the checkpoint, as plain JSON."""

    @classmethod
    @abstractmethod
    def from_settings(cls: type[T], checkpoint: Path, settings: dict[str, Any], device: str) -> T:
        """The predictor again."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]: ...

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save_checkpoint(save_directory / CHECKPOINT)
        write_json(save_directory / SETTINGS, {"mupvss": type(self).__name__, **self.settings()})

    @classmethod
    def from_pretrained(cls: type[T], pretrained_model_name_or_path: str | Path, **options: Any) -> T:
        """From the hub (OWNER/NAME) or a folder; options as of the mixin, and `device`. CheckpointError where neither is."""
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
        return ModelCard(card_text(self.run, self.classes, kwargs.get("licence"), kwargs.get("data")))


def read_settings(folder: Path) -> dict[str, Any]:
    """CheckpointError for a folder that `save_pretrained` did not write."""
    try:
        found = read_json(folder / SETTINGS)
        known = isinstance(found, dict) and "mupvss" in found
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        known = False
    if not known:
        raise CheckpointError(f"{folder}: no {SETTINGS} of ours in there; expected what save_pretrained wrote")
    return dict(found)
