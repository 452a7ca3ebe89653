"""Commands that export a trained network, as ONNX or with a model card for the Hugging Face hub, and the seeds of a run."""

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
    int8: bool = False
    """Make the weights of the matrix products 8-bit integers: the file is smaller by a third or more, and a few pixels get other
    labels. The check shows how many."""
    check: tuple[Path, ...] = ()
    """Pictures to compare it with PyTorch on. Default: noise, which shows differences but says little about labels."""


def export(argv: Sequence[str]) -> int:
    """Write a trained network as ONNX with dynamic sizes, and check it against PyTorch."""
    arguments = tyro.cli(ExportArguments, prog="mupvss export", args=list(argv))
    if arguments.out.suffix != ".onnx":
        raise UserError(f"{arguments.out}: exported networks end in .onnx")
    from mupvss.predict.agreement import export_and_check

    return export_and_check(arguments.run, arguments.out, arguments.classifier, arguments.check, arguments.int8)


@dataclasses.dataclass(frozen=True)
class ExportSeedsArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder for the files, one per picture."""
    layout: str = "mctformer"
    """mctformer, psa (dictionaries from class number to map), or irn (keys, cam, high_res)."""
    kind: str | None = None
    """Kind of map. Default: the one that became masks."""


def export_seeds(argv: Sequence[str]) -> None:
    """Write the seeds of a run in the files of MCTformer, PSA or IRN. A config reads such files with search.given."""
    arguments = tyro.cli(ExportSeedsArguments, prog="mupvss export-seeds", args=list(argv))
    from mupvss.export.seeds import export_seeds as write

    count = write(arguments.run, arguments.out, arguments.layout, arguments.kind)
    Console().print(f"wrote {count:,} files to {arguments.out}", highlight=False, soft_wrap=True)


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
    accept_licence: bool = False
    """Push it although the licence of the weights or pictures that it was made from forbids that, sets conditions or is not
    known."""
    weights_licence: str | None = None
    """Licence of the weights that the network began from, if it is not known."""
    pictures_licence: str | None = None
    """Licence of the pictures, if the config did not state it."""
    classifier: bool = False
    """Share the run's classifier, even if the run has a segmentation network."""


def share(argv: Sequence[str]) -> None:
    """Save a network with a model card, and push it to the Hugging Face hub if asked to."""
    arguments = tyro.cli(ShareArguments, prog="mupvss share", args=list(argv))
    from mupvss.model.licences import obstacles
    from mupvss.predict.load import load, stated

    predictor = load(arguments.run, "cpu", classifier=arguments.classifier)
    predictor = stated(predictor, arguments.weights_licence, arguments.pictures_licence)
    found = list(obstacles(predictor.origins))
    if arguments.repo and found and not arguments.accept_licence:
        raise UserError(
            f"not pushed to {arguments.repo}: {'; '.join(found)}. If you may share the network all the same, add "
            "--accept-licence; --weights-licence states a licence that is not known"
        )
    words = {"licence": arguments.licence, "data": arguments.data}
    predictor.save_pretrained(arguments.folder, model_card_kwargs=words)
    console = Console()
    console.print(f"wrote {arguments.folder}", highlight=False, soft_wrap=True)
    if arguments.repo:
        console.print(predictor.push_to_hub(arguments.repo, model_card_kwargs=words), highlight=False, soft_wrap=True)
