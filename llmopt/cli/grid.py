"""What commands that run many cells share: where those are run, and how the view of them goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from llmopt.errors import UNFINISHED

if TYPE_CHECKING:
    from llmopt.comparison.execute import Follow
    from llmopt.sweep.status import Status

WORKERS: Final = "Workers"
EVERY: Final = 2.0  # seconds between two views of --follow

Engine = Annotated[
    str, typer.Option("--engine", rich_help_panel=WORKERS, help="Where runs are made: local.")
]
Jobs = Annotated[
    str,
    typer.Option(
        "--jobs", "-j", rich_help_panel=WORKERS, help="Runs at a time; auto: as suits the machine."
    ),
]
MaxTotal = Annotated[
    list[str] | None,
    typer.Option(
        "--max-total",
        rich_help_panel=WORKERS,
        help="A cap over the whole grid, NAME=AMOUNT: usd=5 is --max-usd for all runs together, "
        "and likewise the others; repeatable.",
    ),
]
StatusOnly = Annotated[
    bool,
    typer.Option(
        "--status", rich_help_panel=WORKERS, help="Show where the grid stands; run nothing."
    ),
]
Following = Annotated[
    bool,
    typer.Option(
        "--follow", rich_help_panel=WORKERS, help="With --status: again and again, until all is "
        "done or Ctrl-C."
    ),
]  # fmt: skip


def follower(status: bool, follow: bool) -> Follow | None:
    """Draws where a grid stands until all of it is done, or somebody has seen enough.

    Raises:
        ConfigError: there is nothing to follow.
    """
    from llmopt.cli.show import say
    from llmopt.errors import ConfigError
    from llmopt.screen import Screen

    if follow and not status:
        raise ConfigError("--follow is for --status; give that too")
    if not follow:
        return None
    screen = Screen(stderr=True)

    def draw(found: Status) -> bool:
        if screen.is_terminal:
            screen.clear()
        for line in [*found.told(), *found.failures()]:
            say(screen, line)
        try:
            if not found.whole:
                time.sleep(EVERY)
        except KeyboardInterrupt:
            return True
        return found.whole

    return draw


def leave_unfinished(whole: bool) -> None:
    """End with an exit code that says whether the grid is whole."""
    if not whole:
        raise typer.Exit(UNFINISHED)
