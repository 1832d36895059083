"""What a run stands on: versions, weights and split, written down as it begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llmopt.errors import RunFolderError
from llmopt.runs import folder as run_folder
from llmopt.runs import result as run_result
from llmopt.spend.currency import amounts
from llmopt.spend.events import Watch
from llmopt.spend.journal import Journal, read_journal
from llmopt.task import Task
from llmopt.vision.base import BlackBox

_SPENT: Final = "spent"


def note_identity(
    folder: Path,
    journal: Journal,
    box: BlackBox,
    task: Task,
    watch: Watch,
    spent: Mapping[str, float],
) -> Mapping[str, float]:
    """Journal what the run stands on; on resume, say what has changed since.

    Args:
        folder: of the run.
        journal: of the run.
        box: the black box, open.
        task: the few shots.
        watch: told what has changed.
        spent: before the run, on finding out how the box is asked.

    Returns:
        What was spent before the run when it began.
    """
    identity: dict[str, Any] = {
        "versions": run_result.versions(),
        "weights_sha256": box.info.weights_sha256,
        "split_sha256": task.split_sha256,
    }
    if spent:
        identity[_SPENT] = dict(spent)
    path = folder / run_folder.JOURNAL
    began = [one for one in read_journal(path) if one["stream"] == "main"]
    if not began:
        journal.event("started", **identity)
        return spent
    if not journal.checked:
        watch.note(f"{path} has no checksums: damage to it would not be seen")
    before = began[0]["data"]
    if began[0]["kind"] != "started" or not _is_identity(before):
        raise RunFolderError(f"the journal {path} does not begin with a start; it is damaged")
    journal.event("started", **before)
    changed = [
        f"{name} {before['versions'].get(name)} -> {version}"
        for name, version in identity["versions"].items()
        if before["versions"].get(name) != version
    ]
    if before["weights_sha256"] != identity["weights_sha256"]:
        changed.append("the model's weights")
    if before["split_sha256"] != identity["split_sha256"]:
        changed.append("the data split")
    if changed:
        watch.warn(
            f"since this run began, these have changed: {', '.join(changed)}; "
            "its result may differ from an undisturbed one"
        )
    return amounts(before.get(_SPENT, {}))


def _is_identity(found: dict[str, Any]) -> bool:
    """Whether a journal's start is what :func:`note_identity` writes."""
    versions = found.get("versions")
    hashes = (found.get("weights_sha256"), found.get("split_sha256"))
    try:
        amounts(found.get(_SPENT, {}))
    except ValueError:
        return False
    return isinstance(versions, dict) and all(isinstance(one, str) for one in hashes)
