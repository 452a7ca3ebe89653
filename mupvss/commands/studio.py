"""`mupvss studio`: the local web page of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console


@dataclasses.dataclass(frozen=True)
class StudioArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run with a trained network."""
    pictures: Path | None = None
    """A folder of further pictures to look at."""
    out: Path | None = None
    """Where decisions, masks and exports go; default: RUN/studio."""
    port: int = 8765
    host: str = "127.0.0.1"
    """Any other address than this computer's own needs the token that is printed."""
    device: str = "auto"


def studio(argv: Sequence[str]) -> None:
    """Look at masks in the browser, correct tags, repaint, accept, export."""
    arguments = tyro.cli(StudioArguments, prog="mupvss studio", args=list(argv))
    try:
        import uvicorn

        from mupvss.studio.server import create_app
    except ImportError as error:
        raise ValueError(f"the studio needs the extra 'studio' ({error}): pip install 'mupvss[studio]'") from None
    from mupvss.studio.security import LOOPBACK, new_token
    from mupvss.studio.workspace import Workspace

    workspace = Workspace(arguments.run, arguments.out, arguments.pictures, arguments.device)
    token = None if arguments.host in LOOPBACK else new_token()
    app = create_app(workspace, arguments.port, arguments.host, token)
    address = f"http://{arguments.host}:{arguments.port}/" + (f"?token={token}" if token else "")
    Console(stderr=True).print(f"studio: {address}   (stop with Ctrl-C)", highlight=False, soft_wrap=True)
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning", limit_concurrency=64)
