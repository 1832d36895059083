"""``run``, ``resume`` and ``plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmopt.cli import options as o

if TYPE_CHECKING:
    from llmopt.handle import Run
    from llmopt.runs.config import RunConfig

INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(run)
    app.command()(resume)
    app.command()(plan)


def run(
    dataset: o.Dataset = None,
    shots: o.Shots = None,
    seed: o.Seed = None,
    classnames: o.ClassNames = None,
    template: o.StartTemplate = None,
    data_root: o.DataRoot = None,
    skip_unreadable: o.SkipUnreadable = None,
    optimizer: o.OptimizerName = None,
    settings: o.Set = None,
    head: o.Head = None,
    head_views: o.HeadViews = None,
    init_from: o.InitFrom = None,
    config: o.ConfigFile = None,
    model: o.ModelName = None,
    pretrained: o.Pretrained = None,
    blackbox: o.BlackBoxUrl = None,
    device: o.Device = None,
    precision: o.Precision = None,
    batch_size: o.BatchSize = None,
    llm: o.LlmName = None,
    llm_base_url: o.LlmBaseUrl = None,
    llm_settings: o.LlmSet = None,
    max_llm_calls: o.MaxLlmCalls = None,
    max_tokens: o.MaxTokens = None,
    max_usd: o.MaxUsd = None,
    max_queries: o.MaxQueries = None,
    max_seconds: o.MaxSeconds = None,
    runs: o.Runs = None,
    track: o.Track = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Search for better prompts on one task, then measure them once on its test images."""
    given = dict(locals())
    from llmopt import api
    from llmopt.live import watching

    del given["track"]
    options = _config(given)
    with watching(quiet=quiet or json, verbose=verbose) as watch:
        found = api.run(options, callbacks=[watch], progress=False, track=track)
    _finish(found, json=json, quiet=quiet)


def resume(
    run: o.RunFolder,
    skip_unreadable: o.SkipUnreadable = None,
    track: o.Track = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Go on where a run stopped, paying for nothing twice."""
    from llmopt import api
    from llmopt.live import watching

    with watching(quiet=quiet or json, verbose=verbose) as watch:
        found = api.resume(
            run,
            skip_unreadable=bool(skip_unreadable),
            callbacks=[watch],
            progress=False,
            track=track,
        )
    _finish(found, json=json, quiet=quiet)


def plan(
    dataset: o.Dataset = None,
    shots: o.Shots = None,
    seed: o.Seed = None,
    classnames: o.ClassNames = None,
    template: o.StartTemplate = None,
    data_root: o.DataRoot = None,
    skip_unreadable: o.SkipUnreadable = None,
    optimizer: o.OptimizerName = None,
    settings: o.Set = None,
    head: o.Head = None,
    head_views: o.HeadViews = None,
    init_from: o.InitFrom = None,
    config: o.ConfigFile = None,
    model: o.ModelName = None,
    pretrained: o.Pretrained = None,
    blackbox: o.BlackBoxUrl = None,
    device: o.Device = None,
    precision: o.Precision = None,
    batch_size: o.BatchSize = None,
    llm: o.LlmName = None,
    llm_base_url: o.LlmBaseUrl = None,
    llm_settings: o.LlmSet = None,
    max_llm_calls: o.MaxLlmCalls = None,
    max_tokens: o.MaxTokens = None,
    max_usd: o.MaxUsd = None,
    max_queries: o.MaxQueries = None,
    max_seconds: o.MaxSeconds = None,
    runs: o.Runs = None,
    json: o.Json = False,
) -> None:
    """Show the most a run can spend, before anything is spent. Takes the options of 'run'."""
    given = dict(locals())
    from llmopt import api
    from llmopt.cli.show import print_json, print_plan

    found = api.plan(_config(given))
    if json:
        print_json(found.to_json())
    else:
        print_plan(found)
    found.refuse_unpayable()


def _config(given: dict[str, Any]) -> RunConfig:
    """Flags over the config file over the defaults."""
    from llmopt.runs.config import RunConfig, parse_assignments, read_config

    path = given.pop("config")
    values: dict[str, Any] = read_config(path) if path else {}
    for name in ("json", "quiet", "verbose"):
        given.pop(name, None)
    for name in ("settings", "llm_settings"):
        pairs = parse_assignments(given.pop(name) or [])
        if pairs:
            values[name] = {**values.get(name, {}), **pairs}
    values.update(
        {k: str(v) if isinstance(v, Path) else v for k, v in given.items() if v is not None}
    )
    return RunConfig.from_mapping(values, str(path) if path else "the options")


def _finish(found: Run, *, json: bool, quiet: bool) -> None:
    from llmopt.cli.show import print_json, print_result

    if json:
        print_json(found.result)
    else:
        print_result(found.result, brief=quiet)
    if found.status == "interrupted":
        raise typer.Exit(INTERRUPTED)
