"""Dense CRF against pydensecrf2, interleaved in one run: argmax agreement and ratio of times, every preset, 3 and 21 labels.

Then three questions of one picture, as a pseudo-mask with a margin asks them, at once and one after the other.

python benchmarks/dense_crf.py FOLDER_OF_PICTURES [--pictures 5] [--repeat 3]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pydensecrf.densecrf as densecrf
from PIL import Image

from mupvss.crf import PRESETS, DenseCRF, Strengths, dense_crf
from mupvss.data.sample import evenly

SIZE, QUESTIONS = (500, 375), 3


def probabilities(labels: int, seed: int) -> np.ndarray:
    """Smooth random fields, as upsampled maps are."""
    small = np.random.default_rng(seed).normal(size=(labels, 8, 10)).astype(np.float32) * 2
    large = np.stack([np.asarray(Image.fromarray(s).resize(SIZE, Image.Resampling.BICUBIC)) for s in small])
    exponential = np.exp(large - large.max(0))
    return exponential / exponential.sum(0)


def peer(image: np.ndarray, p: np.ndarray, strengths: Strengths) -> np.ndarray:
    crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(p))
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(p, 1e-5)).reshape(len(p), -1), np.float32))
    crf.addPairwiseGaussian(sxy=strengths.gaussian_xy, compat=strengths.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=strengths.bilateral_xy, srgb=strengths.bilateral_rgb, rgbim=image, compat=strengths.bilateral_weight
    )
    return np.array(crf.inference(10)).reshape(p.shape)


def timed(function) -> tuple[np.ndarray, float]:  # type: ignore[no-untyped-def]
    begin = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begin


def several_at_once(images: list[np.ndarray], labels: int, repeat: int) -> None:
    """Prints milliseconds per picture, lattices included, of QUESTIONS questions put together and singly, and how far the answers
    lie apart."""
    best, apart = np.full((len(images), 2), np.inf), 0.0
    for index, image in enumerate(images):
        questions = np.stack([probabilities(labels, 10 * index + k) for k in range(QUESTIONS)])
        DenseCRF(image, threads=2).several(questions, 1)
        for _ in range(repeat):
            together, once = timed(lambda i=image, q=questions: DenseCRF(i, threads=2).several(q))
            single, each = timed(lambda i=image, q=questions: one_by_one(DenseCRF(i, threads=2), q))
            best[index] = np.minimum(best[index], (once, each))
        apart = max(apart, float(np.abs(together - single).max()))
    a, b = 1000 * best.mean(0)
    print(
        f"{QUESTIONS} questions of {labels} labels: {a:.0f} together, {b:.0f} singly, ratio {b / a:.2f}, apart {apart:.1e}",
        flush=True,
    )


def one_by_one(crf: DenseCRF, questions: np.ndarray) -> np.ndarray:
    return np.stack([crf(question) for question in questions])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    files = evenly(sorted(arguments.folder.glob("*.jpg")), arguments.pictures)
    images = [np.array(Image.open(file).convert("RGB").resize(SIZE)) for file in files]
    print(f"{len(images)} pictures of {SIZE[0]}x{SIZE[1]}, 10 steps, best of {arguments.repeat}; milliseconds")
    print("labels preset          agreement   peer  1 thread  ratio  2 threads  ratio")
    for labels in (3, 21):
        for name, strengths in PRESETS.items():
            for threads in (1, 2):
                dense_crf(images[0], probabilities(labels, 0), strengths, 1, threads)  # compiled and, once, cached
            agreement, best = [], np.full((len(images), 3), np.inf)
            for index, image in enumerate(images):
                p = probabilities(labels, index)
                for _ in range(arguments.repeat):
                    theirs, best_of = timed(lambda i=image, q=p, k=strengths: peer(i, q, k))
                    one, single = timed(lambda i=image, q=p, k=strengths: dense_crf(i, q, k, 10, 1))
                    _, double = timed(lambda i=image, q=p, k=strengths: dense_crf(i, q, k, 10, 2))
                    best[index] = np.minimum(best[index], (best_of, single, double))
                agreement.append((theirs.argmax(0) == one.argmax(0)).mean())
            a, b, c = 1000 * best.mean(0)
            print(
                f"{labels:6d} {name:15s} {100 * min(agreement):8.3f} % {a:6.0f} {b:9.0f} {a / b:6.2f} {c:10.0f} {a / c:6.2f}",
                flush=True,
            )
    for labels in (2, 3):
        several_at_once(images, labels, arguments.repeat)


if __name__ == "__main__":
    main()
