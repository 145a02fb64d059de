"""The command line: one file a command, each with HELP, `add_arguments(parser)` and `run(arguments)`.

Exit status: 0 done, 1 the command ran and found something wrong, 2 bad input (one sentence on standard error), 130
stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from .. import __version__
from ..errors import MinifcnError
from ..kernels.checks import ShapeError
from ..kernels.settings import SettingError

COMMANDS = ("train", "evaluate", "predict", "doctor", "check", "explain", "align", "bench")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minifcn", description="A fully convolutional network with hand-written, proven gradients."
    )
    parser.add_argument("--version", action="version", version=f"minifcn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f".{name}", __name__)
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line `arguments` (default: those of this process) and return the exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.run(parsed) or 0
    except (MinifcnError, ShapeError, SettingError) as error:
        print(f"minifcn {parsed.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"minifcn {parsed.command}: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `minifcn ... | head`
        sys.stderr.close()
        return 0
