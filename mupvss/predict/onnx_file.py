"""Writes a network as ONNX with dynamic batch, height and width, and all that is needed to use it in the file's metadata."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mupvss.data.preprocess import MEAN, STD
from mupvss.errors import MissingExtraError
from mupvss.files import atomic_path
from mupvss.model.checkpoint import KEY, header_text
from mupvss.model.licences import as_header, without_folders
from mupvss.predict.calibration import calibration_settings
from mupvss.predict.predictor import Predictor, shareable
from mupvss.predict.runtimes import PlainOutputs, output_names
from mupvss.predict.segmenter import SegmentationPredictor


def export_onnx(predictor: Predictor | SegmentationPredictor, path: Path, int8: bool = False) -> None:
    """One input `images` (B, 3, H, W), normalised, of whole patches; a segmentation network returns `logits`, a classifier the
    tensors of Features. int8: see `quantise`. MissingExtraError without the extra `onnx`."""
    network, names, header = _parts(predictor)
    size = 2 * predictor.stride
    example = torch.randn(2, 3, size, size + predictor.stride)
    dynamic = {"images": {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}}
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                network.eval().cpu(), (example,), dynamo=True, input_names=["images"], output_names=list(names),
                dynamic_shapes=dynamic, verbose=False,
            )  # fmt: skip
    except (ImportError, ModuleNotFoundError) as error:
        raise MissingExtraError(f"exporting needs the extra 'onnx' ({error}): pip install 'mupvss[onnx]'") from None
    assert program is not None
    normalisation = {"mean": list(MEAN), "std": list(STD)}
    header |= {"outputs": list(names), "stride": predictor.stride, "normalisation": normalisation}
    header |= calibration_settings(predictor.calibration)
    program.model.metadata_props[KEY] = header_text(header)
    with atomic_path(path) as temporary:
        program.save(str(temporary), external_data=False)
        if int8:
            quantise(temporary)


def quantise(path: Path) -> None:
    """Makes the weights of an exported network's matrix products 8-bit integers, in place; what enters them is converted on the
    way, so no pictures are needed (dynamic quantisation). MissingExtraError without the extra `onnx`."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise MissingExtraError(f"8-bit weights need the extra 'onnx' ({error}): pip install 'mupvss[onnx]'") from None
    model = onnx.load(str(path))
    kept = {entry.key: entry.value for entry in model.metadata_props}
    del model.graph.value_info[:]  # the exporter's shapes of inner values, some of which the quantiser takes for wrong
    with atomic_path(path) as temporary, _quiet():
        quantize_dynamic(model, str(temporary), op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
        smaller = onnx.load(str(temporary))
        del smaller.metadata_props[:]
        onnx.helper.set_model_props(smaller, kept)
        onnx.save(smaller, str(temporary))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter, which reports its steps at length through loggers, also the root one, warnings and stdout."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _parts(predictor: Predictor | SegmentationPredictor) -> tuple[nn.Module, tuple[str, ...], dict[str, Any]]:
    info = predictor.info
    if isinstance(predictor, SegmentationPredictor):
        header: dict[str, Any] = {"classes": list(info.classes), "model": without_folders(info.model)}
        segment = without_folders(predictor.info.segment) | {"scales": list(predictor.scales), "crf": predictor.crf}
        header |= {"segment": segment, "background": predictor.info.background, "origins": as_header(info.origins)}
        return predictor.network, ("logits",), header
    header = predictor.info.header() | {
        "search": shareable(predictor.config),
        "searched_with": predictor.options.model_dump(mode="json"),
        "threshold": predictor.threshold,
    }
    with torch.no_grad():
        side = 2 * predictor.stride
        names = output_names(predictor.network.cpu()(torch.zeros(1, 3, side, side), need_attention=True))
    return PlainOutputs(predictor.network, names), names, header
