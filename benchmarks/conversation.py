"""What the conversation of ``chat`` finds, and at what cost, with models of several tempers.

    .venv/bin/python benchmarks/conversation.py

Simulated policies (``benchmarks/policies.py``) stand in for language models; each sees only the
messages. Two sets of tasks: the ten shapes tasks, whose answer is in the bank of probes, and ten
whose answer is not (``benchmarks/hidden.py``). Every run goes through the same engine as
``llmopt run``, with all defaults. ``conversation_before.json`` holds the same policies and tasks of
the first set, measured at commit 1930132, before there were probes. Writes
``benchmarks/results/conversation.json``, ``.md``, and three conversations to be read,
``conversation_talks.md``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from hidden import PAIRS, SYNONYMS, Remembering, deaf_box, names_hidden, pair_task
from policies import POLICIES
from shapes import RESULTS, knows

import llmopt
from llmopt.data.shapes import TASKS
from llmopt.report.story import read_story
from llmopt.runs.compose import choose_model
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch
from llmopt.spend.journal import read_journal

BEFORE = RESULTS / "conversation_before.json"
UNASKED = "none"
"""The policy that is never asked: probes only."""
TALKS = (("small", "builtin"), ("striped-red", "prober"), ("red", "chatterer"))
"""Of the second set, printed whole."""
Job = tuple[str, dict[str, Any], Callable[[str], bool]]
"""A task's name, what a run is given, and whether a template has the answer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--policies", nargs="+", default=[*POLICIES, UNASKED])
    parser.add_argument("--out", type=Path, default=RESULTS / "conversation")
    arguments = parser.parse_args()

    model = choose_model(RunConfig()).open(Watch())
    box = Remembering(model)
    known = [shapes_job(task, box) for task in TASKS]
    hidden = [deaf_job(concept, deaf_box(model, concept)) for concept in SYNONYMS]
    hidden += [pair_job(pair, box) for pair in PAIRS]
    sets = {"bank": (known, arguments.shots), "hidden": (hidden, [1])}
    rows = []
    for name, (jobs, shots_) in sets.items():
        for policy in arguments.policies:
            for shots in shots_:
                for job in jobs:
                    for seed in arguments.seeds:
                        row = {"set": name, **measure(job, shots, seed, policy)}
                        rows.append(row)
                        print(json.dumps(row), flush=True)
    talks = "\n\n".join(
        conversation(next(job for job in hidden if job[0] == name), policy)
        for name, policy in TALKS
    )
    command = " ".join(["python", "benchmarks/conversation.py", *sys.argv[1:]])
    before = json.loads(BEFORE.read_text())["runs"]
    summary = summaries(rows, before)
    arguments.out.with_suffix(".json").write_text(
        json.dumps({"command": command, "summary": summary, "runs": rows}, indent=1) + "\n"
    )
    arguments.out.with_suffix(".md").write_text(markdown(command, summary))
    arguments.out.with_name(f"{arguments.out.name}_talks.md").write_text(
        f"# Three conversations\n\n`{command}`\n\n{talks}\n"
    )


def shapes_job(task: str, box: Remembering) -> Job:
    return (
        task.removeprefix("shapes-"),
        {"dataset": task, "model": box},
        lambda text: knows(task, text),
    )


def deaf_job(concept: str, box: Remembering) -> Job:
    words = SYNONYMS[concept]
    given = {"dataset": f"shapes-{concept}", "model": box}
    return concept, given, lambda text: names_hidden(text, words)


def pair_job(pair: tuple[str, str], box: Remembering) -> Job:
    def both(text: str) -> bool:
        return all(knows(f"shapes-{one}", text) for one in pair)

    return "-".join(pair), {"pair": pair, "model": box}, both


def measure(job: Job, shots: int, seed: int, policy: str) -> dict[str, Any]:
    """One run."""
    name, _, answers = job
    folder = Path(tempfile.mkdtemp(prefix="llmopt-conversation-"))
    result = hold(job, shots, seed, policy, folder)
    ledger, template = result["ledger"], result["best"]["templates"][0]["text"]
    row = {
        "task": name,
        "shots": shots,
        "seed": seed,
        "policy": policy,
        "start": result["baseline"]["test_accuracy"],
        "best": result["best"]["test_accuracy"],
        "template": template,
        "planted": answers(template),
        "calls": ledger["llm_calls"],
        "calls_until": calls_until(Path(result["run"]), answers),
        "tokens": ledger["llm_tokens_in"] + ledger["llm_tokens_out"],
        "templates": ledger["text_encodings"] / result["task"]["classes"],
        "stop": result["stop_reason"],
    }
    shutil.rmtree(folder)
    return row


