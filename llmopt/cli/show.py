"""Results as tables for people and as JSON for machines. Results go to stdout."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmopt.errors import CAP_BROKEN
from llmopt.figures import interval, percent, points
from llmopt.runs.told import counts, unaided
from llmopt.screen import UNSEEN, Screen, printable
from llmopt.spend.currency import CAPS, Spend, amount, phrase, worth_telling

if TYPE_CHECKING:
    from llmopt.data.check import CheckReport
    from llmopt.data.download import DownloadReport
    from llmopt.data.overview import Listed
    from llmopt.doctor import Check
    from llmopt.runs.explain import Explanation
    from llmopt.runs.load import RunSummary
    from llmopt.runs.plan import Plan


def console() -> Console:
    """Where results go."""
    out = Screen(soft_wrap=True)
    if not out.is_terminal:
        out.width = max(out.width, 160)  # nothing is cut off for the reader of a pipe
    return out


def print_json(data: Any) -> None:
    """Exactly one JSON document on stdout; what a terminal would obey is escaped."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    # What json leaves as it is stands within strings, where its number means the same.
    print(UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def print_text(text: str) -> None:
    """A file's content on stdout: as it is for programs, printable for people."""
    print(printable(text) if sys.stdout.isatty() else text, end="")


def print_explanation(found: Explanation, shown: int = 5) -> None:
    """The words nearest to a soft prompt, and how little that may mean."""
    out = console()
    for name, places in list(found.prompts.items())[:shown]:
        words = f" for {name}" if name else ""
        table = Table(
            title=f"words of {found.model} nearest to the soft prompt{words} (distance)",
            title_justify="left",
        )
        table.add_column("", justify="right")
        table.add_column("began at", overflow="fold")
        table.add_column("moved", justify="right")
        table.add_column("nearest words", overflow="fold")
        for number, place in enumerate(places, start=1):
            table.add_row(
                str(number),
                Text(place.began_at or "–"),
                "–" if place.moved is None else f"{place.moved:.3g}",
                Text("  ".join(f"{near.text} ({near.distance:.3g})" for near in place.nearest)),
            )
        out.print(table)
    if (more := len(found.prompts) - shown) > 0:
        out.print(f"and {more} classes more; --json has them all")
    far = found.nearest_distance / found.token_spacing
    out.print(
        f"\nHow little this may mean: a vector is {found.nearest_distance:.3g} from its nearest "
        f"word, {far:.1f} times as far as these words are from one another "
        f"({found.token_spacing:.3g}). With the nearest words in the vectors' place "
        f"{percent(found.as_words)} of the training images are right instead of "
        f"{percent(found.as_vectors)}."
    )


def print_result(result: dict[str, Any], brief: bool = False) -> None:
    """The end of a run: what was found, how sure it is, what it cost, what to do next."""
    out = console()
    baseline, best, gain, task = (result[k] for k in ("baseline", "best", "gain", "task"))
    measured = best["test_accuracy"] is not None
    if brief:
        for one in best["templates"]:
            out.print(one["text"])
        if measured:
            out.print(f"{percent(baseline['test_accuracy'])} -> {percent(best['test_accuracy'])}")
        out.print(result["run"])
        return
    table = Table(
        title=f"{task['dataset']}, {task['shots']}-shot, seed {task['seed']}: "
        f"{result['optimizer']['name']} behind {result['model']['name']}",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("train", justify="right")
    table.add_column("val", justify="right")
    table.add_column(f"test ({task['test_images']:,} images)", justify="right")
    table.add_column("95 % interval")
    for name, row in (("start", baseline), ("best", best)):
        table.add_row(
            name,
            percent(row["train_accuracy"]),
            percent(row["val_accuracy"]),
            percent(row["test_accuracy"]),
            interval(row["test_accuracy_ci95"]),
        )
    out.print(table)
    if measured:
        out.print(
            f"gain on test: {points(gain['test_accuracy'])} points "
            f"{interval(gain['ci95'], signed=True)}, paired p {_p(gain['p_value'])}"
        )
    out.print(f"\nstart: {baseline['template']}")
    for one in best["templates"]:
        weight = f"  (weight {one['weight']:.2f})" if one["weight"] < 1 else ""
        out.print(Text(f"best:  {one['text']}{weight}", style="bold"))
    if best["soft_prompt"]:
        out.print(f"best:  soft prompt, {best['soft_prompt'].get('tokens', '?')} tokens")
    if best["head"]:
        out.print(f"head:  {best['head'].get('name', best['head'])}")
    if best["fallback"]:
        tried = best.get("tried", True)
        why = "was convincingly better on the few shots" if tried else "else was tried"
        out.print(f"Nothing {why}, so the start was kept.")
    if result.get("at_chance"):
        out.print(
            Text(
                f"This accuracy is at chance for {task['classes']} classes: "
                f"{result['model']['name']} knows nothing of these images. Use another --model.",
                style="yellow",
            )
        )
    _print_summary(out, result)
    _print_ledger(out, result)
    out.print(f"\nrun folder: {result['run']}")
    if result["status"] == "interrupted":
        out.print(f"interrupted; go on with: llmopt resume {result['run']}")
    else:
        soft = best["soft_prompt"]
        form = "safetensors --out prompt.safetensors" if soft else "openclip"
        out.print(f"export:     llmopt export {result['run']} --format {form}")
        if soft:
            out.print(f"in words:   llmopt explain {result['run']}")


def _print_summary(out: Console, result: dict[str, Any]) -> None:
    """What the search did, and why it ended."""
    summary, reason = dict(result["optimizer"]["summary"]), result["stop_reason"]
    for note in result["optimizer"].get("notes", ()):
        out.print(Text(note, style="yellow"))
    early = reason.startswith("budget: ")
    cap = reason.removeprefix("budget: ")
    ended = f"stopped by {reason}"
    if early:
        ended = f"ended early at the cap {CAPS[cap].flag if cap in CAPS else cap}"
    elif reason in ("interrupted", CAP_BROKEN):
        ended = reason
    style = "yellow" if early else ""
    proposals, calls = summary.pop("proposals", 0), summary.pop("calls", 0)
    if asked := calls + summary.get("refusals", 0):
        told = ", ".join(f"{n} {name}" for name, n in counts(summary).items())
        said = f"{proposals} proposals in {asked} calls of {result['optimizer']['llm']}"
        out.print(Text(f"\n{said}: {told}; {ended}", style=style))
        if nothing := unaided(result):
            out.print(Text(nothing, style="yellow"))
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
    out.print(Text("\n" + "; ".join(parts), style=style))
    if head:
        out.print(head)


def _print_ledger(out: Console, result: dict[str, Any]) -> None:
    ledger, seconds = result["ledger"], result["seconds"]
    spent = ", ".join(phrase(name, ledger[name]) for name in worth_telling(ledger))
    out.print(f"\nspent: {spent}")
    if test := worth_telling(result["evaluation"]):
        out.print(f"test:  {', '.join(phrase(name, result['evaluation'][name]) for name in test)}")
    out.print(
        f"time:  {seconds['total']:.1f} s, of which black box {seconds['black_box']:.1f} s, "
        f"LLM {seconds['llm']:.1f} s"
    )


def print_plan(plan: Plan) -> None:
    """The most a run can spend, beside its caps."""
    out = console()
    table = Table(title=plan.title, title_justify="left")
    table.add_column("spend")
    table.add_column("at most", justify="right")
    table.add_column("cap", justify="right")
    table.add_column("test, apart", justify="right")
    for row in plan.rows:
        test = plan.test.under(row.name) or plan.test.get(row.name)
        table.add_row(row.label, row.most_text, row.cap_text, amount(row.name, test or None, ""))
    out.print(table)
    for note in plan.notes:
        out.print(note)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def print_runs(found: list[RunSummary], root: Any) -> None:
    """Run folders, one a line."""
    out = console()
    if not found:
        out.print(f"no runs below {root}; start one with: llmopt run")
        return
    table = Table()
    for name in ("run", "status", "data set", "shots", "seed", "optimizer"):
        table.add_column(name, overflow="fold")
    for name in ("start", "best", "queries", "LLM calls", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in found:
        ledger = run.ledger or {}
        spent = Spend.read(ledger)
        table.add_row(
            str(run.folder),
            run.status,
            run.dataset or "",
            str(run.shots or ""),
            "" if run.seed is None else str(run.seed),
            run.optimizer or "",
            percent(run.start),
            percent(run.best),
            amount("queries", spent.queries) if ledger else "",
            amount("llm_calls", spent["llm_calls"]) if ledger else "",
            amount("llm_usd", spent["llm_usd"]) if spent["llm_usd"] else "",
        )
    out.print(table)


def print_evaluation(found: dict[str, Any]) -> None:
    """Start against best on test images."""
    out = console()
    table = Table(
        title=f"{found['dataset']} test, {found['test_images']:,} images, "
        f"behind {found['model']['name']}",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval")
    for name, key in (("start", "baseline_accuracy"), ("best", "best_accuracy")):
        table.add_row(name, percent(found[key]), interval(found[f"{key}_ci95"]))
    out.print(table)
    gain = found["gain"]
    out.print(
        f"gain: {points(gain['test_accuracy'])} points {interval(gain['ci95'], signed=True)}, "
        f"paired p {_p(gain['p_value'])}"
    )
    out.print(f"best: {found['best']}")
    curse = found["winners_curse"]
    out.print(
        f"the search saw {percent(curse['train_accuracy'])} on train and "
        f"{percent(curse['val_accuracy'])} on val"
    )
    if found["at_chance"]:
        out.print("This accuracy is at chance: the model knows nothing of these images.")


def print_checks(checks: list[Check]) -> None:
    """What ``doctor`` found."""
    out = console()
    table = Table()
    for name in ("", "what", "found", "to do"):
        table.add_column(name)
    for check in checks:
        table.add_row("ok" if check.ok else "!!", check.name, check.found, check.remedy)
    out.print(table)


def print_models(found: list[dict[str, Any]]) -> None:
    """Model names with their weight tags."""
    out = console()
    table = Table()
    table.add_column("model")
    table.add_column("weights (--pretrained)")
    for model in found:
        if note := model.get("note"):
            table.add_row(f"--blackbox {model['name']}", Text(note))
        else:
            table.add_row(model["name"], ", ".join(model["pretrained"]))
    out.print(table)
    out.print("also: local-dir:PATH, hf-hub:ORG/NAME, or a name with --pretrained FILE")


def print_pairs(found: dict[str, Any]) -> None:
    """Names and values."""
    width = max(map(len, found), default=0)
    out = console()
    for name, value in found.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        out.print(f"{name:<{width}}  {text}")


def print_datasets(found: list[Listed]) -> None:
    """Data sets, one a line."""
    table = Table()
    for name in ("data set", "here", "classes", "train/val/test", "note"):
        table.add_column(name, overflow="fold")
    for entry in found:
        table.add_row(
            entry.name,
            "yes" if entry.here else "no",
            str(entry.classes or ""),
            "/".join(f"{n:,}" for n in entry.images) if entry.images else "",
            entry.note,
        )
    console().print(table)


def print_check(report: CheckReport, most: int = 20) -> None:
    """What is wrong with a data set, all of it at once, and the next step."""
    out = console()
    if report.sizes:
        sizes = ", ".join(f"{which} {size:,}" for which, size in report.sizes.items())
        out.print(f"{report.dataset}: {report.classes} classes; {sizes}; {report.provenance}")
    for note in report.notes:
        out.print(f"note: {note}")
    folders = report.missing_by_folder()
    for folder, count in list(folders.items())[:most]:
        out.print(f"missing: {count:,} files in {folder}")
    if len(folders) > most:
        out.print(f"missing: and in {len(folders) - most} more folders (--json names every file)")
    others = [problem for problem in report.problems if problem.kind != "missing"]
    for problem in others[:most]:
        out.print(str(problem))
    if len(others) > most:
        out.print(f"and {len(others) - most:,} more (--json names them all)")
    if report.ok:
        out.print(f"{report.images:,} images are fine ({report.seconds:.1f} s)")
    out.print(report.next_step)


def print_download(done: DownloadReport) -> None:
    """What was fetched, and where it lies."""
    out = console()
    if done.fetched:
        out.print(f"fetched {', '.join(done.fetched)} in {done.seconds:.0f} s")
    else:
        out.print("everything was there already")
    out.print(f"{done.dataset} lies in {done.home}")
    out.print(done.check.next_step)
