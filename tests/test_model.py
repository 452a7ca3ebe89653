"""The network's parts against slow loops, and the contracts of every backbone and choice."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import TINY_VIT, network_of
from safetensors.torch import load_file, save_file

from mupvss.data.images import read_image
from mupvss.data.preprocess import normalise
from mupvss.data.tags import read_tags
from mupvss.errors import WeightsError
from mupvss.model.build import is_decayed, is_new
from mupvss.model.global_embedding import GlobalEmbedding
from mupvss.model.pretrained import load_backbone, locate, read_state
from mupvss.model.prototype_embedding import PrototypeEmbedding, prototype_weights
from mupvss.model.vit import SIZES, VisionTransformer
from mupvss.ops import gwrp, rescaled_decay
from mupvss.options import PEMConfig, ViTConfig

PEM_FORMS = [
    PEMConfig(),
    PEMConfig(logits="dot", temperature=1.0, threshold=0.3, gate="open"),
    PEMConfig(logits="dot", temperature=2.0, threshold=1e6, gate="open"),  # every row masked whole
    PEMConfig(temperature=0.05, threshold=0.2, gate="open"),
    PEMConfig(gate="open", softmax="other"),
    PEMConfig(gate="open", softmax="other", threshold=0.4, nearest=2),
    PEMConfig(gate="open", nearest=2, lengths="matched"),
]


def pem_in_loops(patches, prototypes, config):
    """Printed formula, one entry at a time."""
    n, c = len(patches), len(prototypes)
    z = torch.cat((patches, prototypes))
    weights = torch.zeros(n + c, n + c, dtype=z.dtype)
    for i in range(n + c):
        row = {}
        for j in range(n + c):
            a = z[i] @ z[j]
            if config.logits == "cosine":
                a = a / (z[i].norm() * z[j].norm())
            if a > config.threshold and (config.softmax == "all" or (i < n) != (j < n)):
                row[j] = math.exp(a / config.temperature - 30)
        shares = {j: value / sum(row.values()) for j, value in row.items()}
        taken = {j: share for j, share in shares.items() if (i < n) != (j < n)}
        largest = sorted(taken, key=taken.__getitem__, reverse=True)[: config.nearest or None]
        for j in largest:
            weights[i, j] = taken[j] * sum(taken.values()) / sum(taken[k] for k in largest)
    return weights[:n, n:], weights[n:, :n]


@pytest.mark.parametrize("config", PEM_FORMS)
def test_pem_equals_the_formula(config):
    generator = torch.Generator().manual_seed(0)
    patches, prototypes = torch.randn(2, 7, 6, generator=generator), torch.randn(2, 3, 6, generator=generator)
    fast = prototype_weights(patches, prototypes, config)
    for b in range(2):
        for quick, slow in zip(fast, pem_in_loops(patches[b].double(), prototypes[b].double(), config), strict=True):
            torch.testing.assert_close(quick[b].double(), slow, atol=1e-5, rtol=1e-4)
    module = PrototypeEmbedding(config)
    f, p = module(patches, prototypes)
    if config.gate == "learned":  # starts closed
        assert torch.equal(f, patches)
        assert torch.equal(p, prototypes)
    elif config.lengths == "own":
        torch.testing.assert_close(f, patches + fast[0] @ prototypes)
        torch.testing.assert_close(p, prototypes + fast[1] @ patches)
    else:  # a mean of directions, as long as the token that takes it
        unit_f, unit_p = (x / x.norm(dim=-1, keepdim=True) for x in (patches, prototypes))
        torch.testing.assert_close(f, patches + patches.norm(dim=-1, keepdim=True) * (fast[0] @ unit_p))
        torch.testing.assert_close(p, prototypes + prototypes.norm(dim=-1, keepdim=True) * (fast[1] @ unit_f))


def test_pem_can_leave_one_side_as_it_is():
    patches, prototypes = torch.randn(1, 5, 6), torch.randn(1, 3, 6)
    whole = PrototypeEmbedding(PEMConfig(gate="open"))(patches, prototypes)
    assert not torch.equal(whole[0], patches)
    assert not torch.equal(whole[1], prototypes)
    f, p = PrototypeEmbedding(PEMConfig(gate="open", enriched="patches"))(patches, prototypes)
    assert torch.equal(f, whole[0])
    assert torch.equal(p, prototypes)
    f, p = PrototypeEmbedding(PEMConfig(gate="open", enriched="prototypes"))(patches, prototypes)
    assert torch.equal(f, patches)
    assert torch.equal(p, whole[1])


@pytest.mark.parametrize("config", PEM_FORMS)
def test_pem_gradients_are_finite(config):
    patches, prototypes = (50 * torch.randn(1, 5, 6)).requires_grad_(), (50 * torch.randn(1, 3, 6)).requires_grad_()
    sum(x.square().sum() for x in PrototypeEmbedding(config)(patches, prototypes)).backward()
    assert torch.isfinite(patches.grad).all()
    assert torch.isfinite(prototypes.grad).all()


def test_gwrp_in_loops_and_its_rescaling():
    scores = torch.randn(2, 3, 10)
    for b in range(2):
        for c in range(3):
            ranked = sorted(scores[b, c].tolist(), reverse=True)
            slow = sum(0.9**k * s for k, s in enumerate(ranked)) / sum(0.9**k for k in range(10))
            assert gwrp(scores, 0.9)[b, c].item() == pytest.approx(slow, abs=1e-5)
    assert rescaled_decay(0.996, 784, 196) == pytest.approx(0.984, abs=1e-3)
    assert rescaled_decay(0.996, 0, 196) == 0.996


@pytest.mark.parametrize("reading", ["flatten", "pool"])
@pytest.mark.parametrize("width", [192, 384, 768])
def test_global_embedding_has_one_convolution_per_class(reading, width):
    module = GlobalEmbedding(3, width, 16, reading)
    images = torch.randn(2, 3, 64, 80)
    before = module(images)
    assert before.shape == (2, 3, width)
    per_class = module.conv.out_channels // 3
    with torch.no_grad():
        module.conv.weight[per_class : 2 * per_class].normal_()
    changed = (module(images) - before).abs().amax((0, 2)) > 1e-4
    assert changed.tolist() == [False, True, False]


def test_flattened_reading_says_what_width_it_needs():
    with pytest.raises(ValueError, match="multiple of 64"):
        GlobalEmbedding(3, 100, 16, "flatten")


WITH_EXTRAS = [*((name, {}) for name in SIZES), ("micro", {"registers": 2, "layer_scale": True})]


@pytest.mark.parametrize(("backbone", "extra"), WITH_EXTRAS)
@pytest.mark.parametrize("method", ["mupvss", "vit-cam", "mctformer"])
def test_every_backbone_takes_any_size_and_learns(backbone, method, extra):
    network = network_of(method, 4, ViTConfig(backbone=backbone, image_size=32, **extra))
    images = torch.randn(2, 3, 32, 64)
    out = network(images, need_attention=True)
    assert out.grid == (2, 4)
    assert out.patches.shape == (2, 8, SIZES[backbone].width)
    assert out.patch_logits.shape == (2, 4, 8)
    assert out.patch_attention.shape == (2, 8, 8)
    total = out.patch_score.sum()
    if method == "mupvss":
        assert out.prototypes.shape == (2, 4, SIZES[backbone].width)
        assert out.class_attention.shape == (2, 4, 8)
        total = total + out.token_score.sum() + out.prototypes.square().sum() + network.p2p_scale + network.p2p_bias.sum()
    if method == "mctformer":
        assert out.prototypes is None
        assert out.class_attention.shape == (2, 4, 8)
        assert out.block_tokens.shape == (SIZES[backbone].depth, 2, 4, SIZES[backbone].width)
        total = total + out.token_score.sum()
    total.backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("choice", ["flatten", "pool", "copy"])
@pytest.mark.parametrize("blocks", ["all", "late", "last", "none"])
def test_every_choice_of_representation_runs(choice, blocks):
    small = ViTConfig(backbone="tiny", image_size=32)
    network = network_of(model=small, global_embedding=choice, pem=PEMConfig(blocks=blocks))
    assert len(network.pem) == {"all": 12, "late": 4, "last": 1, "none": 0}[blocks]
    prototypes = network(torch.randn(2, 3, 32, 32)).prototypes
    distance = (prototypes[:, 0] - prototypes[:, 1]).norm()
    assert distance > 1e-3  # copied tokens too: equal ones could never part


def test_attention_weights_do_not_change_the_output():
    network = network_of(model=ViTConfig(backbone="tiny", image_size=64)).eval()
    images = torch.randn(1, 3, 352, 352)  # 484 patches: the fused attention on one side, the explicit on the other
    with torch.no_grad():
        quick, explicit = network(images), network(images, need_attention=True)
    torch.testing.assert_close(quick.patches, explicit.patches, atol=2e-4, rtol=1e-3)
    assert explicit.patch_attention.sum(-1).max() <= 1 + 1e-4


def test_images_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="30x32"):
        network_of(model=ViTConfig(image_size=32))(torch.randn(1, 3, 30, 32))


def test_parameter_groups():
    assert is_new("head.conv.weight", pretrained=True)
    assert not is_new("backbone.blocks.0.attn.qkv.weight", pretrained=True)
    assert not is_new("head.conv.weight", pretrained=False)
    network = network_of()
    decayed = {name for name, p in network.named_parameters() if is_decayed(name, p)}
    assert "backbone.blocks.0.mlp.fc1.weight" in decayed
    assert not decayed & {"backbone.pos_embed", "backbone.cls_token", "class_position", "head.conv.bias", "p2p_scale"}


def small_backbone(image_size=32):
    return VisionTransformer(SIZES["tiny"], 16, image_size, 0.0)


def test_loads_timm_names_from_safetensors_and_pth(tmp_path):
    source = small_backbone(48)
    state = {k: v.half() for k, v in source.state_dict().items()} | {"head.weight": torch.zeros(3, 192)}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"model": state}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        target = small_backbone(32)  # position embeddings 3x3 -> 2x2
        load_backbone(target, str(tmp_path / name))
        torch.testing.assert_close(target.blocks[3].mlp.fc1.weight, state["blocks.3.mlp.fc1.weight"].float())
        assert target.pos_embed.shape == (1, 5, 192)
        torch.testing.assert_close(target.pos_embed[:, 0], state["pos_embed"].float()[:, 0])


def test_weights_errors_say_what_to_do(tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    torch.save({"model": [object]}, tmp_path / "objects.pth")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    small = VisionTransformer(SIZES["small"], 16, 32, 0.0)
    save_file(dict(small.state_dict()), tmp_path / "small.safetensors")
    cases = {
        "torn.safetensors": "not a readable checkpoint",
        "objects.pth": "more than tensors",
        "other.safetensors": "lacks",
        "small.safetensors": "width 384",
        "absent.safetensors": "no such weights",
    }
    for name, message in cases.items():
        with pytest.raises(WeightsError, match=message):
            load_backbone(small_backbone(), str(tmp_path / name))


def test_a_pickled_object_is_never_run(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError):
        read_state(tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


def test_a_url_needs_its_hash():
    with pytest.raises(WeightsError, match="sha256"):
        locate("https://example.invalid/w.safetensors")


def test_real_deit_checkpoint_knows_dogs(shared):
    """Through our blocks and the checkpoint's own head, pictures of dogs get one of ImageNet's dog classes."""
    path = shared / "weights" / "deit_tiny_patch16_224.safetensors"
    backbone = VisionTransformer(SIZES["tiny"], 16, 224, 0.0)
    load_backbone(backbone, str(path))
    raw = {key: value.float() for key, value in load_file(path).items()}
    root = shared / "voc-animals"
    table = read_tags(root / "tags.csv").tags
    names = [name for name, tags in table.items() if tags == {"dog"}][:20]
    pictures = [read_image(root / "VOC2012" / "JPEGImages" / name).resize((224, 224)) for name in names]
    with torch.no_grad():
        x, _ = backbone.embed(torch.stack([normalise(picture) for picture in pictures]))
        x = torch.cat(((backbone.cls_token + backbone.pos_embed[:, :1]).expand(len(x), -1, -1), x), 1)
        for block in backbone.layers():
            x = block.mlp_unit(block.attention_unit(x)[0])
        found = (backbone.norm(x)[:, 0] @ raw["head.weight"].t() + raw["head.bias"]).argmax(-1)
    assert ((found >= 151) & (found <= 268)).sum() >= 14  # ImageNet's 118 breeds


def test_patches_that_do_not_see_the_prototypes():
    """Whatever prototypes are, patches and registers stay the same; prototypes see patches all the same. With the attention's
    weights or without them."""
    torch.manual_seed(0)
    config = TINY_VIT.model_copy(update={"registers": 2})
    images = torch.randn(2, 3, 32, 48)
    for seen in (True, False):
        network = network_of("mupvss", 3, config, prototypes_seen=seen, token_start="zero").eval()
        for parameter in network.backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        before = network(images), network(images, need_attention=True)
        torch.testing.assert_close(before[0].patches, before[1].patches)
        assert before[1].class_attention.sum(-1).min() > 0.01
        torch.nn.init.normal_(network.class_position, std=3.0)
        after = network(images)
        assert not torch.allclose(before[0].prototypes, after.prototypes, atol=1e-3)
        assert torch.allclose(before[0].patches, after.patches, atol=1e-6) != seen
    assert before[1].patch_attention.sum(-1).max() < 1 + 1e-5


def test_the_fused_attention_hides_the_same_tokens(monkeypatch):
    torch.manual_seed(0)
    network = network_of("mupvss", 3, prototypes_seen=False).eval()
    images = torch.randn(1, 3, 32, 32)
    explicit = network(images).prototypes
    monkeypatch.setattr("mupvss.model.vit.EXPLICIT_TOKENS", 0)
    torch.testing.assert_close(network(images).prototypes, explicit, atol=1e-5, rtol=1e-4)