def hold(job: Job, shots: int, seed: int, policy: str, folder: Path) -> dict[str, Any]:
    """The result of one run in a folder."""
    given = dict(job[1])
    if pair := given.pop("pair", None):
        given["task"] = pair_task(pair, seed, 2)
    else:
        given["shots"] = shots
    if policy == UNASKED:
        given |= {"llm": "builtin", "settings": {"iterations": 0}}
    else:
        given["llm"] = POLICIES[policy](seed=seed)
    return dict(llmopt.run(seed=seed, runs=str(folder), progress=False, **given).result)


def calls_until(folder: Path, answers: Callable[[str], bool]) -> int | None:
    """Calls before the first template with the answer was scored; None if none was."""
    calls = 0
    for record in read_journal(folder / "journal.jsonl"):
        calls += record["kind"] == "llm_reply"
        if record["kind"] == "scored" and any(
            answers(one["text"]) for one in record["data"]["templates"]
        ):
            return calls
    return None


def summaries(rows: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> list[Any]:
    """A line for each set, policy and number of shots; the same before, where it is known."""
    found = []
    for key in dict.fromkeys((row["set"], row["policy"], row["shots"]) for row in rows):
        kind, policy, shots = key
        now = [row for row in rows if (row["set"], row["policy"], row["shots"]) == key]
        runs = {(row["task"], row["seed"]) for row in now}
        then = [
            row
            for row in before
            if kind == "bank"
            and (row["policy"], row["shots"]) == (policy, shots)
            and (row["task"], row["seed"]) in runs
        ]
        one = {"set": kind, "policy": policy, "shots": shots, "now": summarize(now)}
        found.append(one | ({"before": summarize(then)} if then else {}))
    return found


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over tasks and seeds."""
    until = [row["calls_until"] for row in rows if row["calls_until"] is not None]
    return {
        "runs": len(rows),
        "planted": sum(row["planted"] for row in rows),
        "start": round(100 * statistics.mean(row["start"] for row in rows), 1),
        "best": round(100 * statistics.mean(row["best"] for row in rows), 1),
        "calls": round(statistics.mean(row["calls"] for row in rows), 2),
        "met": len(until),
        "calls_until": round(statistics.mean(until), 2) if until else None,
        "tokens": round(statistics.mean(row["tokens"] for row in rows)),
        "templates": round(statistics.mean(row["templates"] for row in rows)),
    }


def markdown(command: str, summary: Sequence[dict[str, Any]]) -> str:
    """The result as a page."""
    lines = [
        "# Conversations with models of several tempers",
        "",
        f"`{command}`; means over tasks and seeds. `answer` counts runs whose final template says "
        "it, `met` those in which a template with it was scored, `until` the calls before that. "
        "Tokens are words. `before` is commit 1930132, without probes.",
    ]
    titles = {
        "bank": "Ten shapes tasks; the answer is in the bank of probes",
        "hidden": "Ten tasks whose answer is not in the bank: rare synonyms, two properties",
    }
    for kind, title in titles.items():
        lines += ["", f"## {title}", ""]
        lines += ["| model | shots | | answer | met | until | best | calls | tokens | templates |"]
        lines += ["|---|---|---|---|---|---|---|---|---|---|"]
        for one in summary:
            for when in ("before", "now"):
                if one["set"] == kind and (s := one.get(when)):
                    lines.append(
                        f"| {one['policy']} | {one['shots']} | {when} "
                        f"| {s['planted']} of {s['runs']} | {s['met']} | {s['calls_until']} "
                        f"| {s['best']} % | {s['calls']} | {s['tokens']:,} | {s['templates']} |"
                    )
    return "\n".join(lines) + "\n"


def conversation(job: Job, policy: str) -> str:
    """All that was said in one run."""
    folder = Path(tempfile.mkdtemp(prefix="llmopt-conversation-"))
    result = hold(job, 1, 1, policy, folder)
    story = read_story(Path(result["run"]), result["task"]["classes"])
    parts = [f"## {job[0]}, with {policy}", f"```\n{story.instructions}\n```"]
    for stream, turns in story.talks.items():
        for number, turn in enumerate(turns, start=1):
            parts += [f"### {stream}, turn {number}", f"```\n{turn.asked}\n```"]
            parts += ["Reply:", f"```\n{turn.reply}\n```"]
    parts.append(
        f"Chosen: `{result['best']['templates'][0]['text']}` ({result['best'].get('why')}); "
        f"{100 * result['baseline']['test_accuracy']:.1f} % to "
        f"{100 * result['best']['test_accuracy']:.1f} % on test images. "
        f"Stopped: {result['stop_reason']}."
    )
    shutil.rmtree(folder)
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
