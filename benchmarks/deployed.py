"""From a picture to its mask on a processor: PyTorch, ONNX Runtime and OpenVINO, with weights of 32 and of 8 bits.

python benchmarks/deployed.py RUN PICTURES [--masks FOLDER] [--count 40] [--rounds 3] [--threads 0] [--full]

Each runtime works in a process of its own, one after the other, in several rounds. The time is that of a picture that is open:
resizing, the network at one scale and the mask at the picture's size; --full: with all scales, the mirror and the dense CRF of
the run. The memory is the highest of the process. With true masks (PNGs with the run's class ids), mIoU is shown.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WARM = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, more in (("whole", []), ("small", ["--int8"])):
            command = [sys.executable, "-m", "mupvss", "export", str(given.run), str(root / f"{name}.onnx"), *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ways = {
            "PyTorch": (given.run, "auto"),
            "ONNX Runtime": (root / "whole.onnx", "onnxruntime"),
            "ONNX Runtime, 8 bits": (root / "small.onnx", "onnxruntime"),
            "OpenVINO": (root / "whole.onnx", "openvino"),
            "OpenVINO, 8 bits": (root / "small.onnx", "openvino"),
        }
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, (path, runtime) in ways.items():
                out = root / f"{name}.npz"
                command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(path), runtime, str(out)]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
                found[name].append(json.loads(told))
        first = [entry["ms"] for entry in found["PyTorch"]]
        sizes = {name: path.stat().st_size / 1e6 if path.is_file() else 0.0 for name, (path, _) in ways.items()}
        reference = dict(np.load(root / "PyTorch.npz"))
        print("| runtime | ms | times PyTorch's speed | MB of memory | MB of the file | same label | mIoU |")
        print("|---|---|---|---|---|---|---|")
        for name, entries in found.items():
            labels = dict(np.load(root / f"{name}.npz"))
            same = np.mean([(labels[key] == reference[key]).mean() for key in reference])
            ratio = statistics.median(one / entry["ms"] for one, entry in zip(first, entries, strict=True))
            cells = [f"{statistics.median(e['ms'] for e in entries):.0f}", f"{ratio:.2f}", f"{max(e['mb'] for e in entries):.0f}"]
            cells += [f"{sizes[name]:.1f}" if sizes[name] else "", f"{100 * same:.2f} %", score(labels, given.masks)]
            print(f"| {name} | {' | '.join(cells)} |")


def work(given: argparse.Namespace) -> None:
    """One runtime in this process: figures to stdout, labels to the file."""
    from mupvss import load
    from mupvss.data.images import read_image
    from mupvss.data.walk import pictures_below
    from mupvss.runtime.device import prepare

    path, runtime, out = given.worker
    prepare(0, given.threads)
    predictor: Any = load(path, "cpu", runtime=runtime)
    if not given.full:
        predictor.scales, predictor.crf, predictor.flip = (1.0,), "none", False
    there = [given.pictures / name for name in pictures_below(given.pictures).pictures]
    if given.masks is not None:
        there = [p for p in there if (given.masks / f"{p.stem}.png").is_file()]
    there = there[:: max(1, len(there) // given.count)][: given.count]
    labels, seconds = {}, []
    for number, file in enumerate([*there[:WARM], *there]):
        picture = read_image(file)
        begun = time.perf_counter()
        mask = predictor(picture).labels
        if number >= WARM:
            seconds.append(time.perf_counter() - begun)
            labels[file.stem] = mask
    np.savez_compressed(out, **labels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": 1000 * statistics.mean(seconds), "mb": peak}))


def score(labels: dict[str, np.ndarray], masks: Path | None) -> str:
    if masks is None:
        return ""
    from mupvss.data.masks import IGNORE, read_label_image
    from mupvss.evaluation.confusion import confusion_matrix, scores

    matrix = sum(confusion_matrix(found, read_label_image(masks / f"{name}.png"), IGNORE) for name, found in labels.items())
    return f"{scores(matrix).miou:.1f}"


if __name__ == "__main__":
    main()
