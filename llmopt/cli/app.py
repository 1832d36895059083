"""The ``llmopt`` command: parse, call one function, print.

A command's module is imported when the command is used, and what it needs when it runs, so that
``llmopt --help`` is quick.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import threading
import zlib
from pathlib import Path
from typing import Annotated, Any

from llmopt._version import __version__
from llmopt.errors import FAULT, INTERRUPTED, UNHEARD, LlmoptError, UserError

try:
    import typer
    from typer.core import TyperCommand, TyperGroup
except KeyboardInterrupt:  # pressed at once: there is nothing yet to tell or to keep
    raise SystemExit(INTERRUPTED) from None

COMMANDS = {
    "run": (
        "search",
        "Search for better prompts on one task, then measure them once on its test images.",
    ),
    "resume": ("search", "Go on where a run stopped, paying for nothing twice."),
    "plan": (
        "search",
        "Show the most a run can spend, before anything is spent. Takes the options of 'run'.",
    ),
    "evaluate": (
        "inspect",
        "Score finished runs on test images: their own, another data set's, or behind other "
        "models.",
    ),
    "explain": (
        "inspect",
        "Show what each word of a run's text is worth, or the words nearest to its soft prompt.",
    ),
    "predict": ("predict", "Name the likeliest classes of images, with what a run found."),
    "runs": ("inspect", "List run folders, or delete some: what was asked, how it went, its cost."),
    "doctor": (
        "inspect",
        "Show versions, device, caches, data, keys (never their values), and what would not work.",
    ),
    "compare": (
        "compare",
        "Run optimizers × data sets × shots × seeds, or reuse equal runs, as one table.",
    ),
    "reproduce": ("reproduce", "The papers' tables, with our figures beside theirs."),
    "export": ("results", "Write the prompts a run found in the format of another tool."),
    "report": ("results", "Show runs on one self-contained HTML page; several are compared."),
    "serve": ("serve", "Put a model behind HTTP as a black box, with no more access than told."),
    "keys": ("keys", "Add, list and remove the keys of those who may use 'llmopt serve'."),
    "datasets": ("datasets", "Where tasks come from."),
    "models": ("models", "Black boxes and their access level."),
    "optimizers": ("methods", "Ways of searching, and their settings."),
    "heads": ("methods", "Heads that can be fitted, and their settings."),
    "docs": ("docs", "Show a page of the documentation, or explain a word: likelihood, nats …"),
}
"""Commands by name: the module of this package, and the line of the overview."""


def load(name: str) -> Any:
    """A command with its options."""
    loaded = typer.Typer()
    importlib.import_module(f"llmopt.cli.{COMMANDS[name][0]}").register(loaded)
    return typer.main.get_group(loaded).commands[name]


class _Commands(TyperGroup):
    """The overview has a line of each command; the one that is used is loaded."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name, (_, line) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=line))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, loaded, and the rest of them."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load(str(command.name)), rest


app = typer.Typer(
    cls=_Commands,
    name="llmopt",
    help="Find better prompts for a vision-language model you cannot open.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    if sys.stdout is None:  # closed: the next file that is opened would be taken for it
        _complain("standard output is closed; send it to /dev/null if nobody wants it")
        sys.exit(UserError.exit_code)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # in whatever encoding the terminal has
    if threading.current_thread() is threading.main_thread():
        # What stops containers and batch jobs ends as Ctrl-C does.
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as after nohup
                signal.signal(number, _interrupt)
    code = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _unheard(error)
    sys.exit(code)


_interrupts: list[int] = []


def _interrupt(number: int, frame: object) -> None:
    _interrupts.append(number)
    raise KeyboardInterrupt


def _run() -> Any:
    """Run the command, and say how it ended; the exit code."""
    _interrupts.clear()
    try:
        app()
    except LlmoptError as error:
        if _interrupts:  # PyTorch, for one, turns an interrupt in its midst into errors of its own
            _say_interrupted(error)
            return INTERRUPTED
        _complain(str(error))
        if error.docs:
            _complain(f"llmopt docs {error.docs}", prefix="more: ")
        for note in _notes(error):
            if "resume" not in str(error):
                _complain(f"nothing paid for is lost; {note}", prefix="")
        return error.exit_code
    except KeyboardInterrupt as stop:
        _say_interrupted(stop)
        return INTERRUPTED
    except SystemExit as end:
        # typer turns an interrupt into its own exit, without a word.
        cause = end.__context__.__cause__ if end.__context__ else None
        if isinstance(cause, KeyboardInterrupt):
            _say_interrupted(cause)
        return end.code
    except BaseException as error:
        if _interrupts:
            _say_interrupted(error)
            return INTERRUPTED
        # A file that cannot be written has a name; a stream has none.
        if isinstance(error, OSError) and error.filename is None and error.errno in _STREAM:
            return _unheard(error)
        return _last_resort(error)
    return 0


_STREAM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EBADF}
"""What a stream says that takes nothing more."""


def _unheard(error: OSError) -> int:
    """The output cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if not isinstance(error, BrokenPipeError):  # the reader of a pipe left on purpose
        _complain(f"cannot write the output: {error.strerror}; what runs found is in their folders")
    return UNHEARD


def _last_resort(error: BaseException) -> int:
    """What nobody has foreseen: a line for people, and a file for those who mend it."""
    import traceback

    where = "could not be written"
    number = "unknown"
    with contextlib.suppress(Exception):
        from llmopt.remote.scrub import Scrubber
        from llmopt.spend.files import default_cache_dir

        trace = Scrubber()("".join(traceback.format_exception(error)))
        number = f"{zlib.crc32(trace.encode('utf-8', 'backslashreplace')):08x}"
        folders = [vars(error).get("run_folder"), default_cache_dir() / "errors"]
        where = f"is in {_keep(trace, f'error-{number}.txt', [f for f in folders if f])}"
    _complain(
        f"llmopt has a fault: {type(error).__name__} (error {number}); the trace, without "
        f"secrets, {where}: please report it"
    )
    for note in _notes(error):
        _complain(f"nothing paid for is lost; {note}", prefix="")
    return FAULT


def _keep(trace: str, name: str, folders: list[Path]) -> Path:
    """Write a trace into the first folder that takes it.

    Raises:
        OSError: none does.
    """
    for folder in folders[:-1]:
        with contextlib.suppress(OSError):
            (folder / name).write_text(trace, encoding="utf-8", errors="backslashreplace")
            return folder / name
    folders[-1].mkdir(parents=True, exist_ok=True)
    (folders[-1] / name).write_text(trace, encoding="utf-8", errors="backslashreplace")
    return folders[-1] / name


def _say_interrupted(stop: BaseException) -> None:
    _complain("; ".join(["interrupted", *_notes(stop)]), prefix="")


def _notes(end: BaseException) -> list[str]:
    """How to go on, where there is a run folder (see :func:`llmopt.live.watching`)."""
    return getattr(end, "__notes__", [])


def _complain(text: str, prefix: str = "error: ") -> None:
    from llmopt.screen import printable

    with contextlib.suppress(OSError):
        typer.echo(printable(f"{prefix}{text}"), err=True)
