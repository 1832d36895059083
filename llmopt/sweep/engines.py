"""Engines by name, with what people may say of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from llmopt.errors import ConfigError, nearest
from llmopt.sweep.engine import Engine, Resources
from llmopt.sweep.local import LocalEngine
from llmopt.sweep.ray import RayEngine
from llmopt.sweep.slurm import SlurmEngine

Jobs = int | Literal["auto"]
NAMES: Final = ("local", "ray", "slurm")


@dataclass(frozen=True)
class Workers:
    """What workers are asked for.

    Attributes:
        jobs: at a time.
        each: what each is given, where an engine deals it out.
        minutes, slurm: of Slurm: until a worker is put back into the queue, and options of sbatch.
        ray_address: of a Ray cluster that is there.
    """

    jobs: Jobs = 1
    each: Resources = field(default_factory=Resources)
    minutes: int | None = None
    slurm: Mapping[str, str] = field(default_factory=dict)
    ray_address: str = ""


def choose_engine(engine: str | Engine, workers: Workers) -> Engine:
    """An engine by its name, or as it is given.

    Args:
        engine: one of :data:`NAMES`, or an engine.
        workers: of one that is named.

    Raises:
        ConfigError: there is none of that name, or it does not take what is asked for.
    """
    if not isinstance(engine, str):
        return engine
    if engine not in NAMES:
        raise ConfigError(
            f"unknown engine '{engine}'{nearest(engine, NAMES)} (there are: {', '.join(NAMES)})"
        )
    _refuse_foreign(engine, workers)
    if engine == "local":
        return LocalEngine(workers.jobs)
    if engine == "ray":
        return RayEngine(workers.jobs, workers.each, workers.ray_address)
    if workers.jobs == "auto":
        raise ConfigError("--jobs auto: Slurm has to be told how many workers may run at a time")
    return SlurmEngine(
        workers.jobs, workers.each, workers.minutes or SlurmEngine.minutes, workers.slurm
    )


def _refuse_foreign(engine: str, workers: Workers) -> None:
    """Refuse what only another engine would heed."""
    for flags, given, takers in (
        ("--worker-cpus, -gpus and -memory", workers.each != Resources(), ("ray", "slurm")),
        ("--worker-minutes", workers.minutes is not None, ("slurm",)),
        ("--slurm", bool(workers.slurm), ("slurm",)),
        ("--ray-address", bool(workers.ray_address), ("ray",)),
    ):
        if given and engine not in takers:
            raise ConfigError(f"{flags}: not for --engine {engine}, but for {', '.join(takers)}")


def parse_jobs(text: str) -> Jobs:
    """A number of workers, or ``auto``.

    Raises:
        ConfigError: it is neither.
    """
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdecimal() and 0 < int(text) <= 10_000:
        return int(text)
    raise ConfigError(f"--jobs {text!r} must be a number of runs at a time, or auto")
