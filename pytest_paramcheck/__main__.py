"""``python -m pytest_paramcheck``, or ``paramcheck``: what can be done with a model from a shell.

Each command is a parser and a function of its arguments that returns the exit status. What a
command needs is imported when it is run: ``--help`` loads no torch, and only ``check`` pytest.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import FrameType

from pytest_paramcheck import __version__
from pytest_paramcheck.messages.errors import ParamCheckError, ParamCheckUsageError
from pytest_paramcheck.messages.wording import first_line

STATUS = (
    "exit status: 0: done, and nothing is wrong or different; 1: diff found a difference, or check "
    "a failure; 2: it could not be done; 130: interrupted."
)
SUBJECT = (
    'module:factory, a call with literals (timm:create_model("resnet50")), or the path of a '
    "checkpoint: torch.save, safetensors, an index of shards or their folder"
)
MODEL = 'module:factory; a call with literals too: timm:create_model("resnet50")'


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    by_module = Path(sys.argv[0]).name == "__main__.py"
    top = argparse.ArgumentParser(
        prog="python -m pytest_paramcheck" if by_module else "paramcheck",
        description="Look at the parameters of a PyTorch model, compare and check them.",
        epilog=STATUS,
    )
    top.add_argument("--version", action="version", version=f"pytest-paramcheck {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, more: str = ""
    ) -> argparse.ArgumentParser:
        described = f"{text[0].upper()}{text[1:]}. {more}".strip()
        made = commands.add_parser(name, help=text, description=described, epilog=STATUS)
        made.set_defaults(run=run)
        made.add_argument(
            "--traceback",
            action="store_true",
            help="where code of the model raises, show the whole traceback",
        )
        return made

    table = command("table", _table, "print the table of a model's or checkpoint's parameters")
    table.add_argument("subject", metavar="SUBJECT", help=SUBJECT)
    table.add_argument(
        "patterns",
        metavar="PATTERN",
        nargs="*",
        default=[],
        help="show only these: names, modules, globs ('*.bias'); '!head' leaves out",
    )
    _shared(table)

    page = command(
        "page",
        _page,
        "write a page on which the parameters can be looked at",
        "A model is run on its declared inputs, or on those that its library names.",
    )
    page.add_argument("subject", metavar="SUBJECT", help=SUBJECT)
    page.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="parameters.html",
        help="where it is written (default: %(default)s)",
    )
    page.add_argument("--before", metavar="SUBJECT", help="compare with this one")
    page.add_argument("--before-key", metavar="KEY", help="as --key, for --before")
    page.add_argument("--title", help="the title of the page")
    _shared(page)

    diff = command(
        "diff", _diff, "print what differs between two models or checkpoints, values included"
    )
    diff.add_argument("before", metavar="A", help=SUBJECT)
    diff.add_argument("after", metavar="B", help="likewise")
    diff.add_argument("--all", action="store_true", help="show every row")
    _shared(diff)

    check = command(
        "check",
        _check,
        "run the whole-model checks, or look whether a checkpoint can be published",
        "A model is checked by pytest --param-model; what else is given, pytest gets.",
    )
    check.add_argument("subject", metavar="SUBJECT", help=SUBJECT)
    check.add_argument("--json", action="store_true", help="print the results as JSON")
    check.add_argument("--key", help="where in a checkpoint to look: model")

    declare = command(
        "declare",
        _declare,
        "print a test file that declares a model as it is measured to be",
        "To be read, corrected and committed.",
    )
    declare.add_argument("model", metavar="MODULE:FACTORY", help=f"what builds the model: {MODEL}")
    return top


def _shared(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--key", help="where in a checkpoint the state_dict is: model")
    command.add_argument(
        "--device", metavar="DEV", help="build models on this device; meta needs no memory"
    )
    command.add_argument(
        "--seed", metavar="N", type=int, default=0, help="build models from this seed (default: 0)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    with _any_text():
        return _run(arguments)


@contextmanager
def _any_text() -> Iterator[None]:
    """Let any name be written: escaped, where the terminal's or pipe's encoding lacks it."""
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed by who called us
                nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
                setattr(sys, name, nowhere)
                stack.callback(setattr, sys, name, None)
        out = sys.stdout
        if isinstance(out, TextIOWrapper) and out.errors == "strict":
            out.reconfigure(errors="backslashreplace")
            stack.callback(_strict_again, out)
        yield


def _strict_again(out: TextIOWrapper) -> None:
    if not out.closed:
        out.reconfigure(errors="strict")


def _run(arguments: Sequence[str] | None) -> int:
    given, rest = parser().parse_known_args(arguments)
    if rest and given.run is not _check:
        parser().parse_args(arguments)  # says what it does not know, and ends
    given.rest = rest
    try:
        status: int = given.run(given)
        sys.stdout.flush()
    except ParamCheckUsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        _forget_output()
        return 0
    except (Exception, SystemExit) as error:  # whatever the user's factory or forward raises
        if given.traceback:
            traceback.print_exc()
        sys.stderr.write(_in_a_line(error, hint=not given.traceback))
        try:
            sys.stdout.flush()
        except OSError:  # no room for it: Python would try again when it ends
            _forget_output()
        return 2
    return status


def _in_a_line(error: BaseException, *, hint: bool) -> str:
    """Return what was raised and where, of the frames the last that is not a library's."""
    text = first_line(error, 200)
    said = f"error: {type(error).__name__}{text and ': ' + text}"
    frames = traceback.walk_tb(error.__traceback__)
    own = [(frame, line) for frame, line in frames if not _of_a_library(frame)]
    if not own:
        return said + ("; --traceback shows where it was raised\n" if hint else "\n")
    frame, line = own[-1]
    place = f"{frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
    return f"{said}\n  at {place}{'; --traceback shows how it came there' if hint else ''}\n"


def _of_a_library(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    ours = frame.f_code.co_filename == __file__  # called __main__
    return (
        ours
        or package in ("pytest_paramcheck", "torch")
        or package in sys.stdlib_module_names - {"__main__"}
    )


def _forget_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _table(given: argparse.Namespace) -> int:
    from pytest_paramcheck.showing import commands

    return commands.table(given)


def _page(given: argparse.Namespace) -> int:
    from pytest_paramcheck.showing import commands

    return commands.page(given)


def _diff(given: argparse.Namespace) -> int:
    from pytest_paramcheck.showing import commands

    return commands.diff(given)


def _check(given: argparse.Namespace) -> int:
    from pytest_paramcheck.showing.subjects import is_checkpoint

    if not is_checkpoint(given.subject):
        from pytest_paramcheck.plugin.command import check

        return check(given.subject, given.rest, as_json=given.json)
    if given.rest:
        raise ParamCheckUsageError(f"a checkpoint takes no further arguments: {given.rest[0]}")
    from pytest_paramcheck.assertions.checkpoints import assert_checkpoint
    from pytest_paramcheck.showing.commands import checkpoint_result

    try:
        assert_checkpoint(Path(given.subject), key=given.key)
    except ParamCheckError as error:
        return checkpoint_result(given.subject, error, as_json=given.json)
    return checkpoint_result(given.subject, None, as_json=given.json)


def _declare(given: argparse.Namespace) -> int:
    from pytest_paramcheck.model_checks.declaration import declaration

    sys.stdout.write(declaration(given.model, Path.cwd()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
