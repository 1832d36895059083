"""Eight conversations with a slow language model: all at once against one after the other.

    .venv/bin/python benchmarks/parallel_chat.py

A local server that speaks OpenAI's protocol answers as the built-in rewriter would, one second
late. The real client asks it. Writes ``benchmarks/results/parallel_chat.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from llmopt.language.builtin import BuiltinRewriter
from llmopt.runs.compose import Given, choose_model, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.engine import start
from llmopt.spend.events import Watch

RESULTS = Path(__file__).parent / "results"
KINDS: dict[str, type[BaseMessage]] = {
    "system": SystemMessage,
    "user": HumanMessage,
    "assistant": AIMessage,
}


class SlowServer(ThreadingHTTPServer):
    """Answers chat completions after ``latency`` seconds."""

    daemon_threads = True
    latency = 1.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        began = time.monotonic()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = [KINDS[m["role"]](m["content"]) for m in body["messages"]]
        reply = BuiltinRewriter(seed=1).invoke(messages)
        time.sleep(max(0.0, self.server.latency - (time.monotonic() - began)))  # type: ignore[attr-defined]
        usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": reply.content},
        }
        data = json.dumps(
            {"id": "x", "object": "chat.completion", "created": 0, "model": "slow",
             "choices": [choice], "usage": usage}
        ).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serving(latency: float) -> Iterator[str]:
    server = SlowServer(("127.0.0.1", 0), _Handler)
    server.latency = latency
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--restarts", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--latency", type=float, default=1.0)
    arguments = parser.parse_args()

    box = choose_model(RunConfig()).open(Watch())
    with serving(arguments.latency) as url, tempfile.TemporaryDirectory() as runs:
        start(
            compose(RunConfig(optimizer="zeroshot", runs=runs), Given(box=box))
        )  # the caches are warm for all

        def timed(restarts: int, parallel: int) -> tuple[float, dict[str, Any]]:
            config = RunConfig(
                runs=runs,
                llm="openai:slow",
                llm_base_url=url,
                llm_settings={"cache": False},
                settings={"probes": 0, "restarts": restarts, "parallel": parallel,
                          "iterations": arguments.iterations},
            )  # fmt: skip
            before = time.monotonic()
            result = start(compose(config, Given(box=box)))
            return time.monotonic() - before, result

        timed(1, 1)
        longest, _ = timed(1, 1)
        together, one = timed(arguments.restarts, arguments.restarts)
        in_turn, other = timed(arguments.restarts, 1)
    same = all(one[part] == other[part] for part in ("best", "gain", "ledger", "stop_reason"))
    data = {
        "command": " ".join(["python", "benchmarks/parallel_chat.py", *sys.argv[1:]]),
        "restarts": arguments.restarts,
        "latency_seconds": arguments.latency,
        "calls_per_conversation": arguments.iterations,
        "one_conversation_seconds": round(longest, 2),
        "parallel_seconds": round(together, 2),
        "sequential_seconds": round(in_turn, 2),
        "parallel_over_one": round(together / longest, 2),
        "same_result": same,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "parallel_chat.json").write_text(json.dumps(data, indent=1) + "\n")
    text = (
        "# Conversations at the same time\n\n"
        f"`{data['command']}`: {arguments.restarts} conversations of at most "
        f"{arguments.iterations} calls with a model that takes {arguments.latency:g} s.\n\n"
        "| | seconds |\n|---|---|\n"
        f"| one conversation | {longest:.2f} |\n"
        f"| {arguments.restarts} with `parallel={arguments.restarts}` | {together:.2f} |\n"
        f"| {arguments.restarts} with `parallel=1` | {in_turn:.2f} |\n\n"
        f"All at once take {together / longest:.2f} times as long as one; the result is "
        f"{'the same' if same else 'NOT the same'} as one after the other.\n"
    )
    (RESULTS / "parallel_chat.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
