"""Whatever clients send, a server takes no more memory the longer they do."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from llmopt.vision.wire import pack_array

ROUNDS, GROWTH = 12, 8 * 2**20


@cache
def png(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@contextmanager
def server(tmp_path: Path) -> Iterator[tuple[int, str, str]]:
    """The command as people start it: process, address, and a key."""
    command = [sys.executable, "-c", "from llmopt.cli.app import main; main()"]
    keys = str(tmp_path / "keys.json")
    added = subprocess.run([*command, "keys", "add", keys, "ada"], capture_output=True, check=True)
    serve = [*command, "serve", "--model", "shapes-tiny", "--port", "0", "--keys", keys]
    log = tmp_path / "log"  # not a pipe, which nobody empties
    with log.open("w") as file:
        process = subprocess.Popen(serve, stdout=file, stderr=file)
    try:
        late = time.monotonic() + 120
        while not (found := re.findall(r"http://[\d.:]+", log.read_text())):
            assert time.monotonic() < late
            time.sleep(0.1)
        yield process.pid, found[0], added.stdout.decode().strip()
    finally:
        process.kill()
        process.wait()


def resident(pid: int) -> int:
    """Bytes in memory."""
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def chunks() -> Iterator[bytes]:
    for _ in range(70):
        yield b"x" * 2**20


def nonsense(n: int) -> list[tuple[str, Any]]:
    """Paths and what is sent there; another each time, where that could be remembered."""
    nan = pack_array(np.full((1, 2, 32), np.nan, np.float32))
    return [
        ("/images", {"images": [png(12_000, 12_000)]}),
        ("/images", {"images": [png(2_000, 2_000), "bm90IGEgcGljdHVyZQ==", png(1, 1)]}),
        ("/texts", {"prompts": [f"{n} {k}" for k in range(20_001)]}),
        ("/texts", {"prompts": [f"{n}" * 3_000]}),
        ("/soft", {"contexts": nan, "classnames": ["a"]}),
        ("/scores", {"images": [{"sha256": f"{n:064x}"}], "prompts": ["a"]}),
        ("/v1/embeddings", {"input": [f"http://169.254.169.254/{n}"], "modality": "image"}),
        ("/texts", b'{"prompts": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        ("/texts", chunks() if n % ROUNDS == 0 else b""),
        (f"/nowhere/{n}", {}),
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
def test_nonsense_leaves_nothing_behind(tmp_path: Path) -> None:
    with server(tmp_path) as (pid, url, key), httpx.Client(timeout=60) as client:

        def send(first: int) -> int:
            for n in range(first, first + ROUNDS):
                for path, body in nonsense(n):
                    content = json.dumps(body).encode() if isinstance(body, dict) else body
                    for token in (key, f"wrong-{n}"):
                        headers = {
                            "Authorization": f"Bearer {token}", "Content-Type": "application/json"
                        }  # fmt: skip
                        with suppress(httpx.TransportError):  # closed while more is being sent
                            answer = client.post(url + path, content=content, headers=headers)
                            assert 400 <= answer.status_code < 500
            return resident(pid)

        first = send(0)
        last = send(ROUNDS), send(2 * ROUNDS)
        assert client.get(f"{url}/health").json() == {"status": "ok"}
    assert last[-1] - first < GROWTH
