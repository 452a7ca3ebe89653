"""The networks that learn which neighbouring cells belong to one object (Ahn & Kwak 2018, PSA), and their checkpoints.

AffinityNet is PSA's own: features of three depths of ResNet38, projected so that distance means affinity. The head on the trained
ViT is ours: the ViT's blocks already know what belongs together, and small convolutions learn how much. The classifier stays
frozen, so training takes minutes on a CPU; colours at twice the resolution of the features add the edges.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mupvss.errors import CheckpointError, UserError
from mupvss.methods.checkpoint import load_network
from mupvss.methods.earlier import modern
from mupvss.model.checkpoint import fitting, load_tensors, save_tensors
from mupvss.model.cnn import ResNet38
from mupvss.model.pretrained import load_backbone
from mupvss.model.vit import VisionTransformer
from mupvss.options import AFFINITIES, HeadAffinity, NetAffinity

CHANNELS = (64, 128, 256)
"""Channels for the three depths, at full width."""


class AffinityNet(nn.Module):
    def __init__(self, backbone: ResNet38) -> None:
        super().__init__()
        self.backbone, self.stride = backbone, backbone.stride
        share = backbone.width / 4096
        widths = [max(8, int(c * share)) for c in CHANNELS]
        entering = backbone.stage_widths
        self.f8_3 = nn.Conv2d(entering[0], widths[0], 1, bias=False)
        self.f8_4 = nn.Conv2d(entering[1], widths[1], 1, bias=False)
        self.f8_5 = nn.Conv2d(entering[2], widths[2], 1, bias=False)
        self.f9 = nn.Conv2d(sum(widths), sum(widths), 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), normalised -> features (B, D, H/8, W/8), not negative."""
        conv4, conv5, conv6 = self.backbone.stages(images)
        parts = [F.elu(layer(x)) for layer, x in ((self.f8_3, conv4), (self.f8_4, conv5), (self.f8_5, conv6))]
        return F.elu(self.f9(torch.cat(parts, 1)))


WIDTH = 64
DEPTHS = (0.34, 0.67)
"""Fractions of the blocks after which features are read, in addition to those of the last block."""


class ViTAffinity(nn.Module):
    def __init__(self, classifier: Any) -> None:
        """classifier: a network whose `backbone` is a VisionTransformer, and whose patches come before its other tokens."""
        super().__init__()
        self.classifier = classifier.requires_grad_(False).eval()
        vit = classifier.backbone
        self.stride = vit.patch_size // 2
        taken = sorted({max(1, round(share * len(vit.blocks))) for share in DEPTHS})
        self._seen: list[Tensor] = []
        for number in taken:  # the input of a block is the output of the one before it
            vit.layers()[number].norm1.register_forward_pre_hook(self._keep)
        self.project = nn.ModuleList(nn.Conv2d(vit.width, WIDTH, 1) for _ in range(len(taken) + 1))
        self.edges = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, WIDTH, 1),
        )
        self.join = nn.Conv2d(WIDTH * (len(taken) + 2), 2 * WIDTH, 1)

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._seen.append(inputs[0])

    def train(self, mode: bool = True) -> ViTAffinity:
        super().train(mode)
        self.classifier.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W), normalised, whole patches -> features (B, 128, 2H/patch, 2W/patch): two cells per patch side."""
        deep = self._deep(images)
        fine = (2 * deep[0].shape[2], 2 * deep[0].shape[3])
        parts = [
            F.interpolate(layer(x), size=fine, mode="bilinear", align_corners=False)
            for layer, x in zip(self.project, deep, strict=True)
        ]
        small = F.interpolate(images, size=(2 * fine[0], 2 * fine[1]), mode="area")
        return F.elu(self.join(F.relu(torch.cat((*parts, self.edges(small)), 1))))

    @torch.no_grad()
    def _deep(self, images: Tensor) -> list[Tensor]:
        """Patch tokens of several depths, each of unit variance: (B, D, h, w)."""
        self._seen.clear()
        out = self.classifier(images)
        n = out.patches.shape[1]
        tokens = [*(x[:, :n] for x in self._seen), out.patches]
        self._seen.clear()
        return [F.layer_norm(x.float(), x.shape[-1:]).transpose(1, 2).unflatten(2, out.grid) for x in tokens]


AffinityNetwork = AffinityNet | ViTAffinity


def build_affinity(config: HeadAffinity, classifier: Path, pretrained: bool = True) -> AffinityNetwork:
    """classifier: the checkpoint that a head is built on. UserError for a head on a CNN."""
    if isinstance(config, NetAffinity):
        backbone = ResNet38(config.channels, frozen_stages=2 if config.weights else 0)
        if config.weights and pretrained:
            load_backbone(backbone, config.weights)
        return AffinityNet(backbone)
    network, _ = load_network(classifier)
    if not isinstance(network.backbone, VisionTransformer):
        raise UserError('affinity.kind = "head" needs a ViT, and this classifier is a CNN; set affinity.kind = "net"')
    return ViTAffinity(network)


def save_affinity(path: Path, network: AffinityNetwork, config: HeadAffinity) -> None:
    tensors = {key: value for key, value in network.state_dict().items() if not key.startswith("classifier.")}
    save_tensors(path, tensors, {"affinity": config.model_dump(mode="json")})


def load_affinity(path: Path, classifier: Path) -> AffinityNetwork:
    """A trained affinity network, written by this version or 0.1.0. classifier: see `build_affinity`."""
    tensors, header = load_tensors(path)
    if "affinity" not in header:
        raise CheckpointError(f"{path}: not an affinity network; run the stage 'affinity' first")
    with fitting(path):
        section = modern({"affinity": header["affinity"]}, str(path))["affinity"]
        config = AFFINITIES[section["kind"]].model_validate_json(json.dumps(section))
        assert isinstance(config, HeadAffinity)
        network = build_affinity(config, classifier, pretrained=False)
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    lost = [key for key in missing if not key.startswith("classifier.")]
    if lost or unexpected:
        raise CheckpointError(f"{path}: does not fit the classifier beside it; run the stage 'affinity' again")
    return network


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
