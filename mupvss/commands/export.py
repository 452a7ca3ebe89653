"""`mupvss export`: a trained network as one ONNX file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a model.safetensors."""
    out: Annotated[Path, tyro.conf.Positional]
    """The .onnx file to write."""
    classifier: bool = False
    """The run's classifier, with all that its search needs, even where there is a segmentation network."""
    check: tuple[Path, ...] = ()
    """Pictures to compare it with PyTorch on; default: noise, which shows differences but no agreement of labels."""


def export(argv: Sequence[str]) -> int:
    """Write a trained network as ONNX with dynamic sizes, and check it against PyTorch."""
    arguments = tyro.cli(ExportArguments, prog="mupvss export", args=list(argv))
    if arguments.out.suffix != ".onnx":
        raise ValueError(f"{arguments.out}: exported networks end in .onnx")
    from mupvss.deploy.command import export_and_check

    return export_and_check(arguments.run, arguments.out, arguments.classifier, arguments.check)
