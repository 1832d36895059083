"""``llmopt keys``: who may use a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmopt.cli import options as o

File = Annotated[Path, typer.Argument(metavar="FILE", help="As given to 'llmopt serve --keys'.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the key, in logs and metrics.")]


app = typer.Typer(
    no_args_is_help=True, help="Add, list and remove the keys of those who may use 'llmopt serve'."
)


def register(root: typer.Typer) -> None:
    """Add the commands to the app."""
    root.add_typer(app, name="keys")


@app.command()
def add(
    file: File,
    name: Name,
    access: Annotated[
        str, typer.Option("--access", help="The most it is given: labels, scores, features, soft.")
    ] = "soft",
    per_minute: Annotated[
        int | None, typer.Option("--per-minute", min=1, help="Requests a minute.")
    ] = None,
    max_queries: Annotated[
        int | None, typer.Option(min=0, help="Prompts encoded, over the key's whole life.")
    ] = None,
    max_images: Annotated[int | None, typer.Option(min=0, help="Images encoded, likewise.")] = None,
    max_pairs: Annotated[int | None, typer.Option(min=0, help="Pairs scored, likewise.")] = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="Requests, likewise.")] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="It may read /metrics, which tells of all keys.")
    ] = False,
) -> None:
    """Add a key and print it; only its hash is kept, so it cannot be shown again."""
    from llmopt.errors import ConfigError
    from llmopt.vision.server import keys

    quotas = {
        "queries": max_queries,
        "image_encodings": max_images,
        "pairs_scored": max_pairs,
        "black_box_calls": max_calls,
    }
    try:
        level = keys.level(access)
    except ValueError as error:
        raise ConfigError(f"--access: {error}") from error
    given = {cap: most for cap, most in quotas.items() if most is not None}
    typer.echo(keys.add(file, name, level, per_minute, given, metrics))


@app.command("list")
def show(file: File, json: o.Json = False) -> None:
    """List the keys of a file: level, rate, quotas and what was spent of them."""
    from llmopt.cli.show import print_json
    from llmopt.vision.server.keys import Keys

    known = Keys(file)
    if json:
        print_json(
            [
                key.model_dump(mode="json", exclude={"sha256"}) | known.spent(key)
                for key in known.entries
            ]
        )
        return
    for key in known.entries:
        spent = known.spent(key)["spent"]
        quotas = [f"{spent.get(cap, 0):,} of {most:,} {cap}" for cap, most in key.quotas.items()]
        rate = f"{key.per_minute} a minute" if key.per_minute else "any rate"
        metrics = ["/metrics"] * key.metrics
        typer.echo(f"{key.name}: {', '.join([str(key.access), rate, *metrics, *quotas])}")


@app.command()
def remove(file: File, name: Name) -> None:
    """Remove a key; who has it is refused once the server is started anew."""
    from llmopt.errors import ConfigError, nearest
    from llmopt.vision.server.keys import read, write

    known = read(file)
    left = [key for key in known if key.name != name]
    if len(left) == len(known):
        names = [key.name for key in known]
        raise ConfigError(f"{file} has no key '{name}'{nearest(name, names)}")
    write(file, left)
