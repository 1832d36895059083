"""Results as tables for people and as JSON for machines. Results go to stdout."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.text import Text

from llmopt.errors import CAP_BROKEN
from llmopt.figures import interval, p_text, percent, points
from llmopt.metrics import METRICS
from llmopt.runs.baselines import LABELS
from llmopt.runs.told import STAGES, counts, of_classes, stages, unaided
from llmopt.screen import UNSEEN, Screen, printable, wrapped
from llmopt.spend.currency import CAPS, Spend, amount, briefly, label, worth_telling
from llmopt.tables import print_table, text_columns

if TYPE_CHECKING:
    from llmopt.runs.plan import Plan

_MEMBERS: Final = 3  # of an ensemble that are named
_LABEL: Final = 7  # cells of "best:  " and the like


def console() -> Console:
    """Where results go."""
    return Screen()


def say(out: Console, text: str, style: str = "", *, whole: bool = False, hang: int = 0) -> None:
    """Prose: for a terminal in lines that end between words, for a pipe in one.

    Args:
        out: where to.
        text: paragraphs.
        style: of all of it.
        whole: it is to be copied, and stays one line.
        hang: blanks before the lines after the first one.
    """
    if out.is_terminal and not whole:
        text = wrapped(text, out.width, hang)
    out.print(Text(text, style=style), soft_wrap=True)


def command(*words: object) -> str:
    """A command of llmopt that a shell takes as it stands."""
    return f"llmopt {shlex.join(map(str, words))}"


def print_json(data: Any) -> None:
    """Exactly one JSON document on stdout; what a terminal would obey is escaped."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    # What json leaves as it is stands within strings, where its number means the same.
    print(UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_text(text: str) -> None:
    """A file's content on stdout: as it is for programs, printable for people."""
    seen = sys.stdout.isatty()
    print(printable(text.replace("\r\n", "\n")) if seen else text, end="")


def print_result(result: dict[str, Any], brief: bool = False, verbose: bool = False) -> None:
    """The end of a run: what was found, how sure it is, what it cost, what to do next."""
    out = console()
    baseline, best, gain, task = (result[k] for k in ("baseline", "best", "gain", "task"))
    measured = best["test_accuracy"] is not None
    if brief:
        for one in best["templates"]:
            say(out, one["text"], whole=True)
        if measured:
            say(out, f"{percent(baseline['test_accuracy'])} -> {percent(best['test_accuracy'])}")
        say(out, result["run"], whole=True)
        return
    test = f"test ({task['test_images']:,} images)" if measured else "test"
    print_table(
        out,
        text_columns("", f"train ({task['train_images']:,})", f"val ({task['val_images']:,})",
                     test, "95 % interval"),
        [
            (
                name,
                *(percent(row.get(f"{part}_accuracy")) for part in ("train", "val", "test")),
                interval(row["test_accuracy_ci95"]),
            )
            for name, row in (
                ("start", baseline),
                *_ensembles(result),
                ("before asking", result.get("before_llm")),
                ("best", best),
            )
            if row is not None
        ],
        title=f"{task['dataset']}, {_shots(task)}, seed {task['seed']}: "
        f"{result['optimizer']['name']} behind {result['model']['name']}",
    )  # fmt: skip
    if measured and not best["fallback"]:
        say(out, f"gain on test: {_gain(gain)}")
    _print_beside(out, result, result["baseline"]["test_accuracy"])
    say(out, f"\nstart: {baseline['template']}", hang=_LABEL)
    if before := result.get("before_llm"):
        say(out, f"best before the language model was asked: {before['template']}")
    for one in best["templates"][:_MEMBERS]:
        weight = f"  (weight {one['weight']:.2f})" if one["weight"] < 1 else ""
        say(out, f"best:  {one['text']}{weight}", "bold", hang=_LABEL)
    if (more := len(best["templates"]) - _MEMBERS) > 0:
        say(out, f"best:  and {more} more: {command('export', result['run'])}", "bold")
    for name, told in of_classes(best):
        say(out, f"{name + ':':6} {told}", hang=_LABEL)
    if best["soft_prompt"]:
        say(out, f"best:  soft prompt, {best['soft_prompt'].get('tokens', '?')} tokens")
    if best["head"]:
        say(out, f"head:  {best['head'].get('name', best['head'])}")
    if (why := best.get("why")) and not best["fallback"]:
        say(out, f"why:   {why}", hang=_LABEL)
    if best["fallback"]:
        tried = best.get("tried", True)
        why = "was convincingly better on the few shots" if tried else "else was tried"
        say(out, f"Nothing {why}, so the start was kept.")
    if result.get("at_chance"):
        say(
            out,
            f"This accuracy is at chance for {task['classes']} classes: "
            f"{result['model']['name']} knows nothing of these images. Use another --model.",
            "yellow",
        )
    _print_summary(out, result)
    print_spent(out, result, verbose)
    _print_next(out, result)


def _ensembles(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Published ensembles that were measured too, by what people call them."""
    return [(LABELS.get(name, name), one) for name, one in result.get("baselines", {}).items()]


def _gain(gain: Mapping[str, Any]) -> str:
    return (
        f"{points(gain['test_accuracy'])} points {interval(gain['ci95'], signed=True)}, "
        f"paired p {_p(gain['p_value'])}"
    )


def _print_beside(out: Console, result: Mapping[str, Any], start: float | None) -> None:
    """What else the test images say: against a stronger start, and in other metrics."""
    best = max(_ensembles(result), key=lambda one: one[1]["test_accuracy"], default=None)
    if best is not None and start is not None and best[1]["test_accuracy"] > start:
        say(out, f"over the {best[0]} of CLIP: {_gain(best[1]['gain'])}")
    if metrics := result.get("metrics"):
        told = []
        for name, metric in METRICS.items():
            then, now = (percent(metrics[side][name]) for side in ("start", "best"))
            if name != "top1" and metrics["best"][name] is not None:
                told.append(f"{metric.label} {now}" + (f" (start {then})" if then != now else ""))
        say(out, f"also on test: {', '.join(told)}", "dim")


def _shots(task: Mapping[str, Any]) -> str:
    """How many shots, and that there were not as many where there were not."""
    asked = int(task["shots"])
    short = int(asked * task["classes"] - task["train_images"])
    return f"{asked}-shot" + (f" ({short:,} images fewer than that: no more there)" * (short > 0))


def _print_next(out: Console, result: dict[str, Any]) -> None:
    """Where it is, and what can be done with it."""
    run, best = result["run"], result["best"]
    say(out, f"\nrun folder: {run}", whole=True)
    if result["status"] == "interrupted":
        say(out, f"interrupted; go on with: {command('resume', run)}", whole=True)
        return
    soft = ["--format", "safetensors", "--out", "prompt.safetensors"]
    told = command("export", run, *(soft if best["soft_prompt"] else ["--format", "openclip"]))
    if best["head"]:
        told += "   (without the head)"
    say(out, f"export:     {told}", whole=True)
    if best["soft_prompt"]:
        say(out, f"in words:   {command('explain', run)}", whole=True)


def _print_summary(out: Console, result: dict[str, Any]) -> None:
    """What the search did, and why it ended."""
    summary, reason = dict(result["optimizer"]["summary"]), result["stop_reason"]
    if rows := stages(summary):
        out.print()
        print_table(out, text_columns(*STAGES, words=("spent", "why")), rows)
        del summary["stages"]
    for note in result["optimizer"].get("notes", ()):
        say(out, note, "yellow")
    early = reason.startswith("budget: ")
    cap = reason.removeprefix("budget: ")
    ended = f"stopped: {reason}"
    if early:
        ended = f"ended early at the cap {CAPS[cap].flag if cap in CAPS else cap}"
    elif reason in ("interrupted", CAP_BROKEN):
        ended = reason
    style = "yellow" if early else ""
    proposals, calls = summary.pop("proposals", 0), summary.pop("calls", 0)
    if asked := calls + summary.get("refusals", 0):
        told = ", ".join(f"{n} {name}" for name, n in counts(summary).items())
        calls = f"{asked} call{'s' * (asked != 1)}"
        said = f"{proposals} proposals in {calls} of {result['optimizer']['llm']}"
        say(out, f"\n{said}: {told}; {ended}", style)
        if nothing := unaided(result):
            say(out, nothing, "yellow")
        return
    if proposals:
        summary = {"proposals": proposals, **summary}
    if not summary and not early:
        return
    parts = [ended]
    gain, se = summary.pop("gain_nats", 0.0), summary.pop("gain_se", 0.0)
    if gain or se:
        parts.append(f"gain on the judging images {gain:+.3f} ± {se:.3f} nats")
    if same := summary.pop("same_as", ""):
        parts.append(f"the same search as {same}")
    head = summary.pop("head", "")
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in summary.items()]
    say(out, "\n" + "; ".join(parts), style)
    if unasked := unaided(result):
        say(out, unasked)
    if head:
        say(out, head)
    if gain or se:
        say(out, "'llmopt docs nats', 'docs waypoint' and 'docs judging' say what these words mean")


def print_spent(out: Console, result: dict[str, Any], verbose: bool) -> None:
    """What a run cost: what matters in two lines, or all of it."""
    ledger, test, seconds = (result[part] for part in ("ledger", "evaluation", "seconds"))
    if verbose:
        names = dict.fromkeys([*worth_telling(ledger), *worth_telling(test)])
        rows = [(label(n), amount(n, ledger[n]), amount(n, test[n])) for n in names]
        out.print()
        print_table(out, text_columns("spent", "search", "test, apart"), rows)
    else:
        say(out, f"\nspent: {briefly(ledger)}")
    stored = {
        what: sum(part.get(name) or 0 for part in (ledger, test))
        for name, what in (
            ("box_answers_kept", "black-box answers"),
            ("llm_calls_cached", "replies"),
        )
    }
    if told := ", ".join(f"{count:,} {what}" for what, count in stored.items() if count):
        say(out, f"there already, from earlier runs: {told}; not paid for again")
    apart = f"; test, apart: {told}" if not verbose and (told := briefly(test)) else ""
    say(
        out,
        f"time:  {seconds['total']:.1f} s (black box {seconds['black_box']:.1f}, "
        f"LLM {seconds['llm']:.1f}){apart}",
    )


def print_plan(plan: Plan) -> None:
    """The most a run can spend, beside its caps."""
    out = console()
    rows = []
    for row in plan.rows:
        known = row.name in plan.test
        test = plan.test[row.name] if known else plan.test.under(row.name)
        rows.append((row.label, row.most_text, row.cap_text, amount(row.name, test or None, "")))
    columns = text_columns("spend", "at most", "cap", "test, apart")
    print_table(out, columns, rows, title=plan.title)
    if plan.stages:
        out.print()
        names = [n for n in Spend() if any(most[n] for most in plan.stages.values())]
        columns = text_columns("stage, at most", *map(label, names))
        told = [
            (stage, *(amount(n, most[n] or None, "") for n in names))
            for stage, most in plan.stages.items()
        ]
        print_table(out, columns, told)
    for note in plan.notes:
        say(out, note)


def _p(value: float | None) -> str:
    return "not known" if value is None else p_text(value, equals=True)


def print_evaluation(found: dict[str, Any]) -> None:
    """Start against best on test images."""
    out = console()
    print_table(
        out,
        text_columns("", "accuracy", "95 % interval"),
        [
            (name, percent(accuracy), interval(bounds))
            for name, accuracy, bounds in (
                ("start", found["baseline_accuracy"], found["baseline_accuracy_ci95"]),
                *((n, e["test_accuracy"], e["test_accuracy_ci95"]) for n, e in _ensembles(found)),
                ("best", found["best_accuracy"], found["best_accuracy_ci95"]),
            )
        ],
        title=f"{found['run']}: {found['dataset']} test, {found['test_images']:,} images, "
        f"behind {found['model']['name']}",
    )
    gain = found["gain"]
    say(out, f"gain: {_gain(gain)}")
    _print_beside(out, found, found["baseline_accuracy"])
    say(out, f"best: {found['best']}")
    curse = found["winners_curse"]
    say(
        out,
        f"the search saw {percent(curse['train_accuracy'])} on train and "
        f"{percent(curse['val_accuracy'])} on val",
    )
    if found["at_chance"]:
        say(out, "This accuracy is at chance: the model knows nothing of these images.")


def _pair_text(value: Any) -> str:
    match value:
        case None:
            return "not known"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def print_pairs(found: dict[str, Any]) -> None:
    """Names and values; what is long goes on below its beginning."""
    width = max(map(len, found), default=0) + 2
    out = console()
    for name, value in found.items():
        text = _pair_text(value)
        if out.is_terminal:
            text = wrapped(text, out.width - width).replace("\n", "\n" + " " * width)
        out.print(Text(f"{name:<{width}}{text}"), soft_wrap=True)
