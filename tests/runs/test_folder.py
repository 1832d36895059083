from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmopt.errors import RunFolderError
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.runs.folder import create, find, locked, read_result, read_run_config
from llmopt.spend.files import replace_atomically, write_text


def config(tmp_path: Path, **options: object) -> RunConfig:
    return RunConfig(runs=str(tmp_path / "runs"), **options)  # type: ignore[arg-type]


def test_a_folder_holds_the_config_it_was_made_from(tmp_path: Path) -> None:
    wanted = config(tmp_path, dataset="shapes-red", shots=4, seed=7, settings={"k": 3})
    folder = create(wanted)
    assert folder.parent == tmp_path / "runs"
    assert folder.name.startswith("shapes-red-4shot-seed7-chat-")
    assert read_run_config(folder) == wanted
    assert sorted(p.name for p in folder.iterdir()) == ["config.toml", "journal.jsonl"]


def test_folders_of_the_same_second_differ(tmp_path: Path) -> None:
    folders = {create(config(tmp_path)) for _ in range(5)}
    assert len(folders) == 5
    assert set(find(tmp_path / "runs")) == folders


@pytest.mark.parametrize("name", ["folder:/a b/ü/../c", "hub:org/name", "csv:" + "x" * 300, "::"])
def test_data_set_names_of_any_kind_make_a_folder_name(tmp_path: Path, name: str) -> None:
    folder = create(config(tmp_path, dataset=name))
    assert folder.parent == tmp_path / "runs"
    assert len(folder.name) < 120
    assert read_run_config(folder).dataset == name


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_place_that_takes_no_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file.* choose another --runs") as refused:
        create(RunConfig(runs=str(tmp_path / "file" / below)))
    assert refused.value.exit_code == 2


def test_a_read_only_place(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("permissions do not stop root")
    (tmp_path / "runs").mkdir(mode=0o500)
    with pytest.raises(RunFolderError, match="cannot write run folders"):
        create(config(tmp_path))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = create(config(tmp_path))
    with locked(folder):
        with pytest.raises(RunFolderError, match=r"is in use by another process"), locked(folder):
            pass
        other = (
            "import sys; from pathlib import Path\n"
            "from llmopt.runs.folder import locked\n"
            "with locked(Path(sys.argv[1])): pass\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", other, str(folder)], capture_output=True, text=True
        )
        assert done.returncode != 0
        assert "is in use by another process" in done.stderr
    with locked(folder):
        pass


def test_the_lock_goes_when_a_run_fails(tmp_path: Path) -> None:
    folder = create(config(tmp_path))
    with pytest.raises(ZeroDivisionError), locked(folder):
        _ = 1 / 0
    with locked(folder):
        pass


def test_a_folder_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write run folder"), locked(tmp_path / "file"):
        pass


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"is not a run folder: it has no config\.toml"):
        read_run_config(tmp_path)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        read_result(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 1, "best": {}}', "\x00\x01"],
)
def test_damaged_results(tmp_path: Path, content: str) -> None:
    folder = create(config(tmp_path))
    with pytest.raises(RunFolderError, match=r"is not finished; go on with 'llmopt resume "):
        read_result(folder)
    (folder / "result.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"result\.json is damaged .*llmopt resume"):
        read_result(folder)


def test_runs_are_found_oldest_first_and_nothing_else(tmp_path: Path) -> None:
    names = ["zebra", "apple", "mango"]
    folders = [create(config(tmp_path, dataset=name)) for name in names]
    for age, folder in enumerate(folders):
        os.utime(folder / "config.toml", (1_000 + age, 1_000 + age))
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes.txt").write_text("")
    assert find(tmp_path / "runs") == folders
    assert find(tmp_path / "nowhere") == []


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt):
        _write_half(path)
    assert path.read_text() == "old"
    write_text(path, "new ü")
    assert path.read_bytes() == "new ü".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def _write_half(path: Path) -> None:
    with replace_atomically(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt


def test_names_of_files_are_those_of_the_contract() -> None:
    assert (run_folder.CONFIG, run_folder.JOURNAL) == ("config.toml", "journal.jsonl")
    assert (run_folder.RESULT, run_folder.PROMPTS) == ("result.json", "prompts.json")
