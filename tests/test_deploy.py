"""Exported networks: the same numbers at any size and batch, through the same predictors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import info_of, knowing, network_of
from PIL import Image

from mupvss import load
from mupvss.cli.main import main
from mupvss.errors import CheckpointError
from mupvss.methods.checkpoint import save_model
from mupvss.options import CNNConfig, DeepLabSegment, PEMConfig, SearchConfig, ViTConfig, ViTSegment
from mupvss.predict.onnx_file import KEY, export_onnx
from mupvss.predict.predictor import Predictor
from mupvss.predict.runtimes import load_runtime
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.segmentation.build import SegmenterInfo, build_segmenter, save_segmenter

pytestmark = pytest.mark.slow

CLASSES = ("cat", "dog", "person")
RUNTIMES = ("onnxruntime", "openvino")
VIT = ViTConfig(backbone="micro", patch_size=8, image_size=32)
METHODS = {
    "mupvss": (VIT.model_copy(update={"registers": 2, "layer_scale": True}), {"pem": PEMConfig(blocks="late")}),
    "mupvss, rotary, hidden": (
        VIT.model_copy(update={"registers": 2, "layer_scale": True, "position": "rotary"}),
        {"prototypes_seen": False},
    ),
    "mctformer": (VIT, {}),
    "mctformer, pooled": (VIT, {"pooling": "attention"}),
    "vit-cam": (VIT, {}),
    "recam": (CNNConfig(backbone="resnet38", channels=1 / 32), {}),
}


def classifier(method):
    torch.manual_seed(0)
    model, own = METHODS[method]
    method = method.split(",")[0]
    network, search = knowing(network_of(method, 3, model, **own).eval()), SearchConfig(scales=(1.0, 2.0), precision="fp32")
    return Predictor(network, info_of(CLASSES, method, model, **own), search, threshold=0.4, device="cpu")


def segmenter(network="vit"):
    torch.manual_seed(0)
    config = ViTSegment(scales=(1.0, 1.5)) if network == "vit" else DeepLabSegment(channels=1 / 32, scales=(1.0, 1.5))
    return SegmentationPredictor(build_segmenter(config, VIT, 3, None), SegmenterInfo(CLASSES, VIT, config), device="cpu")


@pytest.fixture(scope="module", params=["vit", "resnet38"])
def exported_segmenter(request, tmp_path_factory):
    predictor = segmenter(request.param)
    path = tmp_path_factory.mktemp("onnx") / "s.onnx"
    export_onnx(predictor, path)
    return predictor, path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_segmentation_networks(exported_segmenter, runtime):
    predictor, path = exported_segmenter
    network, header = load_runtime(path, runtime)
    assert header["classes"] == list(CLASSES)
    for batch, height, width in ((1, 8, 8), (2, 32, 32), (3, 40, 96), (1, 64, 8)):
        images = torch.randn(batch, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(network(images), predictor.network(images), atol=1e-4, rtol=1e-4)
    other = load(path, runtime=runtime)
    assert isinstance(other, SegmentationPredictor)
    assert (other.scales, other.crf) == (predictor.scales, predictor.crf)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8))
    assert (other(picture).labels == predictor(picture).labels).mean() > 0.99


@pytest.mark.parametrize("method", METHODS)
def test_classifiers(method, tmp_path):
    predictor = classifier(method)
    export_onnx(predictor, tmp_path / "c.onnx")
    for runtime in RUNTIMES:
        network, _ = load_runtime(tmp_path / "c.onnx", runtime)
        for batch, height, width in ((1, 32, 32), (2, 40, 96), (3, 64, 16)):
            images = torch.randn(batch, 3, height, width)
            with torch.no_grad():
                expected, found = predictor.network(images, need_attention=True), network(images, need_attention=True)
            assert found.grid == expected.grid
            for name, value in vars(expected).items():
                if torch.is_tensor(value) and name != "block_tokens":
                    torch.testing.assert_close(getattr(found, name), value, atol=1e-4, rtol=1e-4)
        other = load(tmp_path / "c.onnx", runtime=runtime)
        assert isinstance(other, Predictor)
        assert (other.kinds, other.kind, other.threshold) == (predictor.kinds, predictor.kind, 0.4)
        assert (other.config, other.options) == (predictor.config, predictor.options)
        picture = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
        assert other(picture, ["dog"]).scores == pytest.approx(predictor(picture, ["dog"]).scores, abs=1e-4)


def test_the_command_checks_what_it_wrote(tmp_path, capsys):
    predictor = classifier("mupvss")
    save_model(tmp_path / "model.safetensors", predictor.network, predictor.info)
    assert main(["export", str(tmp_path / "model.safetensors"), str(tmp_path / "m.onnx")]) == 0
    said = capsys.readouterr().out
    assert "onnxruntime" in said
    assert "openvino" in said
    assert main(["export", str(tmp_path / "model.safetensors"), str(tmp_path / "m.bin")]) == 1


def test_weights_of_8_bits(tmp_path, capsys):
    """A smaller file that still says what it is, and finds nearly the same."""
    predictor = segmenter()
    save_segmenter(tmp_path / "model.safetensors", predictor.network, predictor.info)
    for name, more in (("whole", []), ("small", ["--int8"])):
        assert main(["export", str(tmp_path / "model.safetensors"), str(tmp_path / f"{name}.onnx"), *more]) == 0
        assert "onnxruntime" in capsys.readouterr().out
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("whole", "small")]
    assert sizes[1] < 0.7 * sizes[0]
    whole, small = (load(tmp_path / f"{name}.onnx", runtime="onnxruntime") for name in ("whole", "small"))
    assert (small.classes, small.scales) == (whole.classes, whole.scales)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    first, second = (one(picture) for one in (whole, small))
    assert second.scores == pytest.approx(first.scores, abs=0.05)
    assert second.scores != first.scores, "nothing was made smaller"


def test_files_that_are_not_ours(exported_segmenter, tmp_path):
    import onnx

    _, path = exported_segmenter
    model = onnx.load(str(path))
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.metadata_props[:]
    onnx.save(bare, str(tmp_path / "bare.onnx"))
    for entry in model.metadata_props:
        if entry.key == KEY:
            entry.value = json.dumps({**json.loads(entry.value), "format": 99})
    onnx.save(model, str(tmp_path / "later.onnx"))
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:1000])
    for name, message in (("bare", "not written by"), ("later", "format 99"), ("cut", "not a readable"), ("absent", "no such")):
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / f"{name}.onnx")
