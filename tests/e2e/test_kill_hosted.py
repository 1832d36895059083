"""kill -9 while a hosted model is asked: no answer that came is paid for again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from seeing_server import SeeingServer
from service_server import ServiceServer

AT_ONCE = 4
COMMAND = (sys.executable, "-c", "from llmopt.cli.app import main; main()")
CASES: dict[str, tuple[str, AbstractContextManager[Any], int]] = {
    "chat": ("chat:openai:seer", SeeingServer(odd=0.1), 40),
    "cohere": ("cohere:embed-v4.0", ServiceServer("cohere"), 24),
    "voyage": ("voyage:voyage-multimodal-3.5", ServiceServer("voyage"), 24),
    "gemini": ("gemini:gemini-embedding-2", ServiceServer("gemini"), 24),
    "vertex": ("vertex:project/us-central1", ServiceServer("vertex"), 30),
    "roboflow": ("roboflow:ViT-B-16", ServiceServer("roboflow"), 24),
    "infinity": ("openai-embeddings:clip", ServiceServer("openai-embeddings/infinity"), 36),
    "hf": ("hf:openai/clip", ServiceServer("hf"), 40),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_what_came_before_the_kill_is_not_asked_for_again(name: str, tmp_path: Path) -> None:
    address, context, asked = CASES[name]
    with context as server:
        options = (
            "--dataset=shapes-small", "--shots=1", "--optimizer=random", "--set=evaluations=6",
            f"--blackbox={address}", f"--blackbox-set=base_url={server.url}",
            f"--blackbox-set=at_once={AT_ONCE}", "--blackbox-set=first_pause=0",
            f"--runs={tmp_path / 'runs'}", "--quiet",
            *([] if name in ("chat", "hf") else ["--blackbox-set=batch=2"]),
            *(["--blackbox-set=dialect=infinity"] if name == "infinity" else []),
        )  # fmt: skip
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        running = subprocess.Popen([*COMMAND, "run", *options], env=env, stderr=subprocess.DEVNULL)
        late = time.monotonic() + 60
        while server.requests < asked and time.monotonic() < late:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        (folder,) = (tmp_path / "runs").iterdir()
        subprocess.run([*COMMAND, "resume", str(folder), "--quiet"], env=env, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        counts = server.asked
        times = [n if isinstance(n, int) else len(n) for n in counts.values()]
        # In flight when it died: answers that came to nobody, told as lost.
        result = json.loads((folder / "result.json").read_text())
        assert result["status"] == "complete"
        requests = server.requests
        subprocess.run([*COMMAND, "run", *options], env=env, check=True, stdout=subprocess.DEVNULL)
        assert server.requests == requests
    (again,) = set((tmp_path / "runs").iterdir()) - {folder}
    other = json.loads((again / "result.json").read_text())
    assert other["best"] == result["best"]
    lost = 0
    for part in ("ledger", "evaluation"):
        assert other[part].pop("box_answers_kept") > 0  # told, and all else is as it was
        lost += result[part].pop("box_calls_lost", 0)
        assert bool(result[part].pop("box_usd_lost", 0)) <= bool(other[part].get("box_usd"))
        assert other[part] == result[part]
    assert sum(n - 1 for n in times) <= lost * (1 if name in ("chat", "hf") else 2)
    assert lost <= AT_ONCE
