"""`mupvss share`: a network with its card, in a folder or on the Hugging Face hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console


@dataclasses.dataclass(frozen=True)
class ShareArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run."""
    folder: Annotated[Path, tyro.conf.Positional]
    """Folder for the network, its settings and its card."""
    repo: str | None = None
    """Also push it there: OWNER/NAME on the hub (log in first: hf auth login)."""
    licence: str | None = None
    """Licence of the network, for the card."""
    data: str | None = None
    """What it learned from, in your words, for the card."""
    classifier: bool = False
    """The run's classifier even where there is a segmentation network."""


def share(argv: Sequence[str]) -> None:
    """Save a network with a card written from its run, and push it to the Hugging Face hub if asked to."""
    arguments = tyro.cli(ShareArguments, prog="mupvss share", args=list(argv))
    from mupvss.predictor import load

    predictor = load(arguments.run, "cpu", classifier=arguments.classifier)
    words = {"licence": arguments.licence, "data": arguments.data}
    predictor.save_pretrained(arguments.folder, model_card_kwargs=words)
    console = Console()
    console.print(f"wrote {arguments.folder}", highlight=False, soft_wrap=True)
    if arguments.repo:
        console.print(predictor.push_to_hub(arguments.repo, model_card_kwargs=words), highlight=False, soft_wrap=True)
