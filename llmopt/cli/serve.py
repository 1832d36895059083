"""``llmopt serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llmopt.cli import options as o

_PROTECTION = "Protection"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(serve)


def serve(
    model: o.ModelName = None,
    pretrained: o.Pretrained = None,
    device: o.Device = None,
    precision: o.Precision = None,
    decoder: o.Decoder = None,
    batch_size: o.BatchSize = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")
    ] = 8017,
    access: Annotated[
        str | None,
        typer.Option(
            "--access",
            help=r"labels, scores, features or soft. \[default: all it has]",
            rich_help_panel=_PROTECTION,
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            help="File of those who may come in (see 'llmopt keys'); needed beyond this machine.",
            rich_help_panel=_PROTECTION,
        ),
    ] = None,
    decimals: Annotated[
        int | None,
        typer.Option(
            "--round",
            min=0,
            max=9,
            help="Round scores to so many decimals.",
            rich_help_panel=_PROTECTION,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            min=1,
            help="Show scores below the k-th of an image as equal to it.",
            rich_help_panel=_PROTECTION,
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert", help="Certificate, in PEM: speak HTTPS.", rich_help_panel=_PROTECTION
        ),
    ] = None,
    private: Annotated[
        Path | None,
        typer.Option("--tls-key", help="Its private key, in PEM.", rich_help_panel=_PROTECTION),
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(
            "--audit",
            help="Append a line of JSON for each request: who, what, when; never content.",
            rich_help_panel=_PROTECTION,
        ),
    ] = None,
) -> None:
    """Put a model behind HTTP as a black box, with no more access than told.

    It speaks llmopt's protocol (use it with --blackbox URL), OpenAI's and Cohere's for embeddings
    and Hugging Face's for zero-shot classification; /docs describes them. Set LLMOPT_BLACKBOX_TOKEN
    here and for its users to ask all for one key.
    """
    import logging
    import os

    from llmopt._optional import require
    from llmopt.errors import ConfigError
    from llmopt.vision.base import Access
    from llmopt.vision.wire import TOKEN_VARIABLE

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, "serve", "llmopt serve")

    from llmopt.vision.openclip import OpenClipBlackBox
    from llmopt.vision.server.keys import Keys, level
    from llmopt.vision.server.run import BlackBoxServer
    from llmopt.vision.server.service import Protection

    if (certificate is None) != (private is None):
        raise ConfigError("--tls-cert and --tls-key belong together: give both")
    try:
        wanted = level(access) if access else Access.SOFT
    except ValueError as error:
        raise ConfigError(f"--access: {error}") from error
    known = Keys(keys, os.environ.get(TOKEN_VARIABLE))
    if keys and not known.entries:
        raise ConfigError(f"{keys} holds no key; add one with 'llmopt keys add {keys} NAME'")
    box = OpenClipBlackBox(
        model or "shapes-tiny",
        pretrained or "",
        device=device or "auto",
        precision=precision or "auto",
        decoder=decoder or "pillow",
        batch_size=batch_size,
    )
    offered = min(box.info.access, wanted)
    least = min([offered, *(key.access for key in known.entries)])
    if (decimals is not None or top_k is not None) and least >= Access.FEATURES:
        raise ConfigError(
            f"--round and --top-k keep nothing back from those who get '{least}', and nobody gets "
            "less; add --access scores, or keys with that"
        )
    server = BlackBoxServer(
        box,
        (host, port),
        offered,
        keys=known,
        protection=Protection(decimals, top_k),
        tls=(certificate, private) if certificate and private else None,
    )
    _audit(logging.getLogger("llmopt.serve"), audit)
    place = f"[{host}]" if ":" in host else host
    url = f"http{'s' * bool(certificate)}://{place}:{server.server_address[1]}"
    typer.echo(
        f"{box.info.name} offers '{offered}' at {url}; use it with: --blackbox {url} "
        "(Ctrl-C ends it)",
        err=True,
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
        typer.echo("stopped", err=True)


def _audit(log: Any, file: Path | None) -> None:
    """Write the log of requests to a file, and failures of the server also to the terminal."""
    import logging

    from llmopt.errors import ConfigError

    log.propagate = False
    log.setLevel(logging.INFO)
    shown = logging.StreamHandler()
    shown.setLevel(logging.ERROR)
    log.addHandler(shown)
    if file:
        try:
            kept = logging.FileHandler(file, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--audit {file} cannot be written: {error.strerror}") from error
        kept.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(kept)
