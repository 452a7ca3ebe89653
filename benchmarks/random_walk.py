"""The sparse random walk against dense squarings, interleaved in one run: ratio of times, largest difference, memory.

python benchmarks/random_walk.py [--repeat 3]
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from mupvss.masks.random_walk import pair_index, random_walk, transition

STEPS, RADIUS, BETA = 256, 5, 8.0


def dense_walk(maps: torch.Tensor, operator: torch.Tensor) -> torch.Tensor:
    """The usual way: the N x N matrix, squared log2(STEPS) times, then one product."""
    matrix = operator
    for _ in range(STEPS.bit_length() - 1):
        matrix = matrix @ matrix
    return (maps.flatten(1) @ matrix.t()).reshape(maps.shape)


def timed(function) -> tuple[torch.Tensor, float]:  # type: ignore[no-untyped-def]
    begin = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begin


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    repeat = parser.parse_args().repeat
    torch.manual_seed(0)
    start = peak_mb()
    fine = torch.rand(len(pair_index(94, 125, RADIUS)[0]))
    maps = torch.rand(4, 94, 125)
    best = min(timed(lambda: random_walk(maps, transition(fine, 94, 125, RADIUS, BETA), STEPS))[1] for _ in range(repeat))
    print(f"stride 4 (94x125, 4 maps), building and walking: {1000 * best:.0f} ms, {peak_mb() - start:.0f} MB more than at rest")
    for height, width, count in ((47, 63, 1), (47, 63, 4), (47, 63, 21)):
        affinity = torch.rand(len(pair_index(height, width, RADIUS)[0]))
        maps = torch.rand(count, height, width)
        sparse_best, dense_best, gap = float("inf"), float("inf"), 0.0
        for _ in range(repeat):
            operator = transition(affinity, height, width, RADIUS, BETA)
            full = operator.to_dense()
            dense, seconds = timed(lambda m=maps, f=full: dense_walk(m, f))
            dense_best = min(dense_best, seconds)
            sparse, seconds = timed(lambda m=maps, o=operator: random_walk(m, o, STEPS))
            sparse_best = min(sparse_best, seconds)
            gap = max(gap, float((dense - sparse).abs().max()))
        print(
            f"N = {height * width}, {count} maps: dense {1000 * dense_best:.0f} ms, sparse {1000 * sparse_best:.0f} ms, "
            f"{dense_best / sparse_best:.0f} times as fast, largest difference {gap:.1e}"
        )


if __name__ == "__main__":
    main()
