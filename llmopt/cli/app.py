"""The ``llmopt`` command: parse, call one function, print.

Commands import what they need when they run, so that ``llmopt --help`` is quick.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Annotated

import typer

from llmopt._version import __version__
from llmopt.cli import compare, datasets, inspect, models, results, search, serve
from llmopt.errors import INTERRUPTED, LlmoptError

app = typer.Typer(
    name="llmopt",
    help="Find better prompts for a vision-language model you cannot open.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
search.register(app)
inspect.register(app)
compare.register(app)
results.register(app)
serve.register(app)
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"llmopt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find better prompts for a vision-language model you cannot open."""


def main() -> None:
    """Run the command line; errors become one clear line and an exit code."""
    if threading.current_thread() is threading.main_thread():
        # What stops containers and batch jobs ends as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except LlmoptError as error:
        _complain(str(error))
        for note in _notes(error):
            if "resume" not in str(error):
                _complain(f"nothing paid for is lost; {note}", prefix="")
        sys.exit(error.exit_code)
    except KeyboardInterrupt as stop:
        _say_interrupted(stop)
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        # typer turns an interrupt into its own exit, without a word.
        cause = end.__context__.__cause__ if end.__context__ else None
        if isinstance(cause, KeyboardInterrupt):
            _say_interrupted(cause)
        raise
    except BrokenPipeError:
        # The reader of a pipe left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _say_interrupted(stop: KeyboardInterrupt) -> None:
    _complain("; ".join(["interrupted", *_notes(stop)]), prefix="")


def _notes(end: BaseException) -> list[str]:
    """How to go on, where there is a run folder (see :func:`llmopt.live.watching`)."""
    return getattr(end, "__notes__", [])


def _complain(text: str, prefix: str = "error: ") -> None:
    typer.echo(f"{prefix}{text}", err=True)
