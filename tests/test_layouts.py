"""Checkpoints of other libraries, on random weights in their key names: the same network whatever the layout."""

from __future__ import annotations

import pytest
import torch
from helpers import network_of
from safetensors.torch import save_file

from mupvss.data.preprocess import MEAN, STD
from mupvss.errors import WeightsError
from mupvss.model.pretrained import load_backbone, to_timm
from mupvss.model.vit import SIZES, VisionTransformer
from mupvss.options import ViTConfig


def backbone(registers=0, layer_scale=False, patch=14, image=42):
    torch.manual_seed(registers)
    vit = VisionTransformer(SIZES["tiny"], patch, image, 0.0, registers, layer_scale)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return vit


def as_transformers(state):
    """The key names of the library transformers, for DINOv2."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        key = key.replace("blocks.", "encoder.layer.").replace(".ls1.gamma", ".layer_scale1.lambda1")
        key = key.replace(".ls2.gamma", ".layer_scale2.lambda1").replace("attn.proj", "attention.output.dense")
        key = {"cls_token": "embeddings.cls_token", "reg_token": "embeddings.register_tokens"}.get(key, key)
        key = {"pos_embed": "embeddings.position_embeddings"}.get(key, key)
        key = key.replace("norm.", "layernorm.") if key.startswith("norm.") else key
        if "attn.qkv" in key:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[key.replace("attn.qkv", f"attention.attention.{name}")] = part.clone()
        else:
            renamed[key] = value
    return renamed | {"embeddings.mask_token": torch.zeros(1, 192)}


def as_dinov2(state):
    """The key names of DINOv2's own repository."""
    return {k.replace("reg_token", "register_tokens"): v for k, v in state.items()} | {"mask_token": torch.zeros(1, 192)}


def as_vit(state):
    """The key names of the library transformers, for ViT and DeiT."""
    renamed = {}
    for key, value in as_transformers(state).items():
        key = key.replace(".norm1.", ".layernorm_before.").replace(".norm2.", ".layernorm_after.")
        key = key.replace(".mlp.fc1.", ".intermediate.dense.").replace(".mlp.fc2.", ".output.dense.")
        renamed[f"vit.{key}"] = value
    return renamed


@pytest.mark.parametrize("layout", [dict, as_dinov2, as_transformers])
def test_dinov2_with_registers(tmp_path, layout):
    source = backbone(4, True)
    save_file(layout(source.state_dict()), tmp_path / "w.safetensors")
    target = backbone(4, True)
    load_backbone(target, str(tmp_path / "w.safetensors"))
    for key, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[key], value)


def test_vit_of_transformers(tmp_path):
    source = backbone(patch=16, image=32)
    save_file(as_vit(source.state_dict()), tmp_path / "w.safetensors")
    target = backbone(patch=16, image=32)
    load_backbone(target, str(tmp_path / "w.safetensors"))
    for key, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[key], value)


def test_positions_without_the_class_token():
    """timm's models with registers: the class token has no position, the patches keep theirs."""
    table = torch.randn(1, 9, 192)
    found = to_timm({"pos_embed": table})["pos_embed"]
    assert found.shape == (1, 10, 192)
    assert torch.equal(found[:, 1:], table)
    assert found[:, 0].abs().sum() == 0


@pytest.mark.parametrize(("registers", "layer_scale", "message"), [(0, True, "registers = 4"), (4, False, "layer_scale = true")])
def test_what_would_be_lost_is_an_error(tmp_path, registers, layer_scale, message):
    save_file(backbone(4, True).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_backbone(backbone(registers, layer_scale), str(tmp_path / "w.safetensors"))


def test_other_pixels_are_folded_in(tmp_path):
    source = backbone(patch=16, image=32)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    target = backbone(patch=16, image=32)
    load_backbone(target, str(tmp_path / "w.safetensors"), "half")
    pixels = torch.rand(2, 3, 32, 32)
    ours = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(target.patch_embed(ours), source.patch_embed((pixels - 0.5) / 0.5), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["mupvss", "vit-cam", "mctformer"])
def test_patch_14_with_registers_and_layer_scale_runs(tmp_path, method):
    save_file(as_dinov2(backbone(4, True).state_dict()), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    config = ViTConfig(patch_size=14, image_size=56, registers=4, layer_scale=True, weights=weights)
    own = {"global_embedding": "pool"} if method == "mupvss" else {}
    out = network_of(method, 3, config, **own)(torch.randn(2, 3, 56, 70), need_attention=True)
    assert out.grid == (4, 5)
    assert out.patch_attention.shape == (2, 20, 20)  # registers are not patches


def test_registers_change_the_patches():
    """They are seen by the blocks, or they could not take up what belongs to no patch."""
    network = network_of("vit-cam", 3, ViTConfig(backbone="micro", image_size=32, registers=2)).eval()
    images = torch.randn(1, 3, 32, 32)
    before = network(images).patches
    torch.nn.init.normal_(network.backbone.reg_token, std=3.0)
    assert not torch.allclose(network(images).patches, before)
