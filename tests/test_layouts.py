"""Checkpoints of other libraries, on random weights in their key names: the same network whatever the layout."""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import network_of
from safetensors import safe_open
from safetensors.torch import save_file

from mupvss.data.preprocess import MEAN, STD
from mupvss.errors import UserError, WeightsError
from mupvss.model.pretrained import load_backbone, to_timm
from mupvss.model.vit import SIZES, VisionTransformer, ViTSize, rotated
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


@pytest.mark.parametrize(
    ("name", "mean", "deviation"),
    [("half", 0.5, 0.5), ("clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))],
)
def test_other_pixels_are_folded_in(tmp_path, name, mean, deviation):
    source = backbone(patch=16, image=32)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    target = backbone(patch=16, image=32)
    load_backbone(target, str(tmp_path / "w.safetensors"), name)
    pixels = torch.rand(2, 3, 32, 32)
    ours = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    mean, deviation = (torch.tensor(values).expand(3).view(3, 1, 1) for values in (mean, deviation))
    torch.testing.assert_close(target.patch_embed(ours), source.patch_embed((pixels - mean) / deviation), atol=1e-4, rtol=1e-3)


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


def theirs(name):
    """A model of the library transformers with random weights, of the shape of ViT-Ti, and ours that should be equal."""
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 192, "num_attention_heads": 3, "num_hidden_layers": 12, "image_size": 64}
    wide = {**shape, "intermediate_size": 768, "patch_size": 16}
    kinds = {
        "ViT": (wide, {}),
        "Dinov2": ({**shape, "mlp_ratio": 4, "patch_size": 16}, {"layer_scale": True}),
        "Dinov2WithRegisters": (
            {**shape, "mlp_ratio": 4, "patch_size": 16, "num_register_tokens": 4},
            {"layer_scale": True, "registers": 4},
        ),
        "DINOv3ViT": ({**wide, "num_register_tokens": 4}, {"layer_scale": True, "registers": 4, "rotary": True}),
    }
    settings, own = kinds[name]
    config = getattr(transformers, f"{name}Config")(**settings)
    # The others' default of 1e-12 is not that of the published checkpoints' authors.
    if hasattr(config, "layer_norm_eps") and name != "DINOv3ViT":
        config.layer_norm_eps = 1e-6
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2 if parameter.dim() > 1 else 1.0)
    return model, own


@torch.no_grad()
def tokens(vit, images):
    """(B, T, D) after the last norm: class token, registers, patches."""
    patches, grid = vit.embed(images)
    x = torch.cat((patches, vit.class_token().expand(len(images), -1, -1), vit.registers(len(images))), 1)
    for block in vit.layers():
        x = block.mlp_unit(block.attention_unit(x, rotation=vit.rotation(grid))[0])
    x = vit.norm(x)
    n = patches.shape[1]
    assert n == grid[0] * grid[1]
    return torch.cat((x[:, n:], x[:, :n]), 1)


# Not DeiT with its distillation token, which takes part in every block there. DINOv2 with registers smooths positions when it
# resizes them, which no other ViT does.
SAME = [(name, grid) for name in ("ViT", "Dinov2", "Dinov2WithRegisters", "DINOv3ViT") for grid in ((4, 4), (3, 6))]
SAME.remove(("Dinov2WithRegisters", (3, 6)))


@pytest.mark.parametrize(("name", "grid"), SAME)
def test_equal_to_the_models_of_transformers(tmp_path, name, grid):
    """Patches, class token and registers after the last norm, also of pictures of another shape than the positions'."""
    model, own = theirs(name)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    ours = VisionTransformer(SIZES["tiny"], 16, 64, 0.0, **own).eval()
    load_backbone(ours, str(tmp_path / "w.safetensors"))
    images = torch.randn(2, 3, 16 * grid[0], 16 * grid[1])
    several = {} if name in ("DINOv3ViT", "Dinov2", "Dinov2WithRegisters") else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        expected = model(pixel_values=images, **several).last_hidden_state
    found = tokens(ours, images)
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 1e-5 * scale


def as_dinov3(state):
    """The key names of DINOv3's own repository: registers, periods, and a bias of which a mask leaves out the keys' part."""
    found = {key.replace("reg_token", "storage_tokens"): value for key, value in state.items()}
    for i in range(12):
        bias = found[f"blocks.{i}.attn.qkv.bias"]
        mask = torch.cat((torch.ones(192), torch.zeros(192), torch.ones(192)))
        found[f"blocks.{i}.attn.qkv.bias_mask"] = mask
        found[f"blocks.{i}.attn.qkv.bias"] = torch.where(mask > 0, bias, 7.0)
    return found | {"mask_token": torch.zeros(1, 192), "rope_embed.periods": 100 ** (torch.arange(16) / 16)}


