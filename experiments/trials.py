"""What experiments share: folders in which no network is taken for that of another trial, and the scores of maps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mupvss.data.sample import Dataset
from mupvss.files import read_json, write_json
from mupvss.stages.scoring import score_maps


def claim(folder: Path, identity: str) -> None:
    """Ends the program if a network or half-finished training of another trial, or of an unknown one, lies in the folder."""
    path = folder / "trial.json"
    known = read_json(path)["identity"] if path.is_file() else None
    if known != identity and (known is not None or (folder / "model.safetensors").is_file()):
        raise SystemExit(f"{folder}: holds a trial with other settings or data; give another --out")
    write_json(path, {"identity": identity})


def score_ways(run: Path, dataset: Dataset, folder: Path, ways: Iterable[str], background: bool) -> dict[str, list[float]]:
    """Prints and returns, for each kind of maps in a folder, mIoU with the threshold chosen without masks, and with the best."""
    found = {}
    for name in ways:
        scored = score_maps(dataset, folder, name, background, "middle")
        assert scored.plain is not None
        assert scored.oracle is not None
        found[name] = [scored.plain.miou, scored.oracle.miou]
        print(f"{run.name}  {name:45s} mask-free {scored.plain.miou:5.1f}  oracle {scored.oracle.miou:5.1f}", flush=True)
    return found
