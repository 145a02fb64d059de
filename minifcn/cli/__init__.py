"""The command line: one file a command, each with HELP, `add_arguments(parser)` and `run(arguments)`.

Exit status: 0 done, 1 the command ran and found something wrong, 2 bad input (one sentence on standard error), 130
stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import MinifcnError
from ..kernels.checks import ShapeError
from ..kernels.settings import SettingError

COMMANDS = (
    "train",
    "evaluate",
    "predict",
    "plan",
    "convert",
    "recipe",
    "doctor",
    "check",
    "explain",
    "align",
    "experiment",
    "bench",
)


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the commands `names`."""
    parser = argparse.ArgumentParser(
        prog="minifcn", description="A fully convolutional network with hand-written, proven gradients."
    )
    parser.add_argument("--version", action="version", version=f"minifcn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in names:
        module = importlib.import_module(f".{name}", __name__)
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run, console=getattr(module, "console", None))
    return parser


def _run(parsed: argparse.Namespace) -> int:
    """Run the command, with the settings of the kernels that it names, and with word of their compilation."""
    from .compiling import told
    from .console import chosen_settings, console

    with chosen_settings(parsed), told(parsed.console or console):
        return parsed.run(parsed) or 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments` (default: those of this process) and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Only the command that is meant is imported: some take a quarter of a second.
    parsed = _parser([name for name in COMMANDS if name in arguments[:1]] or COMMANDS).parse_args(arguments)
    try:
        return _run(parsed)
    except (MinifcnError, ShapeError, SettingError) as error:
        print(f"minifcn {parsed.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"minifcn {parsed.command}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `minifcn ... | head`
        sys.stderr.close()
        return 0