def as_timm_dinov3(state, biases=True):
    """timm's: no bias of the keys, or none at all, and other names of LayerScale."""
    found = {re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", key): value for key, value in state.items()}
    for i in range(12):
        bias = found.pop(f"blocks.{i}.attn.qkv.bias")
        if biases:
            found[f"blocks.{i}.attn.q_bias"], found[f"blocks.{i}.attn.v_bias"] = bias[:192].clone(), bias[384:].clone()
    return found | {"rope.periods": 100 ** (torch.arange(16) / 16)}


def rotary():
    torch.manual_seed(0)
    vit = VisionTransformer(SIZES["tiny"], 16, 32, 0.0, 4, True, rotary=True)
    for name, parameter in vit.named_parameters():
        torch.nn.init.normal_(parameter, std=0.1)
        if name.endswith("qkv.bias"):
            parameter.data[192:384] = 0
    return vit


@pytest.mark.parametrize("layout", [dict, as_dinov3, as_timm_dinov3])
def test_dinov3_in_the_layouts_of_its_authors_and_of_timm(tmp_path, layout):
    source = rotary()
    save_file({key: value.contiguous() for key, value in layout(source.state_dict()).items()}, tmp_path / "w.safetensors")
    target = VisionTransformer(SIZES["tiny"], 16, 32, 0.0, 4, True, rotary=True)
    load_backbone(target, str(tmp_path / "w.safetensors"))
    for key, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[key], value)
    assert "pos_embed" not in target.state_dict()


def test_attention_without_any_bias(tmp_path):
    source = rotary()
    save_file(as_timm_dinov3(source.state_dict(), biases=False), tmp_path / "w.safetensors")
    target = VisionTransformer(SIZES["tiny"], 16, 32, 0.0, 4, True, rotary=True)
    load_backbone(target, str(tmp_path / "w.safetensors"))
    assert not target.blocks[0].attn.qkv.bias.any()


def test_positions_that_do_not_fit_are_said(tmp_path):
    save_file(dict(rotary().state_dict()), tmp_path / "rotary.safetensors")
    save_file(dict(backbone(4, True, 16, 32).state_dict()), tmp_path / "table.safetensors")
    with pytest.raises(WeightsError, match=r'set model\.position = "rotary"'):
        load_backbone(backbone(4, True, 16, 32), str(tmp_path / "rotary.safetensors"))
    with pytest.raises(WeightsError, match=r'set model\.position = "table"'):
        load_backbone(rotary(), str(tmp_path / "table.safetensors"))


