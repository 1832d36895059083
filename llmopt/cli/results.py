"""``export``: what a run found, in other tools' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmopt.cli import options as o


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(export)


def export(
    run: o.RunFolder,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="txt, json, csv, xlsx, openclip, openai, clip-benchmark, wds, hf, safetensors.",
        ),
    ] = "txt",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A file, or a folder for several; stdout if left out."),
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", help="This many templates: runners-up are added.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Name of the data set in the files, as clip_benchmark has it."),
    ] = None,
) -> None:
    """Write the prompts a run found in the format of another tool."""
    from llmopt.cli.live import watching
    from llmopt.errors import ConfigError
    from llmopt.export.formats import export as render
    from llmopt.export.formats import save

    with watching(quiet=out is None) as watch:
        exported = render(run, format, top, key, watch)
        for warning in exported.warnings:
            watch.warn(warning)
    if out is None:
        if not exported.text or len(exported.files) > 1:
            what = "is not text" if not exported.text else "is several files"
            raise ConfigError(f"format '{format}' {what}; say where it goes with --out")
        typer.echo(next(iter(exported.files.values())).decode("utf-8-sig"), nl=False)
        return
    for path in save(exported, out):
        typer.echo(f"wrote {path}", err=True)
