"""What commands that run many cells share: where those are run, and how the view of them goes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llmopt.cli import options as o
from llmopt.errors import UNFINISHED

if TYPE_CHECKING:
    from llmopt.comparison.execute import Follow
    from llmopt.sweep.engine import Engine
    from llmopt.sweep.status import Status

WORKERS: Final = "Workers"
EVERY: Final = 2.0  # seconds between two views of --follow

_OPTIONS: Final[dict[str, Any]] = {
    "engine": Annotated[
        str | None,
        typer.Option(
            "--engine",
            rich_help_panel=WORKERS,
            help=r"Where runs are made: local, ray or slurm (a cluster). \[default: local]",
        ),
    ],
    "jobs": Annotated[
        str | None,
        typer.Option(
            "--jobs",
            "-j",
            rich_help_panel=WORKERS,
            help=r"Runs at a time; auto: as suits the machine. \[default: 1]",
        ),
    ],
    "worker_cpus": Annotated[
        float | None,
        typer.Option("--worker-cpus", rich_help_panel=WORKERS, help="Cores of each worker."),
    ],
    "worker_gpus": Annotated[
        float | None,
        typer.Option("--worker-gpus", rich_help_panel=WORKERS, help="GPUs of each worker."),
    ],
    "worker_memory": Annotated[
        float | None,
        typer.Option("--worker-memory", rich_help_panel=WORKERS, help="GiB of each worker."),
    ],
    "worker_minutes": Annotated[
        int | None,
        typer.Option(
            "--worker-minutes",
            min=1,
            rich_help_panel=WORKERS,
            help=r"Slurm: until a worker is queued again, and goes on. \[default: 60]",
        ),
    ],
    "ray_address": Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            rich_help_panel=WORKERS,
            help=r"A Ray cluster that is there, or auto. \[default: one is started here]",
        ),
    ],
    "slurm": Annotated[
        list[str] | None,
        typer.Option(
            "--slurm",
            rich_help_panel=WORKERS,
            help="An option of sbatch, KEY=VALUE (partition, account …); repeatable.",
        ),
    ],
    "print_script": Annotated[
        bool | None,
        typer.Option(
            "--print",
            rich_help_panel=WORKERS,
            help="Slurm: show what sbatch gets; run nothing.",
        ),
    ],
}


@dataclass(frozen=True)
class Chosen:
    """Where the runs of a command are made.

    Attributes:
        engine: that makes them.
        print: only show how.
    """

    engine: Engine
    print: bool

    def check(self) -> None:
        """See before anything is planned whether the engine has something to show.

        Raises:
            ConfigError: it has nothing.
        """
        from llmopt.errors import ConfigError
        from llmopt.sweep.slurm import SlurmEngine

        if self.print and not isinstance(self.engine, SlurmEngine):
            raise ConfigError("--print shows what sbatch is given; it is for --engine slurm")

    def show(self, runs: str, cells: int) -> None:
        """Print how so many cells that are left would be run below a folder."""
        from llmopt.sweep.slurm import SlurmEngine

        assert isinstance(self.engine, SlurmEngine)
        if cells:
            typer.echo(self.engine.script(Path(runs), cells))
        else:
            typer.echo("every cell is done: nothing would be submitted", err=True)


def takes_workers(command: o.Command) -> o.Command:
    """Let a command's parameter ``workers`` stand for the options that say where runs are made."""
    return o.expanded(command, "workers", _OPTIONS, _chosen)


def _chosen(told: Mapping[str, Any]) -> Chosen:
    from llmopt.runs.config import parse_assignments
    from llmopt.sweep.engine import Resources
    from llmopt.sweep.engines import Workers, choose_engine, parse_jobs

    workers = Workers(
        parse_jobs(told["jobs"] or "1"),
        Resources(*(told[f"worker_{name}"] or 0 for name in ("cpus", "gpus", "memory"))),
        told["worker_minutes"],
        parse_assignments(told["slurm"] or [], "--slurm"),
        told["ray_address"] or "",
    )
    return Chosen(choose_engine(told["engine"] or "local", workers), bool(told["print_script"]))


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
