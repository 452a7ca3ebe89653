"""The command `mupvss`: a small table of commands, each with its own arguments."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.markup import escape

from mupvss.cli.data import data
from mupvss.cli.networks import export, export_seeds, share
from mupvss.cli.pictures import init, predict, studio
from mupvss.cli.runs import SUMMARIES, compare, evaluate, stage_command, upgrade
from mupvss.errors import ConfigError, OutOfMemoryError, StoppedError, UserError, is_out_of_memory
from mupvss.runtime.launch import fall_back_to_the_cpu, started_by_torchrun, wait_briefly
from mupvss.version import VERSION

console = Console(stderr=True)

COMMANDS: dict[str, Callable[[Sequence[str]], int | None]] = {
    "init": init,
    "data": data,
    **{name: stage_command(name) for name in SUMMARIES},
    "predict": predict,
    "export": export,
    "export-seeds": export_seeds,
    "share": share,
    "studio": studio,
    "evaluate": evaluate,
    "compare": compare,
    "upgrade": upgrade,
}


GROUPS = {
    "Your own pictures": ("init", "run", "predict", "studio", "upgrade"),
    "Pictures and tags": ("data",),
    "Use a trained network elsewhere": ("export", "export-seeds", "share"),
    "Research": ("compare", "evaluate"),
    "One stage of a run": tuple(name for name in SUMMARIES if name != "run"),
}
"""All commands, grouped by purpose."""


def usage() -> str:
    lines = ["mupvss: segmentation masks from image tags. To see it work: mupvss run demo"]
    for title, names in GROUPS.items():
        lines += ["", title, *(f"  {name:12s} {(COMMANDS[name].__doc__ or '').strip()}" for name in names)]
    lines += ["", "mupvss COMMAND --help explains a command. With --traceback, any command shows where an error arose."]
    return "\n".join(lines)


FAULT = 70
"""Exit status after an internal error of mupvss."""
TRACEBACK = "MUPVSS_TRACEBACK"
"""Environment variable: any value has the effect of --traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status. An error that the user can fix is shown as one line, with the traceback only if
    `--traceback` is given; anything else is a bug in mupvss and is shown in full."""
    given = list(sys.argv[1:] if argv is None else argv)
    argv = [word for word in given if word != "--traceback"]
    shown = len(argv) < len(given) or bool(os.environ.get(TRACEBACK))
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(VERSION)
        return 0
    if argv[0] not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        console.print(
            f"error: no command '{escape(argv[0])}'" + (f"; did you mean '{near[0]}'?" if near else ""), highlight=False
        )
        return 2
    try:
        check_processes(argv[0])
        return COMMANDS[argv[0]](argv[1:]) or 0
    except StoppedError as stopped:
        console.print("stopped; the same command goes on from here", highlight=False)
        return 128 + stopped.signal
    except OutOfMemoryError as error:
        return _out_of_memory(str(error))
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here", highlight=False)
        return 130
    except Exception as error:
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno is not None):
            if shown:
                traceback.print_exception(error)
            console.print(f"[bold red]error:[/] {escape(_one_line(error))}", highlight=False, soft_wrap=True)
            return 1
        # Without memory, error handling can itself fail in any way; Python's own code raises SystemError, for example.
        if any(map(is_out_of_memory, _and_what_led_to_it(error))):
            return _out_of_memory("out of memory; reduce model.image_size or train.batch_size")
        return _fault(error, given)


def _fault(error: BaseException, argv: Sequence[str]) -> int:
    """Prints what is needed to debug an internal error."""
    traceback.print_exception(error)
    command = shlex.join(["mupvss", *argv])
    versions = f"mupvss {VERSION}, Python {platform.python_version()}, {platform.platform()}"
    sys.stderr.write(
        "\nThis is a fault of mupvss, not of your files. What was finished is kept. Please report it, with all these lines:\n"
        f"{versions}\n{command}\n"
    )
    return FAULT


def _and_what_led_to_it(error: BaseException) -> Iterator[BaseException]:
    """The error, then the errors that were being handled when it was raised."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__context__


def _out_of_memory(what: str) -> int:
    """Prints plain text, since rich needs memory, and the error may still hold what filled it."""
    sys.stderr.write(f"error: {what}\n")
    return 1


def check_processes(command: str) -> None:
    """Raises ConfigError for a command that must not run in several processes."""
    if started_by_torchrun() and command not in SUMMARIES:
        raise ConfigError(f"mupvss {command} works in one process; torchrun is for {', '.join(SUMMARIES)}")


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        hint = "; free some space and run the same command again" if error.errno == 28 else ""
        return f"{where}{error.strerror}{hint}"
    return str(error) or type(error).__name__


def entry() -> None:
    """Entry point of the console script and of `python -m mupvss`. The process is ours alone, and PyTorch is not loaded yet."""
    wait_briefly()
    fall_back_to_the_cpu()
    sys.exit(main())
