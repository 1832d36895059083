"""``export`` and ``report``: what runs found, for other tools and for other people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmopt.cli import options as o


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(export)
    app.command()(report)


def export(
    run: o.RunFolder,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="txt, json, csv, xlsx, openclip, openai, clip-benchmark, cupl, wds, hf, "
            "safetensors. As --out ends if left out, else txt.",
            show_default=False,
        ),
    ] = "",
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
    trust_config: o.TrustConfig = None,
    json: o.Json = False,
) -> None:
    """Write the prompts a run found in the format of another tool."""
    from llmopt.cli.show import print_json, print_text
    from llmopt.export.formats import export as render
    from llmopt.export.formats import save
    from llmopt.live import watching

    if not format:
        ending = out.suffix.lower().removeprefix(".") if out else ""
        format = ending if ending in ("json", "csv", "xlsx", "safetensors") else "txt"
    with watching(quiet=out is None or json) as watch:
        exported = render(run, format, top, key, watch, bool(trust_config))
        for warning in exported.warnings:
            watch.warn(warning)
    told = {"format": format, "warnings": list(exported.warnings)}
    if out is None:
        text = exported.single_text(format)
        print_json(told | {"content": text}) if json else print_text(text)
        return
    written = save(exported, out)
    if json:
        print_json(told | {"files": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(f"wrote {path}", err=True)


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or folders of them.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help=r"The page. \[default: report.html in the run folder; here, for several runs]",
        ),
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Also every figure as a PNG, into this folder.")
    ] = None,
    open: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    json: o.Json = False,
) -> None:
    """Show runs on one self-contained HTML page; several are compared.

    Of more than eight, each has a page of its own in a folder beside it. Unfinished and damaged
    ones are left out and listed.
    """
    import webbrowser

    from llmopt.cli.show import print_json
    from llmopt.live import watching
    from llmopt.report.page import build, save, save_pictures
    from llmopt.runs.folder import each

    runs = each(runs)
    path = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    pictures: list[Path] = []
    with watching(quiet=json) as watch:
        watch.stage(f"drawing {len(runs)} run{'s' * (len(runs) > 1)}")
        page = build(runs)
        for why in page.left_out.values():
            watch.warn(f"left out: {why}")
        save(page, path)
        if page.apart:
            watch.note(f"each of the {len(page.records)} runs has a page beside it")
        if png is not None:
            pictures = save_pictures(page, png)
            watch.note(f"wrote {len(pictures)} pictures into {png}")
    if json:
        left_out = {str(folder): str(error) for folder, error in page.left_out.items()}
        shown = [str(record.folder) for record in page.records]
        drawn = [str(picture) for picture in pictures]
        print_json(
            {"schema": 1, "page": str(path), "runs": shown, "left_out": left_out, "pictures": drawn}
        )
    else:
        typer.echo(str(path))
    if open:
        webbrowser.open(path.resolve().as_uri())
