"""One folder, one trial: a network that is there is never taken for one of other settings."""

from __future__ import annotations

from pathlib import Path

from mupvss.files import read_json, write_json


def claim(folder: Path, identity: str) -> None:
    """Ends the program if a network or half-finished training of another trial, or of an unknown one, lies in the folder."""
    path = folder / "trial.json"
    known = read_json(path)["identity"] if path.is_file() else None
    if known != identity and (known is not None or (folder / "model.safetensors").is_file()):
        raise SystemExit(f"{folder}: holds a trial with other settings or data; give another --out")
    write_json(path, {"identity": identity})
