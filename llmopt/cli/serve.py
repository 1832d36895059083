"""``llmopt serve``."""

from __future__ import annotations

from typing import Annotated

import typer

from llmopt.cli import options as o


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(serve)


def serve(
    model: o.ModelName = None,
    pretrained: o.Pretrained = None,
    device: o.Device = None,
    precision: o.Precision = None,
    batch_size: o.BatchSize = None,
    access: Annotated[
        str | None,
        typer.Option("--access", help=r"labels, scores, features or soft. \[default: all it has]"),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")
    ] = 8017,
) -> None:
    """Put a model behind HTTP as a black box, with no more access than told.

    Set LLMOPT_BLACKBOX_TOKEN here and for its users to ask for a token.
    """
    import os

    from llmopt.errors import ConfigError, nearest
    from llmopt.vision.base import Access
    from llmopt.vision.openclip import OpenClipBlackBox
    from llmopt.vision.server.app import BlackBoxServer
    from llmopt.vision.wire import TOKEN_VARIABLE

    levels = {str(level): level for level in Access}
    if access is not None and access not in levels:
        raise ConfigError(
            f"unknown access level '{access}'{nearest(access, levels)} "
            f"(there are: {', '.join(levels)})"
        )
    box = OpenClipBlackBox(
        model or "shapes-tiny",
        pretrained or "",
        device=device or "auto",
        precision=precision or "auto",
        batch_size=batch_size,
    )
    level = levels[access] if access else None
    try:
        server = BlackBoxServer(box, (host, port), level, os.environ.get(TOKEN_VARIABLE))
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    url = f"http://{host}:{server.server_address[1]}"
    typer.echo(
        f"{box.info.name} offers '{server.access}' at {url}; use it with: --blackbox {url} "
        "(Ctrl-C ends it)",
        err=True,
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    finally:
        server.server_close()
