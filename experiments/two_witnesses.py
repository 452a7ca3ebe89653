"""Do the search and the classifier say more together? Mean and geometric mean of two kinds of maps of finished runs.

    python experiments/two_witnesses.py runs/compare/ablations/ge/seed-* [--kinds attended_search_refined cam]

Nothing is trained or searched. Printed per run: mIoU with the mask-free and the oracle threshold of either kind and of both
together.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mupvss.config.load import load_config
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.search.seeds import Seeds, read_seeds, seed_path, write_seeds
from mupvss.stages.scoring import score_maps

WAYS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": lambda a, b: (a + b) / 2,
    "geometric mean": lambda a, b: np.sqrt(a * b),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--kinds", nargs=2, default=["attended_search_refined", "attended_cam_refined"], metavar="KIND")
    arguments = parser.parse_args()
    for run in arguments.runs:
        config = load_config(run / "seeds" / "config.toml")
        dataset = load_dataset(config.data, "seeds", config.limit)
        for kind in arguments.kinds:
            tell(run, kind, dataset, run / "seeds")
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                put_together(dataset, run / "seeds", arguments.kinds, way, Path(folder))
                tell(run, way, dataset, Path(folder))


def put_together(dataset: Dataset, seeds: Path, kinds: list[str], way: str, folder: Path) -> None:
    """Maps of both kinds, in [0, 1] -> those of `way`, in a folder of the same layout."""
    for sample in dataset.samples:
        one, other = (read_seeds(seed_path(seeds, kind, sample.name)) for kind in kinds)
        maps = WAYS[way](one.maps.astype(np.float32), other.maps.astype(np.float32))
        write_seeds(seed_path(folder, way, sample.name), Seeds(one.ids, maps, one.size, one.stride))


def tell(run: Path, kind: str, dataset: Dataset, folder: Path) -> None:
    found = score_maps(dataset, folder, kind)
    if found.plain is None or found.oracle is None:
        raise SystemExit(f"{run}: none of its pictures has a mask to score with")
    print(f"{run}  {kind:16s} mask-free {found.plain.miou:.1f}  oracle {found.oracle.miou:.1f}", flush=True)


if __name__ == "__main__":
    main()
