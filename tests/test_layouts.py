"""Checkpoints of other libraries, on random weights in their key names: the same network whatever the layout."""

from __future__ import annotations

import re

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


def test_deit_3_as_its_authors_publish_it(tmp_path):
    """LayerScale is called gamma_1 and gamma_2 there, and the class token has no position."""
    source = backbone(layer_scale=True, patch=16, image=32)
    state = {re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", key): value for key, value in source.state_dict().items()}
    state["pos_embed"] = state["pos_embed"][:, 1:]
    torch.save({"model": state}, tmp_path / "w.pth")
    target = backbone(layer_scale=True, patch=16, image=32)
    load_backbone(target, str(tmp_path / "w.pth"))
    torch.testing.assert_close(target.blocks[0].ls1.gamma, source.blocks[0].ls1.gamma)
    with pytest.raises(WeightsError, match="layer_scale = true"):
        load_backbone(backbone(patch=16, image=32), str(tmp_path / "w.pth"))


@pytest.mark.parametrize("image", [32, 48])
def test_a_distillation_token_is_left_out_with_its_position(tmp_path, image):
    source = backbone(patch=16, image=32)
    state = dict(source.state_dict())
    table = state["pos_embed"]
    state["pos_embed"] = torch.cat((table[:, :1], torch.full_like(table[:, :1], 9.0), table[:, 1:]), 1)
    state |= {"dist_token": torch.zeros(1, 1, 192), "head_dist.weight": torch.zeros(3, 192), "head.weight": torch.zeros(3, 192)}
    save_file(state, tmp_path / "w.safetensors")
    target = backbone(patch=16, image=image)
    load_backbone(target, str(tmp_path / "w.safetensors"))
    assert target.pos_embed.abs().max() < 5
    if image == 32:
        torch.testing.assert_close(target.pos_embed, source.pos_embed)


@pytest.mark.parametrize("name", ["norm_pre.weight", "blocks.0.attn.q_norm.weight", "rope.freqs"])
def test_layers_that_have_no_place_are_an_error(tmp_path, name):
    save_file(
        {**backbone(patch=16, image=32).state_dict(), name: torch.ones(3), "mask_token": torch.ones(3)},
        tmp_path / "w.safetensors",
    )
    with pytest.raises(WeightsError, match=f"no place for, the first is '{name}'"):
        load_backbone(backbone(patch=16, image=32), str(tmp_path / "w.safetensors"))


def test_positions_of_no_square_and_pointers_say_so(tmp_path):
    state = dict(backbone(patch=16, image=32).state_dict())
    save_file({**state, "pos_embed": torch.zeros(1, 1 + 6, 192)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="positions of 6 patches, which are no square"):
        load_backbone(backbone(patch=16, image=32), str(tmp_path / "w.safetensors"))
    for name in ("p.safetensors", "p.pth"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        with pytest.raises(WeightsError, match="a Git LFS pointer"):
            load_backbone(backbone(patch=16, image=32), str(tmp_path / name))
