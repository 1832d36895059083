"""A run in which every outside text tries to break what shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from paper_runs import paper_run

TEMPLATES = (
    "<script>alert(1)</script> {}",
    '=HYPERLINK("http://evil.example/x","{}")',
    "<img src=http://evil.example/i onerror=alert(2)> {}",
    "'\"><svg onload=alert(3)> {} & &amp; %7B </code></pre></style>",
    "😀 مرحبا {} $\\frac{1}$".replace("{1}", "1"),
    "]]> --> */ {} `${alert(4)}`".replace("{alert(4)}", "alert(4)"),
)
NAMES = (
    "<b onclick=alert(5)>cat",
    "\u202edrowkcab\u202c",
    "two\nlines\x1b[31m",
    "{}{0}{c}",
    "$x_1^2$ \\alpha",
    "=1+1",
    "😀🏳️‍🌈",
    "javascript:alert(6)",
)
REPLY = "</pre><script>document.title='owned'</script><iframe src='http://evil.example'></iframe>"


def proposals(count: int) -> Iterator[dict[str, object]]:
    """Templates in any number, each a little different."""
    for number in range(count):
        text = TEMPLATES[number % len(TEMPLATES)].replace("{}", f"number {number} {{}}")
        accuracy = (number * 37 % 101) / 100
        yield {"text": text, "train_accuracy": accuracy, "train_logprob": accuracy - 2.0}


def poisoned_run(root: Path, count: int = 60, seed: int = 1) -> Path:
    """A finished run with ``count`` proposals."""
    labels = [k % len(NAMES) for k in range(80)]
    talk = [["system", REPLY], ["human", REPLY * 3]]
    return paper_run(
        root,
        templates={TEMPLATES[0]: 0.5, TEMPLATES[1]: 0.5},
        runners_up=TEMPLATES[2:],
        classnames=NAMES,
        seed=seed,
        labels=labels,
        before=[0] * 80,
        after=labels[:70] + [0] * 10,
        events=[("scored", REPLY, {"templates": list(proposals(count))})],
        replies=[(talk, REPLY)] * 3,
        start="<u>start</u> {}",
    )
