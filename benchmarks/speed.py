"""Training, search and evaluation, each beside what one would have otherwise, interleaved in one run.

    python benchmarks/speed.py [training|search|evaluation|all] [--picture FILE]

The peer of training and search is the same method written straightforwardly: float32 as PyTorch computes it by default, explicit
attention whose weights every block returns, PEM as whole products of all tokens, one forward pass per scale and mirror. It has
the same weights, so that losses and maps can be compared too. Times are the medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mupvss.data.preprocess import normalise, resize_for_search
from mupvss.evaluation.confusion import confusion_matrix
from mupvss.methods import find_method
from mupvss.methods.checkpoint import ModelInfo
from mupvss.methods.mupvss import MUPVSS, MupvssOptions, MupvssSearch
from mupvss.model.features import Features, first_attention_block
from mupvss.model.mupvss import MuPVSSNetwork
from mupvss.options import PEMConfig, SearchConfig, ViTConfig
from mupvss.predict.predictor import Predictor
from mupvss.runtime.device import autocast, computed_in, float32_product, has_bf16
from mupvss.search.affinity import refine_by_pixels
from mupvss.search.multiscale import canvas_size, stretch
from mupvss.training.classifier import weighted_sum

CPU = torch.device("cpu")


@contextlib.contextmanager
def plain_float32() -> Iterator[None]:
    """PyTorch as it comes: our own setting lets a faster library multiply."""
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(float32_product())


class Straightforward(nn.Module):
    """The forward pass of a MuP-VSS network as one would write it first."""

    def __init__(self, network: MuPVSSNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Features:
        net, vit = self.network, self.network.backbone
        patches, grid = vit.embed(images)
        x = torch.cat((patches, net.embed_prototypes(images)), 1)
        n = patches.shape[1]
        kept = []
        for i, block in enumerate(vit.layers()):
            out, weights = attention(block.norm1(x), block.attn)
            kept.append(weights)
            x = x + block.drop_path(out)
            if str(i) in net.pem:
                x = whole_pem(x, n, net.pem[str(i)])
            x = x + block.drop_path(block.mlp(block.norm2(x)))
        normed = vit.norm(x)
        logits = net.head(normed[:, :n], grid)
        mean = torch.stack(kept).mean(2)  # (blocks, B, T, T)
        first = first_attention_block(net.attention_skip, len(kept))
        return Features(
            grid, normed[:, :n], logits, net.head.pool(logits), prototypes=normed[:, n:], token_score=x[:, n:].mean(-1),
            decision_scale=net.p2p_scale.exp(), decision_bias=net.p2p_bias,
            patch_attention=mean[:, :, :n, :n].mean(0), class_attention=mean[first:, :, n:, :n].mean(0),
        )  # fmt: skip


def attention(x: Tensor, unit: nn.Module) -> tuple[Tensor, Tensor]:
    b, t, d = x.shape
    q, k, v = unit.qkv(x).reshape(b, t, 3, unit.heads, d // unit.heads).permute(2, 0, 3, 1, 4)
    weights = ((q @ k.transpose(-2, -1)) / math.sqrt(d // unit.heads)).softmax(-1)
    return unit.proj((weights @ v).transpose(1, 2).reshape(b, t, d)), weights


def whole_pem(x: Tensor, n: int, pem: nn.Module) -> Tensor:
    """softmax over all tokens, times all tokens, of which all but two parts are then thrown away."""
    unit = F.normalize(x, dim=-1)
    similarity = unit @ unit.transpose(1, 2)
    weights = (similarity.masked_fill(similarity <= pem.config.threshold, -1e30) / pem.config.temperature).softmax(-1)
    to_patches = torch.cat((torch.zeros_like(weights[..., :n]), weights[..., n:]), -1)
    to_prototypes = torch.cat((weights[..., :n], torch.zeros_like(weights[..., n:])), -1)
    added = torch.cat(((to_patches @ x)[:, :n], (to_prototypes @ x)[:, n:]), 1)
    return x + pem.gate * added


OPTIONS, OWN = MupvssOptions(pem=PEMConfig(blocks="all")), MupvssSearch()
KIND = "attended_search_refined"
"""The maps that are timed: the method's own."""


def model_config(backbone: str, size: int) -> ViTConfig:
    return ViTConfig(backbone=backbone, image_size=size, drop_path=0.0)


