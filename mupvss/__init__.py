"""MuP-VSS: segmentation masks from image tags, by multi-label prototype visual spatial search."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mupvss.version import VERSION

if TYPE_CHECKING:
    from mupvss.predict.load import load
    from mupvss.predict.predictor import Predictor

__version__ = VERSION
__all__ = ["Predictor", "__version__", "load"]
PUBLIC = {"Predictor": "mupvss.predict.predictor", "load": "mupvss.predict.load"}


def __getattr__(name: str) -> Any:
    """`load` and `Predictor`, imported on first use so that the command line starts without loading PyTorch."""
    if name in PUBLIC:
        return getattr(importlib.import_module(PUBLIC[name]), name)
    raise AttributeError(f"module 'mupvss' has no attribute '{name}'")