def test_rotation_in_loops():
    """Pairs of channels of a patch turn by its place; class tokens and registers stay."""
    vit = rotary()
    cosine, sine = vit.rotation((2, 3))
    x = torch.randn(1, 3, 8, 64)
    found = rotated(x, (cosine, sine))
    torch.testing.assert_close(found[:, :, 6:], x[:, :, 6:])
    for row in range(2):
        for column in range(3):
            n = row * 3 + column
            for k in range(32):
                place = (2 * (row + 0.5) / 2 - 1) if k < 16 else (2 * (column + 0.5) / 3 - 1)
                angle = torch.tensor(2 * math.pi * place / 100 ** ((k % 16) / 16))
                a, b = x[0, 1, n, k], x[0, 1, n, k + 32]
                torch.testing.assert_close(found[0, 1, n, k], a * angle.cos() - b * angle.sin(), atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(found[0, 1, n, k + 32], b * angle.cos() + a * angle.sin(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["mupvss", "vit-cam", "mctformer"])
def test_dinov3_runs_in_every_method(tmp_path, method):
    save_file(as_dinov3(rotary().state_dict()), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    config = ViTConfig(image_size=32, registers=4, layer_scale=True, position="rotary", weights=weights)
    network = network_of(method, 3, config)
    out = network(torch.randn(2, 3, 32, 48), need_attention=True)
    assert out.patch_attention.shape == (2, 6, 6)  # registers are not patches
    loss = out.patch_score.sum()
    loss.backward()
    assert network.backbone.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_other_rotary_networks_are_refused(tmp_path):
    """Their tensors have the same names, and their rotations differ."""
    state = dict(rotary().state_dict())
    save_file({key: value + 1 if key.endswith("qkv.bias") else value for key, value in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="its keys have a bias"):
        load_backbone(rotary(), str(tmp_path / "w.safetensors"))
    del state["reg_token"]
    save_file(state, tmp_path / "w.safetensors")
    target = VisionTransformer(SIZES["tiny"], 16, 32, 0.0, 0, True, rotary=True)
    with pytest.raises(WeightsError, match="has no registers"):
        load_backbone(target, str(tmp_path / "w.safetensors"))


def test_two_networks_in_one_file(tmp_path):
    state = dict(backbone(patch=16, image=32).state_dict())
    save_file(state | {f"module.{key}": value + 1 for key, value in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"w\.safetensors: holds two networks"):
        load_backbone(backbone(patch=16, image=32), str(tmp_path / "w.safetensors"))


LAYOUTS = {
    "lightning": lambda s: {f"model.{k}": v for k, v in s.items()},
    "ddp": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "heads": lambda s: s | {"head.weight": torch.zeros(3, 192), "fc.bias": torch.zeros(3), "pooler.dense.weight": torch.zeros(3)},
    "half": lambda s: {k: v.half() for k, v in s.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prefixes_and_heads(tmp_path, layout):
    source = backbone(patch=16, image=32)
    save_file(LAYOUTS[layout](dict(source.state_dict())), tmp_path / "w.safetensors")
    target = backbone(patch=16, image=32)
    load_backbone(target, str(tmp_path / "w.safetensors"))
    for key, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[key], value, atol=1e-3, rtol=1e-3)


OTHER = {
    "q and k normalised": {f"blocks.{i}.attn.q_norm.weight": torch.ones(64) for i in range(12)},
    "norm before the blocks": {"norm_pre.weight": torch.ones(192)},
    "relative positions": {"blocks.0.attn.relative_position_bias_table": torch.zeros(3, 3)},
    "gated MLP": {"blocks.0.mlp.fc1_g.weight": torch.zeros(3, 3)},
    "norm inside the attention": {"blocks.0.attn.norm.weight": torch.zeros(192)},
    "norm inside the MLP": {"blocks.0.mlp.norm.weight": torch.zeros(3)},
    "second norm": {"local_cls_norm.weight": torch.zeros(192)},
}


@pytest.mark.parametrize("name", OTHER)
def test_networks_of_another_kind_are_refused_by_name(tmp_path, name):
    save_file(dict(backbone(patch=16, image=32).state_dict()) | OTHER[name], tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=re.escape(next(iter(sorted(OTHER[name]))))):
        load_backbone(backbone(patch=16, image=32), str(tmp_path / "w.safetensors"))


TIMM = Path(__file__).parent / "fixtures" / "timm-1.0.31.safetensors"
"""Tokens after the last norm that models of timm 1.0.31 gave with the weights of `pattern`; and, as metadata, the names and
shapes of their weights, of blocks the first alone, since the others have the same. Made once, in an environment of its own:

    model = timm.create_model(NAME, embed_dim=192, num_heads=3, img_size=SIDE, num_classes=0).eval()
    model.load_state_dict({key: pattern(key, value.shape) for key, value in model.state_dict().items()})
    model.forward_features(torch.from_numpy(np.cos(np.arange(3 * SIDE * SIDE) * 0.37).reshape(1, 3, SIDE, SIDE)).float())

EVA-02 base has its own width and two blocks in place of the sizes above, and its first six tokens are stored; EVA-02's last norm
is `model.fc_norm`.
"""


def pattern(name, shape):
    """Weights that need not be stored: they follow from their name."""
    start = zlib.crc32(name.encode()) % 1000
    wave = np.sin((np.arange(int(np.prod(shape))) + start) * 0.7548776662466927)
    wave = 0.1 * wave if len(shape) > 1 else 0.5 + 0.25 * wave
    return torch.from_numpy(wave.astype(np.float32).reshape(shape))


def weights_of_timm(name, depth=12):
    with safe_open(TIMM, "pt") as stored:
        first = json.loads(stored.metadata()[name])
        expected = stored.get_tensor(name) if name in stored.keys() else None  # noqa: SIM118
    keys = {key.replace("blocks.0.", f"blocks.{i}.") for key in first for i in range(depth)}
    return {key: pattern(key, first[re.sub(r"blocks\.\d+\.", "blocks.0.", key)]) for key in keys}, expected


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("vit_tiny_patch16_224", {}),  # DeiT, AugReg and DINO v1 have this layout
        ("deit3_small_patch16_224", {"layer_scale": True}),
        ("vit_small_patch14_dinov2", {"layer_scale": True}),
        ("vit_small_patch14_reg4_dinov2", {"layer_scale": True, "registers": 4}),
        ("vit_small_patch16_dinov3", {"layer_scale": True, "registers": 4, "rotary": True}),
        ("vit_small_patch16_dinov3_qkvb", {"layer_scale": True, "registers": 4, "rotary": True}),
        ("eva02_tiny_patch14_224", {"eva02": True}),
        ("eva02_base_patch14_224", {"eva02": True}),
    ],
)
def test_equal_to_the_models_of_timm(tmp_path, name, own):
    size = ViTSize(768, 2, 12) if "base" in name else SIZES["tiny"]
    weights, expected = weights_of_timm(name, size.depth)
    save_file(weights, tmp_path / "w.safetensors")
    patch = 14 if "patch14" in name else 16
    side = 4 * patch
    ours = VisionTransformer(size, patch, side, 0.0, **own).eval()
    load_backbone(ours, str(tmp_path / "w.safetensors"))
    wave = np.cos(np.arange(3 * side * side) * 0.37).astype(np.float32)
    found = tokens(ours, torch.from_numpy(wave.reshape(1, 3, side, side)))[0, : len(expected)]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def eva02(**own):
    return VisionTransformer(SIZES["tiny"], 14, 56, 0.0, **own).eval()


def as_authors_eva02(state):
    """Queries, keys and values apart, biases of their own, and the tables of the rotation."""
    found = {}
    for key, value in state.items():
        stem = key.rpartition("attn.")[0] + "attn."
        if key.endswith("qkv.weight"):
            found |= {f"{stem}{part}_proj.weight": one for part, one in zip("qkv", value.chunk(3), strict=True)}
            found |= {f"{stem}rope.freqs_{part}": torch.ones(16, 64) for part in ("cos", "sin")}
        elif key.endswith("mlp.fc1.weight") or key.endswith("mlp.fc1.bias"):
            names = (key.replace("fc1", "w1"), key.replace("fc1", "w2"))
            found |= dict(zip(names, value.chunk(2), strict=True))
        else:
            found[key.replace("mlp.fc2", "mlp.w3").replace("fc_norm", "norm")] = value
    return {key: value.contiguous() for key, value in found.items()} | {
        "rope.freqs_cos": torch.ones(16, 64),
        "mask_token": torch.ones(1),
    }


def test_eva02_in_the_layout_of_its_authors(tmp_path):
    weights, _ = weights_of_timm("eva02_tiny_patch14_224")
    save_file(weights, tmp_path / "timm.safetensors")
    save_file(as_authors_eva02(weights), tmp_path / "authors.safetensors")
    networks = [eva02(eva02=True), eva02(eva02=True)]
    for network, name in zip(networks, ("timm", "authors"), strict=True):
        load_backbone(network, str(tmp_path / f"{name}.safetensors"))
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_networks_with_gates_are_told_apart(tmp_path):
    weights, _ = weights_of_timm("eva02_tiny_patch14_224")
    path = tmp_path / "w.safetensors"
    save_file(weights, path)
    with pytest.raises(WeightsError, match=r'w\.safetensors: its MLPs are gated.*model\.family = "eva02"'):
        load_backbone(eva02(), str(path))
    for more in (
        {"reg_token": torch.zeros(1, 4, 192)},
        {f"blocks.{i}.ls{k}.gamma": torch.ones(192) for i in range(12) for k in (1, 2)},
    ):
        save_file(weights | more, path)
        own = {"registers": 4} if "reg_token" in more else {"layer_scale": True}
        with pytest.raises(WeightsError, match="EVA-02 alone is known here"):
            load_backbone(eva02(eva02=True, **own), str(path))
    save_file(dict(eva02().state_dict()), path)
    with pytest.raises(WeightsError, match=r'have no gates.*model\.family = "vit"'):
        load_backbone(eva02(eva02=True), str(path))


def test_eva02_learns_and_its_options_go_together(tmp_path):
    save_file(weights_of_timm("eva02_tiny_patch14_224")[0], tmp_path / "w.safetensors")
    options = {
        "patch_size": 14,
        "image_size": 28,
        "family": "eva02",
        "weights_pixels": "clip",
        "weights": str(tmp_path / "w.safetensors"),
    }
    network = network_of("mupvss", 3, ViTConfig(**options), global_embedding="pool")
    out = network(torch.randn(2, 3, 28, 42), need_attention=True)
    out.patch_score.sum().backward()
    assert network.backbone.blocks[0].mlp.fc1.weight.grad.abs().sum() > 0
    for wrong in ({"registers": 4}, {"layer_scale": True}, {"position": "rotary"}):
        with pytest.raises(UserError, match=r'model\.family = "eva02" goes with'):
            network_of("mupvss", 3, ViTConfig(**options, **wrong), global_embedding="pool")
