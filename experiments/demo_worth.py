"""What the demo reaches on drawings that nothing was tuned on, with and without the backbone that ships, and what could be had.

    python experiments/demo_worth.py [--seeds 5 6 7] [--avx2] [--out runs/demo-worth]

For every seed of the drawings three rows: the demo as it is; the demo from scratch, in the same image steps; and the ceiling,
which is the demo's segmentation network on the shipped backbone, taught with the true masks for as many seconds as the demo took
from its first stage to that network. Each is a command or a process of its own. --avx2: as on a processor with AVX2 alone, which
has no units for bfloat16. Finished parts are not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "configs" / "demo.toml"
SCRATCH = ("--model.weights", "", "--segment.decoder", "", "--train.new-lr-scale", "1", "--segment.train.new-lr-scale", "5")
"""From scratch at the learning rates of scenes.toml."""
UNSEEN = 300
"""Pictures that the figures of the network are from; the demo itself tries it on fewer."""
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
FLOAT32 = ("--train.precision", "fp32", "--search.precision", "fp32", "--segment.train.precision", "fp32")
LEARNING = ("train", "seeds", "affinity", "masks", "segment")


def run(command: list[str], avx2: bool) -> float:
    """Wall seconds of a process that must succeed."""
    begin = time.monotonic()
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | (AVX2 if avx2 else {}))
    return time.monotonic() - begin


def demo(seed: int, folder: Path, avx2: bool, extra: tuple[str, ...]) -> dict[str, Any]:
    done = folder / "wall.json"
    options = ["--data.scenes.seed", str(seed), "--out", str(folder), *extra, *(FLOAT32 if avx2 else ())]
    if not done.is_file():
        wall = run([sys.executable, "-m", "mupvss", "run", str(DEMO), *options], avx2)
        run([sys.executable, "-m", "mupvss", "val", str(DEMO), *options, "--data.scenes.val", str(UNSEEN)], avx2)
        done.write_text(json.dumps({"seconds": wall}))
    metrics = json.loads((folder / "metrics.json").read_text())
    val = json.loads((folder / "val" / "metrics.json").read_text())
    found = {
        "seconds": json.loads(done.read_text())["seconds"],
        "learning": sum(metrics.get(f"{stage}/seconds", 0.0) for stage in LEARNING),
        "segment": metrics["segment/seconds"],
        "masks": metrics["masks/miou"],
        "maps_iou": next(iter(json.loads((folder / "seeds" / "kinds.json").read_text()).values()))["iou"],
        "network": val["miou"],
        "iou": val["iou"],
    }
    return found


def ceiling(seed: int, folder: Path, image_steps: int, avx2: bool) -> dict[str, Any]:
    done = folder / "ceiling.json"
    if not done.is_file():
        own = [sys.executable, __file__, "--ceiling-of", str(seed), "--image-steps", str(image_steps), "--out", str(folder)]
        run([*own, *(["--avx2"] if avx2 else [])], avx2)
    return dict(json.loads(done.read_text()))


def teach_true_masks(seed: int, image_steps: int, out: Path, avx2: bool) -> None:
    """In a process of its own -> out/ceiling.json."""
    from segmenter_ceiling import taught

    from mupvss.config.load import load_config
    from mupvss.data.sources import load_dataset
    from mupvss.methods import find_method
    from mupvss.methods.checkpoint import ModelInfo, save_model
    from mupvss.stages.run_folder import Run

    config = load_config(DEMO)
    scenes = config.data.scenes.model_copy(update={"seed": seed, "val": UNSEEN})
    precision = {"precision": "fp32"} if avx2 else {}
    train = config.segment.train.model_copy(update={"image_steps": image_steps, **precision})
    segment = config.segment.model_copy(update={"train": train, "weights": config.model.weights})
    config = config.model_copy(update={"data": config.data.model_copy(update={"scenes": scenes}), "segment": segment})
    dataset = load_dataset(config.data, "seeds")
    method = find_method(config.method)
    # Only its sizes are read: the network starts from the shipped weights.
    untrained = method.build(config.model, config.options, len(dataset.classes), False)
    info = ModelInfo(dataset.classes, method, config.model, config.options, method.name)
    save_model(out / "train" / "model.safetensors", untrained, info)

    found = taught(Run(config, out), dataset)
    seconds = json.loads((out / "segment" / "metrics.json").read_text())["seconds"]
    (out / "ceiling.json").write_text(json.dumps({"network": found["miou"], "iou": found["iou"], "seconds": seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 6, 7])
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--only", choices=["demo", "scratch", "ceiling"], nargs="+", default=["demo", "scratch", "ceiling"])
    parser.add_argument("--out", type=Path, default=Path("runs/demo-worth"))
    parser.add_argument("--ceiling-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--image-steps", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ceiling_of is not None:
        teach_true_masks(given.ceiling_of, given.image_steps, given.out, given.avx2)
        return
    from mupvss.config.load import load_config

    steps = load_config(DEMO).segment.train.image_steps
    rows = []
    for seed in given.seeds:
        drawn = demo(seed, given.out / f"drawn-{seed}", given.avx2, ())
        rows.append((seed, "demo", drawn))
        if "scratch" in given.only:
            scratch = demo(seed, given.out / f"scratch-{seed}", given.avx2, SCRATCH)
            rows.append((seed, "from scratch", scratch))
        if "ceiling" in given.only:
            many = round(steps * drawn["learning"] / drawn["segment"])
            most = ceiling(seed, given.out / f"ceiling-{seed}", many, given.avx2)
            rows.append((seed, "ceiling", most))
            share = 100 * drawn["network"] / most["network"]
            print(f"seed {seed}: the network reaches {share:.0f} % of its ceiling; {drawn['learning']:.0f} s of learning each")
    print("| drawings | | seconds | masks | weakest class | network | weakest class |\n|---|---|---|---|---|---|---|")
    for seed, what, row in rows:
        masks = f"{row['masks']:.1f} | {weakest(row['maps_iou'])}" if "masks" in row else "- | -"
        print(f"| {seed} | {what} | {row['seconds']:.0f} | {masks} | {row['network']:.1f} | {weakest(row['iou'])} |")


def weakest(iou: list[float]) -> str:
    from mupvss.data.scenes.render import SIX

    name, least = min(zip(("background", *SIX), iou, strict=True), key=lambda entry: entry[1])
    return f"{name} {least:.1f}"


if __name__ == "__main__":
    main()
