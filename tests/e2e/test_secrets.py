"""A key is used, and stands in nothing a run writes or prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import done
from hostile_server import HostileServer

SECRET = "sk-proj-7Qm2Zr4Tn8Vb6Xc1"
HEADER = "tenant-secret-5f3a9d"


def test_no_secret_is_written_or_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = [sys.executable, "-c", "from llmopt.cli.app import main; main()"]
    script = ["401", "key in reply"]  # both quote the key back, as some services do
    monkeypatch.setenv("MY_KEY", SECRET)
    monkeypatch.setenv("TENANT", HEADER)
    monkeypatch.setenv("LLMOPT_CACHE", str(tmp_path / "cache"))
    outputs = []
    with HostileServer(script) as server:
        options = (
            "--set=probes=0", "--set=restarts=1", "--set=iterations=2", "--set=pool=4",
            "--set=proposals=2",
            "--llm=openai:scripted", f"--llm-base-url={server.url}", "--llm-set=key_env=MY_KEY",
            "--llm-set=headers=X-Tenant: $TENANT", "-v",
        )  # fmt: skip
        runs = ["--runs", str(tmp_path / "runs")]
        first = subprocess.run([*program, "run", *options, *runs], capture_output=True, check=False)
        outputs.append(first)
        (folder,) = (tmp_path / "runs").iterdir()
        if first.returncode != 0:
            outputs.append(
                subprocess.run(
                    [*program, "resume", str(folder), "-v", "--trust-config"],
                    capture_output=True,
                    check=False,
                )
            )
        assert any(SECRET in header for header in server.authorizations)
    assert outputs[-1].returncode == 0, outputs[-1].stderr.decode()
    said = [text for output in outputs for text in (output.stdout, output.stderr)]
    for more in (["report", str(folder)], ["runs", *runs], ["doctor"], ["export", str(folder)]):
        ended = done(*more)
        said += [ended.out.encode(), ended.err.encode()]
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"config.toml", "journal.jsonl", "result.json", "report.html"} <= {
        path.name for path in written
    }
    for secret in (SECRET.encode(), HEADER.encode()):
        for path in written:
            assert secret not in path.read_bytes(), path
        assert not any(secret in text for text in said)
