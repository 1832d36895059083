"""A Slurm of one machine: ``sbatch``, ``srun``, ``sacct``, ``scancel`` and ``scontrol requeue``.

``install(folder)`` writes the commands; all are this file, which looks at the name it is called by.
State lies beside them: for each task of an array its process, and a mark where it is to run again.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

NAMES = ("sbatch", "srun", "sacct", "scancel", "scontrol")


def install(folder: Path) -> Path:
    """The folder to put on PATH."""
    folder.mkdir()
    for name in NAMES:
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n')
        command.chmod(0o755)
    return folder


def pids(folder: Path) -> dict[str, int]:
    """Processes by task, the ended ones too; each leads a group of its own."""
    return {one.stem: int(one.read_text()) for one in sorted(folder.glob("*.pid"))}


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def kill(pid: int) -> None:
    """End a task with all that it has started."""
    os.killpg(pid, signal.SIGKILL)


def sbatch(folder: Path, script: str) -> None:
    text = Path(script).read_text()
    (folder / f"script-{os.getpid()}").write_text(text)
    number = 100 + len(list(folder.glob("script-*")))
    found = re.search(r"--array=0-(\d+)%(\d+)", text)
    for task in range(int(found[1]) + 1 if found else 1):
        name = f"{number}_{task}" if found else str(number)
        array = {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
        env = os.environ | {"SLURM_JOB_ID": str(number), "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}
        again = folder / f"{name}.again"
        loop = f'while :; do bash "{script}"; [ -e "{again}" ] && rm "{again}" || break; done'
        copy = folder / f"{name}.sh"
        copy.write_text(text)
        with (folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                ["bash", "-c", loop.replace(script, str(copy))],
                env=env | (array if found else {}),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        (folder / f"{name}.pid").write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def srun(folder: Path, *words: str) -> None:
    given = list(words)
    while given[0].startswith("--"):
        given = given[1 if given[0] == "--unbuffered" else 2 :]
    os.execvp(given[0], given)


def sacct(folder: Path, *words: str) -> None:
    print("JobID|State|NodeList")
    for name, pid in pids(folder).items():
        print(f"{name}|{'RUNNING' if alive(pid) else 'FAILED'}|here")


def scancel(folder: Path, name: str, *words: str) -> None:
    for task, pid in pids(folder).items():
        if (task == name or task.startswith(f"{name}_")) and alive(pid):
            kill(pid)


def scontrol(folder: Path, verb: str, name: str) -> None:
    assert verb == "requeue"
    (folder / f"{name}.again").touch()


if __name__ == "__main__":
    where, command, *rest = sys.argv[1:]
    globals()[command](Path(where), *rest)
