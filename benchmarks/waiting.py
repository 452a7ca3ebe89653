"""Pictures a second of a training, by how its threads wait for each other: alone, and beside an endless Python loop.

    python benchmarks/waiting.py                                  # what the command sets, against what PyTorch does by itself
    python benchmarks/waiting.py --settings as-it-comes spin-1000 spin-10000 passive one-thread --rounds 2
    python benchmarks/waiting.py --avx2                           # as on a processor with AVX2 alone

MuP-VSS on DeiT-Ti, 224 pixels, batches of 32, one process that reads the pictures beside it. Each figure is a process of its
own; all settings take turns, alone and in company, and the medians over the rounds are printed with their range.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

SETTINGS: dict[str, dict[str, str]] = {
    "as-it-comes": {},
    "the-commands": {"BY_COMMAND": "1"},
    "spin-1000": {"GOMP_SPINCOUNT": "1000"},
    "spin-3000": {"GOMP_SPINCOUNT": "3000"},
    "spin-10000": {"GOMP_SPINCOUNT": "10000"},
    "spin-30000": {"GOMP_SPINCOUNT": "30000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one-thread": {"THREADS": "1"},
    "spin-10000-nice-reader": {"GOMP_SPINCOUNT": "10000", "NICE_READER": "1"},
}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def train(steps: int) -> None:
    """In a process of its own: prints pictures a second, the first step left out."""
    if os.environ.get("BY_COMMAND"):
        from mupvss.runtime.launch import wait_briefly

        wait_briefly()
    import numpy as np
    import torch
    from PIL import Image

    from mupvss.data.sample import Dataset, Sample
    from mupvss.methods import find_method
    from mupvss.options import TrainConfig, ViTConfig
    from mupvss.runtime.device import autocast, prepare
    from mupvss.training.batches import Manner, batches
    from mupvss.training.classifier import weighted_sum
    from mupvss.training.loop import grouped_optimizer

    prepare(0, int(os.environ.get("THREADS", "0")))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8))

    def opened() -> Image.Image:
        if os.environ.get("NICE_READER") and os.nice(0) == 0 and torch.utils.data.get_worker_info():
            os.nice(5)
        return picture

    classes = tuple("abcdef")
    samples = [Sample(str(i), str(i), frozenset(classes[i % 6]), opened) for i in range(256)]
    dataset, manner, method = Dataset(classes, samples), Manner(workers=1), find_method("mupvss")
    train = TrainConfig(image_steps=32 * steps, precision=os.environ["PRECISION"])  # type: ignore[arg-type]
    network = method.build(ViTConfig(), method.options(), 6, False).train()
    optimizer = grouped_optimizer(network, train.lr, train.new_lr_scale, train.weight_decay, lambda name: False)
    begin = 0.0
    for step, batch in enumerate(batches(dataset, train, 224, 0, 0, steps, manner)):
        if step == 1:
            begin = time.perf_counter()
        images, tags = batch.on(manner.device)
        with autocast(manner.device, train.precision):
            features = network(images)
        loss = weighted_sum(method.losses(network, features, tags, method.options(), 0.5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(32 * (steps - 1) / (time.perf_counter() - begin))


def measured(setting: str, company: bool, steps: int, avx2: bool) -> float:
    environment = {key: value for key, value in os.environ.items() if key not in WAITING} | SETTINGS[setting]
    # Limited so, bfloat16 is imitated; that the processor has units for it does not help.
    environment |= {**AVX2, "PRECISION": "fp32"} if avx2 else {"PRECISION": "bf16"}
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if company else None
    try:
        command = [sys.executable, __file__, "--one", "--steps", str(steps)]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    finally:
        if loop is not None:
            loop.kill()
            loop.wait()
    return float(found.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="*", default=["as-it-comes", "the-commands"], choices=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--avx2", action="store_true", help="use no wider instructions than AVX2, and so no bfloat16")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        train(options.steps)
        return
    found: dict[tuple[str, bool], list[float]] = {}
    for _ in range(options.rounds):
        for setting in options.settings:
            for company in (False, True):
                found.setdefault((setting, company), []).append(measured(setting, company, options.steps, options.avx2))
    print("| threads | alone, pictures/s | beside an endless loop |\n|---|---|---|")
    for setting in options.settings:
        cells = [found[setting, company] for company in (False, True)]
        print(f"| {setting} | " + " | ".join(f"{statistics.median(c):.1f} ({min(c):.1f} to {max(c):.1f})" for c in cells) + " |")


if __name__ == "__main__":
    main()
