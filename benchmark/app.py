"""The program: what commands are registered with, what they print by, and what their exit codes mean."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperArgument, TyperCommand, TyperOption

from retrieval_bench import __version__
from retrieval_bench.core import BenchError, NotComparable
from retrieval_bench.registry import fill
from retrieval_bench.system.child_process import CommandReached, works_for_another

OK, GATE_FAILED, USER_MISTAKE, NOT_COMPARABLE, SOME_FAILED, OUR_BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130


class Program(typer.Typer):
    """The program. In a worker process, which runs a user's own program for what that registers, it does nothing."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        if works_for_another():
            raise CommandReached
        return super().__call__(*args, **options)


app = Program(
    name="retrieval-bench",
    help="Which image-retrieval method, at what cost, on my images? Runs classical, hash and deep methods on the same "
    "splits and shows accuracy, recall, F1 and latency side by side.",
    epilog="Exit codes: 0 success; 1 a check failed; 2 a mistake in the command or its data; 3 not comparable; "
    "4 some methods failed, the others are saved; 70 a bug of this program; 130 interrupted, finished work is saved.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Command(TyperCommand):
    """A command whose help says `[untrained]` where it is written so: brackets are no markup there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.help = escape(self.help or "")
        for parameter in self.params:
            if isinstance(parameter, TyperOption | TyperArgument):
                parameter.help = escape(parameter.help or "")


def command(group: typer.Typer, name: str) -> Callable[[Callable[..., int | None]], Callable[..., None]]:
    """Register a command; its return value is the exit code, and a user's mistake is one sentence on stderr."""

    def register(function: Callable[..., int | None]) -> Callable[..., None]:
        @group.command(name, cls=Command)
        @functools.wraps(function)
        def guarded(*args: Any, **options: Any) -> None:
            try:
                with _nothing_else_on_stdout() if options.get("as_json") else contextlib.nullcontext():
                    code = function(*args, **options) or OK
                sys.stdout.flush()
            except NotComparable as error:
                typer.echo(str(error), err=True)
                code = NOT_COMPARABLE
            except BenchError as error:
                typer.echo(f"error: {error}", err=True)
                code = USER_MISTAKE
            except KeyboardInterrupt:
                typer.echo("interrupted; what was finished is saved", err=True)
                code = INTERRUPTED
            except Exception:  # a bug: the whole traceback, with an exit code of its own
                traceback.print_exc()
                code = OUR_BUG
            raise typer.Exit(code)

        return guarded

    return register


_json_out: list[IO[str]] = []
"""The stream that `say` prints on, while everything else that is printed goes to stderr."""


@contextlib.contextmanager
def _nothing_else_on_stdout() -> Iterator[None]:
    """What a plug-in, a network of the user or a library prints goes to stderr, so that stdout is JSON alone."""
    _json_out.append(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _json_out.pop()


def say(text: str, nl: bool = True) -> None:
    """Print on stdout. If the reader has closed the pipe (`| head`), stop silently; a full disk is one sentence."""
    out = _json_out[-1] if _json_out else sys.stdout
    try:
        typer.echo(text, file=out, nl=nl)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        gone = isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL)
        if gone:
            return
        raise BenchError(f"standard output cannot be written ({error.strerror})") from None


def _version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    fill()