def rounds(ways: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Median seconds of each way, taken in turn; one round before does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(count + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if number:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(found) for name, found in times.items()}


def batch(size: int, classes: int, pictures: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of coloured fields, tagged by the colours in them: something that can be learned."""
    rng = torch.Generator().manual_seed(seed)
    tags = (torch.rand(pictures, classes, generator=rng) < 0.15).float()
    colours = torch.randn(classes, 3, generator=torch.Generator().manual_seed(0))
    images = torch.randn(pictures, 3, size, size, generator=rng) * 0.3
    for picture, label in tags.nonzero().tolist():
        x, y = (int(v) for v in torch.randint(0, size // 2, (2,), generator=rng))
        images[picture, :, y : y + size // 2, x : x + size // 2] += colours[label].view(3, 1, 1)
    return images, tags


def step(network: nn.Module, forward: nn.Module, optimizer: torch.optim.Optimizer, name: str, precision: str,
         data: tuple[Tensor, Tensor]) -> float:  # fmt: skip
    images, tags = data
    with autocast(CPU, precision):
        features = forward(images)
    method = find_method(name)
    loss = weighted_sum(method.losses(network, features, tags, OPTIONS if name == "mupvss" else method.options(), 1.0))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimizer.step()
    return loss.item()


def training(backbone: str, size: int, classes: int, pictures: int, count: int) -> None:
    ways: dict[str, Callable[[], object]] = {}
    losses: dict[str, list[float]] = {}
    for name, method, precision in (
        ("ours", "mupvss", "bf16"),
        ("straightforward", "mupvss", "fp32"),
        ("plain ViT", "vit-cam", "bf16"),
    ):
        found = find_method(method)
        torch.manual_seed(0)
        own = OPTIONS if method == "mupvss" else found.options()
        network = found.build(model_config(backbone, size), own, classes, False).train()
        forward = Straightforward(network) if name == "straightforward" else network
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        losses[name] = []

        def way(name=name, network=network, forward=forward, optimizer=optimizer, method=method, precision=precision) -> None:  # type: ignore[no-untyped-def]
            data = batch(size, classes, pictures, len(losses[name]) + 1)
            with plain_float32() if name == "straightforward" else contextlib.nullcontext():
                losses[name].append(step(network, forward, optimizer, method, precision, data))

        ways[name] = way
    seconds = rounds(ways, count)
    gap = [abs(a - b) / b for a, b in zip(losses["ours"], losses["straightforward"], strict=True)]
    print(
        f"| {backbone}, {size} px, C = {classes}, batch {pictures} | {pictures / seconds['straightforward']:.2f} | "
        f"{pictures / seconds['ours']:.2f} | {seconds['straightforward'] / seconds['ours']:.2f} | "
        f"{seconds['ours'] / seconds['plain ViT']:.2f} | {losses['ours'][0]:.3f} → {losses['ours'][-1]:.3f} | "
        f"{100 * max(gap):.2f} % | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} |",
        flush=True,
    )


@torch.no_grad()
def plain_search(forward: Straightforward, image: Image.Image, classes: Sequence[int], config: SearchConfig, size: int) -> Tensor:
    """One pass per scale and mirror, maps of every class, those of the tags picked at the end."""
    patch = forward.network.backbone.patch_size
    area = canvas_size(*image.size, config.canvas_stride)
    scale = size / math.sqrt(image.width * image.height)
    found = []
    for mirrored in (False, True):
        tensor = normalise(resize_for_search(image, scale, patch))
        found.append(F.normalize(forward((tensor.flip(-1) if mirrored else tensor).unsqueeze(0)).prototypes, dim=-1))
    prototypes = F.normalize(torch.stack(found).mean(0), dim=-1)
    total = torch.zeros(prototypes.shape[1], *area)
    for scale in config.scales:
        both = []
        for mirrored in (False, True):
            tensor = normalise(resize_for_search(image, scale, patch))
            features = forward((tensor.flip(-1) if mirrored else tensor).unsqueeze(0))
            searched = dataclasses.replace(features, prototypes=prototypes)
            maps = MUPVSS.maps()[KIND](searched, config, OWN)[0].unflatten(-1, features.grid)
            both.append(maps.flip(-1) if mirrored else maps)
        merged = torch.stack(both).mean(0)
        total += stretch(F.interpolate(merged.unsqueeze(0), size=area, mode="bilinear", align_corners=False)[0])
    small = torch.from_numpy(np.array(image.resize(area[::-1], Image.Resampling.BOX), np.float32) / 255).permute(2, 0, 1)
    drawn = refine_by_pixels(stretch(total), small, config.pixel_steps, config.pixel_distances)
    return stretch(drawn)[list(classes)]


def search(backbone: str, size: int, classes: int, image: Image.Image, count: int) -> None:
    config = SearchConfig(scales=(0.5, 0.75, 1.0), precision="bf16")
    model = model_config(backbone, size)
    torch.manual_seed(0)
    network = MUPVSS.build(model, OPTIONS, classes, False).eval()
    info = ModelInfo(tuple(map(str, range(classes))), MUPVSS, model, OPTIONS, MUPVSS.name)
    predictor = Predictor(network, info, config, OWN, device="cpu")
    exact = Predictor(network, info, config.model_copy(update={"precision": "fp32"}), OWN, device="cpu")
    forward, tags = Straightforward(network), [1, 4]
    with plain_float32():
        expected = plain_search(forward, image, tags, config, size)
    gap = (torch.from_numpy(exact.search(image, tags, [KIND])[KIND].maps.astype(np.float32)) - expected).abs().max()

    def straightforward() -> None:
        with plain_float32():
            plain_search(forward, image, tags, config, size)

    ways = {
        "straightforward": straightforward,
        "ours": lambda: predictor.search(image, tags, [KIND]),
        "float32": lambda: exact.search(image, tags, [KIND]),
    }
    seconds = rounds(ways, count)
    print(
        f"| {backbone}, {image.width}×{image.height}, C = {classes} | {seconds['straightforward']:.2f} | "
        f"{seconds['float32']:.2f} | {seconds['ours']:.2f} | {seconds['straightforward'] / seconds['ours']:.2f} | {gap:.1e} |",
        flush=True,
    )


def usual_bincount(prediction: np.ndarray, truth: np.ndarray, size: int) -> np.ndarray:
    counted = (truth >= 0) & (truth < size)
    return np.bincount(size * truth[counted].astype(int) + prediction[counted], minlength=size**2).reshape(size, size)


def evaluation(count: int) -> None:
    from torchmetrics.classification import MulticlassConfusionMatrix

    rng = np.random.default_rng(0)
    for size in (21, 81):
        truth = np.kron(rng.integers(0, size, (15, 20)), np.ones((25, 25), int)).astype(np.uint8)
        truth[::25] = 255
        prediction = np.where(rng.random(truth.shape) < 0.2, 3, truth).astype(np.uint8)
        prediction[truth == 255] = 0
        peer = MulticlassConfusionMatrix(size, ignore_index=255, validate_args=False)
        tensors = torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(truth.astype(np.int64))
        expected = usual_bincount(prediction, truth, size)
        assert np.array_equal(expected, confusion_matrix(prediction, truth, size))
        assert np.array_equal(expected, peer(*tensors).numpy())
        seconds = rounds(
            {
                "bincount": lambda p=prediction, t=truth, s=size: usual_bincount(p, t, s),
                "ours": lambda p=prediction, t=truth, s=size: confusion_matrix(p, t, s),
                "torchmetrics": lambda p=peer, t=tensors: p(*t),
            },
            count,
        )
        ms = {name: 1000 * value for name, value in seconds.items()}
        print(
            f"| 500×375, {size} classes | {ms['bincount']:.2f} | {ms['torchmetrics']:.2f} | "
            f"{ms['ours']:.2f} | {ms['bincount'] / ms['ours']:.1f} | {ms['torchmetrics'] / ms['ours']:.0f} |",
            flush=True,
        )


def peak() -> None:
    """What the processor can do at most, to see how near the rest comes."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    side = 2048 if has_bf16(CPU) else 512  # imitated, the large product takes a minute
    halves = a[:side, :side].bfloat16(), b[:side, :side].bfloat16()

    def highest() -> None:
        with plain_float32():
            a @ b

    seconds = rounds({"float32": highest, "medium": lambda: a @ b, "bf16": lambda: halves[0] @ halves[1]}, 9)
    speed = {name: 2 * (side if name == "bf16" else 2048) ** 3 / value / 1e9 for name, value in seconds.items()}
    copied = torch.empty(64 << 20)
    other = torch.empty_like(copied)
    bandwidth = 2 * copied.nbytes / rounds({"copy": lambda: other.copy_(copied)}, 9)["copy"] / 1e9
    print(
        f"Matrix products of 2048×2048: {speed['float32']:.0f} GFLOP/s in float32 as PyTorch comes, "
        f"{speed['medium']:.0f} as we set it, {speed['bf16']:.1f} in bf16 ({side}×{side}); "
        f"what asks for bf16 below is computed in {computed_in(CPU, 'bf16')}; copying {bandwidth:.0f} GB/s.\n",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="?", default="all", choices=["all", "training", "search", "evaluation"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wide", action="store_true", help="also 448 pixels and 80 classes")
    parser.add_argument("--picture", type=Path, help="picture to search; default: noise of 500x375")
    options = parser.parse_args()
    torch.set_float32_matmul_precision(float32_product())
    peak()
    if options.which in ("all", "training"):
        print("| training | straightforward, images/s | ours, images/s | ratio | times a plain ViT's step | loss | gap | MB |")
        print("|---|---|---|---|---|---|---|---|")
        cases = [(224, 20)] + ([(224, 80), (448, 20), (448, 80)] if options.wide else [])
        for size, classes in cases:
            training("small", size, classes, 16 if size == 224 else 4, options.rounds)
        print()
    if options.which in ("all", "search"):
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8))
        image = Image.open(options.picture).convert("RGB") if options.picture else noise
        print("| search, 3 scales and mirror | straightforward, s | ours in float32, s | ours, s | ratio | gap in float32 |")
        print("|---|---|---|---|---|---|")
        for classes in (20, 80) if options.wide else (20,):
            search("small", 224, classes, image, options.rounds)
        print()
    if options.which in ("all", "evaluation"):
        print("| evaluation | bincount, ms | torchmetrics, ms | no numba, ms | ours, ms | times bincount | times torchmetrics |")
        print("|---|---|---|---|---|---|---|")
        evaluation(60 * options.rounds)


if __name__ == "__main__":
    main()
