"""The dense CRF, whichever backend computes it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mupvss.crf import torch_backend
from mupvss.crf.kernels import CERTAINTY, EPSILON, Strengths, preset
from mupvss.data.preprocess import reduced, reduction

Backend = Literal["auto", "numba", "torch"]
MAX_PIXELS = 2_000_000


class DenseCRF:
    """The CRF of one picture. Its lattices are built once and serve any probabilities. A picture of more than MAX_PIXELS pixels
    is reduced first, by averaging over squares."""

    def __init__(
        self,
        image: np.ndarray,
        strengths: str | Strengths = "psa",
        threads: int = 0,
        backend: Backend = "auto",
        device: str = "cpu",
    ) -> None:
        """
        Args:
            image: RGB (H, W, 3) uint8.
            strengths: Name of a preset (psa, mctformer-test, irn, clip-es, toco), or your own kernels.
            threads: CPU threads of the numba backend. 0: as many as PyTorch uses.
            backend: auto: torch on a GPU; on a CPU numba if it is installed (extra `crf`), else torch, which is slower there.
            device: Device of the torch backend.

        Raises:
            UserError: There is no such preset.
            ValueError: The picture has another shape or type.
        """
        chosen = preset(strengths) if isinstance(strengths, str) else strengths
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected an RGB picture (H, W, 3) of uint8, not {image.shape} of {image.dtype}")
        self.size = image.shape[:2]
        factor = reduction((image.shape[1], image.shape[0]), MAX_PIXELS)
        image = np.asarray(reduced(Image.fromarray(image), factor)) if factor > 1 else image
        self._worked, chosen = image.shape[:2], chosen.reduced(factor)
        if pick_backend(backend, device) == "numba":
            from mupvss.crf import mean_field as numba_backend

            self._mean_field = numba_backend.prepare(image, chosen, threads or torch.get_num_threads())
        else:
            self._mean_field = torch_backend.prepare(image, chosen, device)

    def __call__(self, probabilities: np.ndarray, steps: int = 10) -> np.ndarray:
        """Refine the probabilities of some labels.

        Args:
            probabilities: (L, H, W) in [0, 1], of the possible labels only: the background and the tagged classes.
            steps: Mean-field iterations.

        Returns:
            (L, H, W) float32 in [0, 1], summing to 1 over the labels.

        Raises:
            ValueError: The shape does not match the picture.
        """
        if probabilities.ndim != 3:
            raise ValueError(f"the picture is {self.size}, the probabilities {probabilities.shape}; expected (L, H, W)")
        return self.several(probabilities[None], steps)[0]

    def several(self, probabilities: np.ndarray, steps: int = 10) -> np.ndarray:
        """Refines G sets of probabilities of the same labels at once, (G, L, H, W) -> (G, L, H, W). Same results as one by one,
        but faster: most of the time goes into finding vertices, not into reading their values."""
        if probabilities.ndim != 4 or probabilities.shape[2:] != self.size:
            shape = probabilities.shape[1:]
            raise ValueError(f"the picture is {self.size}, the probabilities {shape}; expected (L, H, W)")
        if steps < 0 or 0 in probabilities.shape[:2]:
            count = probabilities.shape[1]
            raise ValueError(f"expected at least one label and no less than 0 steps, not {count} and {steps}")
        small = _resized(probabilities, self._worked, "area")
        logs = np.log(np.maximum(small.reshape(*small.shape[:2], -1), EPSILON), dtype=np.float32)
        return _resized(self._mean_field(logs, steps).reshape(small.shape), self.size, "bilinear")


def compile_ahead(strengths: str | Strengths, labels: Iterable[int], questions: int = 1) -> None:
    """Compiles the numba backend for this processor, so that no picture waits for it. The compiled code is kept on disk.

    Args:
        strengths: As in `DenseCRF`.
        labels: Numbers of labels that pictures will have, the background included; each is code of its own.
        questions: How many probabilities `several` will be asked at once.
    """
    if pick_backend("auto", "cpu") == "numba":
        crf = DenseCRF(np.zeros((16, 16, 3), np.uint8), strengths)
        for count in sorted(set(labels)):
            crf.several(np.full((questions, count, 16, 16), 1 / count, np.float32), 1)


def _resized(values: np.ndarray, size: tuple[int, ...], mode: str) -> np.ndarray:
    """(G, L, H, W) at another size; unchanged if it already has that size."""
    if values.shape[2:] == size:
        return values
    return F.interpolate(torch.from_numpy(values), size=size, mode=mode).numpy()


def dense_crf(
    image: np.ndarray,
    probabilities: np.ndarray,
    strengths: str | Strengths = "psa",
    steps: int = 10,
    threads: int = 0,
    backend: Backend = "auto",
    device: str = "cpu",
) -> np.ndarray:
    """`DenseCRF` for one use: RGB picture (H, W, 3) uint8, probabilities (L, H, W) -> refined (L, H, W) float32."""
    return DenseCRF(image, strengths, threads, backend, device)(probabilities, steps)


def probabilities_from_labels(labels: np.ndarray, count: int, certainty: float = CERTAINTY) -> np.ndarray:
    """Label numbers (H, W) from 0 to count - 1 -> (count, H, W) float32: `certainty` for the label, the rest shared."""
    if labels.size and labels.max() >= count:
        raise ValueError(f"the labels go up to {labels.max()}, but there are {count} of them, from 0")
    rest = (1 - certainty) / max(1, count - 1)
    return np.where(labels[None] == np.arange(count)[:, None, None], certainty, rest).astype(np.float32)


def pick_backend(backend: Backend, device: str) -> Literal["numba", "torch"]:
    if backend != "auto":
        return backend
    usable = device.startswith("cpu") and importlib.util.find_spec("numba") is not None
    return "numba" if usable else "torch"
