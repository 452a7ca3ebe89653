"""The methods by name. A method of another package is chosen by its place: `method = "package.module:NAME"`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys

from mupvss.errors import ConfigError
from mupvss.methods.cnn_cam import CNN_CAM, RECAM
from mupvss.methods.mctformer import MCTFORMER
from mupvss.methods.method import Losses, Method, NoOptions
from mupvss.methods.mupvss import MUPVSS
from mupvss.methods.vit_cam import VIT_CAM

__all__ = ["METHODS", "Losses", "Method", "NoOptions", "find_method"]

METHODS: dict[str, Method] = {method.name: method for method in (MUPVSS, MCTFORMER, VIT_CAM, CNN_CAM, RECAM)}
ALLOWED = "MUPVSS_METHODS"
"""Environment variable: modules, separated by commas, whose methods may be imported when a file by someone else names them."""


def find_method(name: str, trusted: bool = True) -> Method:
    """One of METHODS, or NAME of package.module. ConfigError where there is none.

    trusted: whether the user asked for it. A checkpoint or a run's folder may come from strangers, and importing a module runs
    its code. So a method that such a file names is used only if its module is already imported or listed in the environment
    variable MUPVSS_METHODS.
    """
    if name in METHODS:
        return METHODS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(METHODS)}, or package.module:NAME"
        raise ConfigError(f"method is '{name}'; {hint}")
    allowed = [entry.strip() for entry in os.environ.get(ALLOWED, "").split(",")]
    if not (trusted or module in sys.modules or module in allowed):
        raise ConfigError(
            f"the method '{name}' belongs to another package, which is imported only if you allow it; if you trust it, "
            f"set {ALLOWED}={module}"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"method is '{name}', which cannot be imported ({error}); expected package.module:NAME") from None
    if not isinstance(found, Method):
        raise ConfigError(f"method is '{name}', which is a {type(found).__name__}; expected a mupvss.methods.Method")
    return found
