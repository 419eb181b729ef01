"""``python -m pytest_paramcheck``: what can be done with a model without pytest.

Each command is a parser and a function of its arguments that returns the exit status.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_paramcheck.messages.errors import ParamCheckUsageError


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m pytest_paramcheck",
        description="What can be done with the parameters of a PyTorch model without pytest.",
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    declare = commands.add_parser(
        "declare",
        help="print a test file that declares a model as it is measured to be",
        description="Print a test file that declares a model as it is measured to be, to be read, "
        "corrected and committed.",
    )
    declare.add_argument(
        "model",
        metavar="MODULE:FACTORY",
        help='what builds the model; a call with literals too: timm:create_model("resnet50")',
    )
    declare.set_defaults(run=_declare)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 2 for what cannot be meant."""
    given = parser().parse_args(arguments)
    try:
        status: int = given.run(given)
    except ParamCheckUsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return status


def _declare(given: argparse.Namespace) -> int:
    from pytest_paramcheck.model_checks.declaration import declaration

    sys.stdout.write(declaration(given.model, Path.cwd()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
