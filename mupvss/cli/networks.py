"""Commands that export a trained network: as ONNX, or with a model card for the Hugging Face hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from mupvss.errors import UserError


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a model.safetensors."""
    out: Annotated[Path, tyro.conf.Positional]
    """The .onnx file to write."""
    classifier: bool = False
    """Export the run's classifier and what its search needs, even if the run has a segmentation network."""
    check: tuple[Path, ...] = ()
    """Pictures to compare it with PyTorch on. Default: noise, which shows differences but says little about labels."""


def export(argv: Sequence[str]) -> int:
    """Write a trained network as ONNX with dynamic sizes, and check it against PyTorch."""
    arguments = tyro.cli(ExportArguments, prog="mupvss export", args=list(argv))
    if arguments.out.suffix != ".onnx":
        raise UserError(f"{arguments.out}: exported networks end in .onnx")
    from mupvss.predict.agreement import export_and_check

    return export_and_check(arguments.run, arguments.out, arguments.classifier, arguments.check)


@dataclasses.dataclass(frozen=True)
class ShareArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run."""
    folder: Annotated[Path, tyro.conf.Positional]
    """Folder for the network, its settings and its model card."""
    repo: str | None = None
    """Also push it to this repository on the hub, OWNER/NAME (log in first: hf auth login)."""
    licence: str | None = None
    """Licence of the network, for the card."""
    data: str | None = None
    """Description of the training data in your words, for the card."""
    classifier: bool = False
    """Share the run's classifier, even if the run has a segmentation network."""


def share(argv: Sequence[str]) -> None:
    """Save a network with a model card, and push it to the Hugging Face hub if asked to."""
    arguments = tyro.cli(ShareArguments, prog="mupvss share", args=list(argv))
    from mupvss.predict.load import load

    predictor = load(arguments.run, "cpu", classifier=arguments.classifier)
    words = {"licence": arguments.licence, "data": arguments.data}
    predictor.save_pretrained(arguments.folder, model_card_kwargs=words)
    console = Console()
    console.print(f"wrote {arguments.folder}", highlight=False, soft_wrap=True)
    if arguments.repo:
        console.print(predictor.push_to_hub(arguments.repo, model_card_kwargs=words), highlight=False, soft_wrap=True)
