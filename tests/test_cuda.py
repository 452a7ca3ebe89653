"""On a GPU: the same answers as on the CPU. Skipped where there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import TINY_VIT, info_of, network_of
from PIL import Image

from mupvss.crf import dense_crf
from mupvss.data.sources import load_dataset
from mupvss.masks.random_walk import pair_index, random_walk, transition
from mupvss.methods import find_method
from mupvss.methods.checkpoint import save_model
from mupvss.options import SearchConfig, TrainConfig, ViTSegment
from mupvss.predict.predictor import Predictor
from mupvss.predict.segmenter import SegmentationPredictor
from mupvss.segmentation.build import SegmenterInfo, build_segmenter
from mupvss.stages.run import run_all
from mupvss.stages.run_folder import Run
from mupvss.training.batches import DenseSample, DenseViews, Manner, batches, dense_batches
from mupvss.training.classifier import train_classifier, weighted_sum

pytestmark = pytest.mark.cuda
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def _full_float32():
    """TF32 keeps ten bits of the mantissa: good for training, not for comparing."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((120, 90), Image.Resampling.BILINEAR)


@pytest.fixture
def dataset(tiny_run):
    return load_dataset(tiny_run.data, "train")


SLOW = TrainConfig(precision="fp32", image_steps=240, batch_size=8, warmup_steps=1)


def test_batches(gpu, dataset):
    (batch,) = batches(dataset, SLOW, 32, 0, 0, 1, Manner(workers=0))
    for here, there in zip(batch.on(CPU), batch.pin_memory().on(gpu), strict=True):
        torch.testing.assert_close(here, there.cpu(), atol=1e-5, rtol=0)


def test_dense_batches(gpu, picture):
    labels = np.arange(90 * 120, dtype=np.uint8).reshape(90, 120) % 5
    views = DenseViews([DenseSample("p", lambda: picture, lambda: labels)], 100, (0.6, 1.4), True, 0)
    (batch,) = dense_batches(views, 4, 0, 1, Manner(workers=0))
    here, there = batch.on(CPU), batch.pin_memory().on(gpu)
    torch.testing.assert_close(here.images, there.images.cpu(), atol=1e-5, rtol=0)
    assert torch.equal(here.labels, there.labels.cpu())
    torch.testing.assert_close(here.weights, there.weights.cpu())


@pytest.mark.parametrize("name", ["mupvss", "mctformer", "vit-cam"])
def test_losses_and_gradients(gpu, dataset, name):
    method, model = find_method(name), TINY_VIT.model_copy(update={"drop_path": 0.0})
    (batch,) = batches(dataset, SLOW, 32, 0, 0, 1, Manner(workers=0))
    found = []
    for device in (CPU, gpu):
        torch.manual_seed(0)
        network = method.build(model, method.options(), len(dataset.classes), True).to(device).train()
        images, tags = batch.on(device)
        losses = method.losses(network, network(images), tags, method.options(), 0.7)
        weighted_sum(losses).backward()
        gradients = {key: p.grad.cpu() for key, p in network.named_parameters() if p.grad is not None}
        found.append(({key: value.item() for key, (_, value) in losses.items()}, gradients))
    (figures, gradients), (figures_there, gradients_there) = found
    assert figures_there == pytest.approx(figures, rel=1e-3, abs=1e-5)
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradients_there[key], gradient, atol=1e-3 * float(largest), rtol=1e-2, msg=key)


def test_bf16_training_learns(gpu, dataset, tmp_path):
    quick = SLOW.model_copy(update={"precision": "bf16", "lr": 1e-3, "image_steps": 480})
    method = find_method("mupvss")
    train_classifier(method, TINY_VIT, method.options(), quick, 0, dataset, Manner(gpu, workers=0), tmp_path, "this")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    first, last = (np.mean([line["classification"] for line in part]) for part in (lines[:2], lines[-2:]))
    assert last < first


def test_random_walk(gpu):
    radius, (height, width) = 4, (30, 40)
    affinity = torch.rand(len(pair_index(height, width, radius)[0]), generator=torch.Generator().manual_seed(0))
    maps = torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))
    here, there = (
        random_walk(maps.to(device), transition(affinity.to(device), height, width, radius, 8.0), 32).cpu()
        for device in (CPU, gpu)
    )
    torch.testing.assert_close(here, there, atol=1e-5, rtol=0)


@pytest.mark.parametrize("preset", ["psa", "clip-es"])
def test_dense_crf(gpu, picture, preset):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), (90, 120)).astype(np.float32).transpose(2, 0, 1)
    image = np.array(picture)
    here = dense_crf(image, np.ascontiguousarray(probabilities), preset, backend="torch")
    there = dense_crf(image, np.ascontiguousarray(probabilities), preset, device="cuda")
    assert (here.argmax(0) == there.argmax(0)).mean() > 0.999


@pytest.mark.parametrize("method", ["mupvss", "mctformer", "vit-cam"])
def test_predictor(gpu, picture, tmp_path, method):
    torch.manual_seed(0)
    network = network_of(method)
    for weights in (parameter for parameter in network.parameters() if parameter.ndim > 1):
        # As initialised, all prototypes are nearly alike, and maps stretched to [0, 1] show little but rounding.
        torch.nn.init.normal_(weights, std=0.1)
    path = tmp_path / "model.safetensors"
    save_model(path, network, info_of(("a", "b", "c"), method))
    search = SearchConfig(scales=(1.0,), precision="fp32")
    predictors = (Predictor.open(path, search, threshold=0.5, device=device) for device in ("cpu", "cuda"))
    here, there = (predictor(picture, ["a", "c"]) for predictor in predictors)
    assert here.scores == pytest.approx(there.scores, abs=1e-3)
    assert (here.labels == there.labels).mean() > 0.99


def test_segmenter(gpu, picture):
    torch.manual_seed(0)
    config = ViTSegment(scales=(1.0,), crf="none")
    config = config.model_copy(update={"train": config.train.model_copy(update={"precision": "fp32"})})
    network = build_segmenter(config, TINY_VIT, 3, None)
    info = SegmenterInfo(("a", "b", "c"), TINY_VIT, config)
    here, there = (SegmentationPredictor(network, info, device=device).probabilities(picture) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(here, there, atol=1e-3)


def test_the_whole_chain(gpu, tiny_run, tmp_path):
    config = tiny_run.model_copy(update={"device": "cuda"})
    figures = run_all(Run(config, tmp_path / "run"))
    assert np.isfinite(figures["seeds/miou"])
    assert (tmp_path / "run" / "report" / "index.html").is_file()
