"""A data set of COCO's size with small pictures: its index, its memory, and an epoch's loading in one process and in two.

python benchmarks/coco_size.py [--entries 82783] [--annotations 604907]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DIFFERENT = 200
"""Pictures that are really drawn; the others are links to them."""


def write_tree(root: Path, entries: int, annotations: int) -> Path:
    """-> the annotation file, streamed out, with polygons as long as COCO's are on average (some 50 numbers)."""
    rng, folder = random.Random(0), root / "train2014"
    folder.mkdir(parents=True)
    (root / "annotations").mkdir()
    noise = np.random.default_rng(0)
    for number in range(DIFFERENT):
        small = Image.fromarray(noise.integers(0, 255, (12, 16, 3), np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)
        small.save(root / f"{number}.jpg", quality=90)
    path = root / "annotations" / "instances_train2014.json"
    with path.open("w") as stream:
        stream.write('{"images": [')
        for number in range(entries):
            name = f"COCO_train2014_{number:012d}.jpg"
            os.link(root / f"{number % DIFFERENT}.jpg", folder / name)
            entry = {
                "id": number,
                "file_name": name,
                "width": 64,
                "height": 48,
                "date_captured": "2013-11-14 11:18:45",
                "license": 1,
            }
            stream.write((", " if number else "") + json.dumps(entry))
        stream.write('], "annotations": [')
        for number in range(annotations):
            length = 2 * max(3, int(rng.expovariate(1 / 25)))
            entry = {
                "id": number, "image_id": rng.randrange(entries), "category_id": rng.randint(1, 80), "iscrowd": 0, "area": 12.5,
                "segmentation": [[round(rng.uniform(0, 48), 2) for _ in range(length)]], "bbox": [1.5, 2.5, 30.25, 20.75],
            }  # fmt: skip
            stream.write((", " if number else "") + json.dumps(entry))
        categories = [{"id": number, "name": f"class {number}", "supercategory": "x"} for number in range(1, 81)]
        stream.write(f'], "categories": {json.dumps(categories)}}}')
    return path


def apart(work: Any, *arguments: Any) -> Any:
    """In a process of its own: what it returns, seconds, and the most memory it had, in MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Any, arguments: tuple[Any, ...]) -> tuple[Any, float, float]:
    import mupvss.training.batches  # noqa: F401

    rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.monotonic()
    found = work(*arguments)
    return found, time.monotonic() - begin, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rest) / 1024


def load(root: Path) -> Any:
    from mupvss.data.sources import load_dataset
    from mupvss.options import CocoData

    return load_dataset(CocoData(root=root, train_split="train2014"), "train")


def index(root: Path) -> int:
    return len(load(root).samples)


def index_with_json(root: Path) -> int:
    """What one would have otherwise."""
    from pycocotools.coco import COCO

    return len(COCO(root / "annotations" / "instances_train2014.json").imgs)


def identity(root: Path) -> int:
    from mupvss.stages.run_folder import dataset_identity, fingerprint

    return len(fingerprint(dataset_identity(load(root))))


def epoch(root: Path, rank: int, count: int) -> int:
    from mupvss.data.augment import random_view
    from mupvss.options import TrainConfig

    dataset, config, seen = load(root), TrainConfig(), 0
    for place in range(rank, len(dataset.samples), count):
        sample = dataset.samples[place]
        rng = np.random.default_rng(place)
        random_view(sample.open_image(), 64, config.crop_area, config.flip, 0.3, rng)
        dataset.tag_vector(sample)
        seen += 1
    return seen


def masks(root: Path, count: int) -> int:
    samples = load(root).samples
    return sum(int(samples[place].open_mask().any()) for place in range(0, len(samples), max(1, len(samples) // count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=82_783)
    parser.add_argument("--annotations", type=int, default=604_907)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        root = Path(folder) / "coco"
        path = write_tree(root, options.entries, options.annotations)
        print(
            f"{options.entries} entries, {options.annotations} annotations, {path.stat().st_size / 1e6:.0f} MB of JSON",
            flush=True,
        )
        found, seconds, memory = apart(index, root)
        assert found == options.entries
        size = sum(file.stat().st_size for file in Path(f"{folder}/cache").rglob("*.sqlite")) / 1e6
        print(
            f"index, first time: {seconds:.1f} s, {memory:.0f} MB more than at rest; it takes {size:.0f} MB on disk", flush=True
        )
        _, seconds, memory = apart(index, root)
        print(f"index, from then on: {seconds:.3f} s, {memory:.0f} MB", flush=True)
        _, seconds, memory = apart(index_with_json, root)
        print(f"pycocotools reading the same file, every time: {seconds:.1f} s, {memory:.0f} MB", flush=True)
        _, seconds, memory = apart(identity, root)
        print(f"fingerprint of all files: {seconds:.1f} s, {memory:.0f} MB", flush=True)
        _, seconds, _ = apart(masks, root, 1000)
        print(f"masks: {seconds:.2f} ms each", flush=True)
        found, one, memory = apart(epoch, root, 0, 1)
        print(f"an epoch's loading, one process: {one:.0f} s, {found / one:.0f} pictures/s, {memory:.0f} MB", flush=True)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            parts = pool.starmap(_measured, [(epoch, (root, rank, 2)) for rank in range(2)], chunksize=1)
        assert sum(part[0] for part in parts) == options.entries
        two = max(part[1] for part in parts)
        print(f"an epoch's loading, two processes: {two:.0f} s, {options.entries / two:.0f} pictures/s", flush=True)


if __name__ == "__main__":
    main()
