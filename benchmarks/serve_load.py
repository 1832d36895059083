"""Many clients at once against one after the other, on ``llmopt serve``.

    .venv/bin/python benchmarks/serve_load.py

A server of its own process serves ``shapes-tiny``; 32 clients of four keys ask it for thirty
seconds in all, in turns with one client that asks alone, so that what else the machine does weighs
on both. A request holds prompts that nobody asked for before, or a new picture. Writes
``benchmarks/results/serve_load.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from llmopt.vision.wire import pack_image

RESULTS = Path(__file__).parent / "results"
KEYS = ("ada", "ben", "cy", "dot")
WORDS = "small large red green blue striped solid left right round bright dark".split()  # noqa: SIM905
MAIN = "from llmopt.cli.app import main; main()"
SHARE = 4
"""One request of so many is a picture; the others are prompts."""


@dataclass
class Phase:
    """What clients saw.

    Attributes:
        seconds: it took.
        times: of each request, seconds.
        by_key: requests answered.
        errors: answers with another status than 200, by status.
    """

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    by_key: Counter[str] = field(default_factory=Counter)
    errors: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.times) / self.seconds

    def within(self, share: float) -> float:
        """Seconds within which that share of the requests was answered."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--model", default="shapes-tiny")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = asyncio.run(measure(arguments, Path(folder)))
    data = {"command": f"python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}".strip(),
            **data}  # fmt: skip
    (RESULTS / "serve_load.json").write_text(json.dumps(data, indent=1) + "\n")
    (RESULTS / "serve_load.md").write_text(page(data))
    print(page(data))


async def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both kinds of phases in turns."""
    keys, llmopt = folder / "keys.json", [sys.executable, "-c", MAIN]
    secrets = {}
    for name in KEYS:
        done = subprocess.run([*llmopt, "keys", "add", keys, name], capture_output=True, text=True,
                              check=True)  # fmt: skip
        secrets[name] = next(w for w in (done.stdout + done.stderr).split() if len(w) > 30)
    options = ["serve", "--model", arguments.model, "--device", "cpu", "--port", "0"]
    server = subprocess.Popen([*llmopt, *options, "--keys", str(keys)], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        assert server.stdout is not None
        said = iter(server.stdout.readline, "")
        url = next(m[0] for line in said if (m := re.search(r"http://127\.0\.0\.1:\d+", line)))
        alone, together = Phase(), Phase()
        each = arguments.seconds / arguments.rounds
        limits = httpx.Limits(max_connections=arguments.clients)
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
            await ask(client, secrets, arguments.prompts, Phase(), clients=1, seconds=1.0)
            for _ in range(arguments.rounds):
                await ask(client, secrets, arguments.prompts, alone, clients=1, seconds=each)
                await ask(client, secrets, arguments.prompts, together, arguments.clients, each)
            healthy = (await client.get("/health")).status_code == 200
    finally:
        server.terminate()
        server.wait(60)
    counts = [together.by_key[name] for name in KEYS]
    return {
        "model": arguments.model,
        "clients": arguments.clients,
        "seconds": arguments.seconds,
        "prompts": arguments.prompts,
        "requests": len(together.times),
        "errors": sum(together.errors.values()) + sum(alone.errors.values()),
        "healthy": healthy,
        "rates": {"one": alone.rate, "many": together.rate},
        "times_as_many": together.rate / alone.rate,
        "p99_over_median": together.within(0.99) / together.within(0.5),
        "p99_over_alone": together.within(0.99) / alone.within(0.99),
        "fairness": min(counts) / max(counts),
    }


async def ask(
    client: httpx.AsyncClient,
    secrets: dict[str, str],
    prompts: int,
    phase: Phase,
    clients: int,
    seconds: float,
) -> None:
    """Ask for so long; each client waits for its answer before it asks again."""
    began = time.perf_counter()

    async def one(number: int) -> None:
        name = KEYS[number % len(KEYS)]
        headers = {"Authorization": f"Bearer {secrets[name]}"}
        rng = random.Random(f"{number} {began}")
        while time.perf_counter() - began < seconds:
            path, body = request(rng, prompts)
            sent = time.perf_counter()
            answer = await client.post(path, json=body, headers=headers)
            phase.times.append(time.perf_counter() - sent)
            phase.by_key[name] += 1
            if answer.status_code != 200:
                phase.errors[answer.status_code] += 1

    await asyncio.gather(*map(one, range(clients)))
    phase.seconds += time.perf_counter() - began


def request(rng: random.Random, prompts: int) -> tuple[str, dict[str, Any]]:
    """A path and a body that the server has never seen."""
    if rng.randrange(SHARE):
        words = [" ".join(rng.choices(WORDS, k=6)) for _ in range(prompts)]
        return "/texts", {"prompts": [f"a photo of a {some} thing." for some in words]}
    pixels = np.frombuffer(rng.randbytes(48 * 48 * 3), dtype=np.uint8).reshape(48, 48, 3)
    return "/images", {"images": [pack_image(Image.fromarray(pixels))]}


def page(data: dict[str, Any]) -> str:
    """The result for people."""
    model, seconds, prompts = data["model"], f"{data['seconds']:g} s", data["prompts"]
    clients = data["clients"]
    return f"""# Many clients at once

`{data["command"]}`: `llmopt serve --model {model}` on two CPU cores that its clients and other work
share. {clients} clients with {len(KEYS)} keys ask for {seconds}, in turns with one that asks
alone. Three requests of four hold {prompts} new prompts, the fourth a new picture.

| | |
|---|---|
| requests answered | {data["requests"]:,} |
| errors | {data["errors"]} |
| throughput over that of one client | {data["times_as_many"]:.2f} times |
| 99th percentile of waiting over the median | {data["p99_over_median"]:.2f} times |
| the same over the 99th percentile of the client alone | {data["p99_over_alone"]:.2f} times |
| requests of the key served least over those of the key served most | {data["fairness"]:.3f} |
| healthy afterwards | {"yes" if data["healthy"] else "no"} |
"""


if __name__ == "__main__":
    main()
