"""``run``, ``resume`` and ``plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from llmopt.cli import options as o
from llmopt.errors import INTERRUPTED
from llmopt.runs.config import RunConfig

if TYPE_CHECKING:
    from llmopt.handle import Run


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(run)
    app.command()(resume)
    app.command()(plan)


@o.takes_config()
def run(
    config: RunConfig,
    track: o.Track = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Search for better prompts on one task, then measure them once on its test images."""
    from llmopt import api
    from llmopt.live import watching

    with watching(quiet=quiet or json, verbose=verbose) as watch:
        found = api.run(config, callbacks=[watch], progress=False, track=track)
    _finish(found, json=json, quiet=quiet, verbose=verbose)


@o.takes_changes(
    "llm", "llm_base_url", "skip_unreadable", "max_llm_calls", "max_tokens", "max_usd",
    "max_queries", "max_seconds", "max_images", "max_pairs", "max_box_calls",
)  # fmt: skip
def resume(
    run: o.RunFolder,
    *,
    changes: dict[str, Any],
    trust_config: o.TrustConfig = None,
    track: o.Track = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Go on where a run stopped, paying for nothing twice.

    Other caps, or another language model or address, hold for the rest of it.
    """
    from llmopt import api
    from llmopt.live import watching

    with watching(quiet=quiet or json, verbose=verbose) as watch:
        found = api.resume(
            run,
            trust_config=bool(trust_config),
            callbacks=[watch],
            progress=False,
            track=track,
            **changes,
        )
    _finish(found, json=json, quiet=quiet, verbose=verbose)


@o.takes_config()
def plan(config: RunConfig, json: o.Json = False) -> None:
    """Show the most a run can spend, before anything is spent. Takes the options of 'run'."""
    from llmopt import api
    from llmopt.cli.show import print_json, print_plan

    found = api.plan(config)
    if json:
        print_json(found.to_json())
    else:
        print_plan(found)
    found.refuse_unpayable()


def _finish(found: Run, *, json: bool, quiet: bool, verbose: bool) -> None:
    from llmopt.cli.show import print_json, print_result

    result = found.result | {"run": str(found.folder)}  # from here, wherever it was made from
    if json:
        print_json(result)
    else:
        print_result(result, brief=quiet, verbose=verbose)
    if found.status == "interrupted":
        raise typer.Exit(INTERRUPTED)
