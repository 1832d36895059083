"""Names of ours, names of plug-ins, and plug-ins that are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import ConfigError, DatasetError
from llmopt.registry import Plugin, Registry

OWN = {"path": "pathlib:Path", "posix": "pathlib:PosixPath"}
MODULES = {
    "plug_good": "from pathlib import Path\nclass Mine(Path): pass\n",
    "plug_raises": "raise OSError('no such device')",
    "plug_leaves": "raise SystemExit(3)",
    "plug_typo": "import nothing_of_this_name",
    "plug_other": "class Mine: pass\nnumber = 3\n",
}


@pytest.fixture
def install(install_package: Any) -> Callable[..., None]:
    """Installs a package with such entry points."""

    def install(package: str, **points: str) -> None:
        where = {name: f"plug_{value}" for name, value in points.items()}
        install_package(package, {"paths": where}, MODULES)

    return install


def paths(own: dict[str, str] = OWN, base: str = "pathlib:Path") -> Registry[type[Path]]:
    return Registry("path", "paths", own, base=base, reserved=("auto",), error=DatasetError)


def test_ours_come_first_and_plug_ins_join_them(install: Callable[..., None]) -> None:
    install("package-b", zebra="good:Mine")
    install("package-a", mine="good:Mine")
    registry = paths()
    assert registry.names() == list(registry) == ["path", "posix", "mine", "zebra"]
    assert "mine" in registry
    assert "yours" not in registry
    assert registry.get("path") is Path
    assert registry.get("mine").__name__ == "Mine"
    assert registry.plugins() == [
        Plugin("path", "mine", "package-a 1.0"),
        Plugin("path", "zebra", "package-b 1.0"),
    ]


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("raises:Mine", "OSError: no such device"),
        ("leaves:Mine", "SystemExit: 3"),
        ("typo:Mine", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("nowhere:Mine", "ModuleNotFoundError: No module named 'plug_nowhere'"),
        ("good:Theirs", "AttributeError: module 'plug_good' has no attribute 'Theirs'"),
        ("other:Mine", "TypeError: plug_other:Mine is not of pathlib.Path"),
        ("other:number", "TypeError: plug_other:number is not of pathlib.Path"),
    ],
)
def test_a_broken_plug_in_is_named_and_passed_over(
    install: Callable[..., None], where: str, problem: str
) -> None:
    install("package", broken=where, mine="good:Mine")
    registry = paths()
    assert registry.names() == ["path", "posix", "broken", "mine"]
    assert list(registry.usable()) == ["path", "posix", "mine"]
    assert [plugin.problem for plugin in registry.plugins()] == [problem, ""]
    with pytest.raises(DatasetError) as raised:
        registry.get("broken")
    assert str(raised.value) == (
        f"path 'broken' is from the plug-in package package 1.0, and cannot be used: {problem}"
    )


def test_where_no_class_is_asked_for_anything_that_can_be_called_will_do(
    install: Callable[..., None],
) -> None:
    install("package", mine="good:Mine", broken="other:number")
    problems = [plugin.problem for plugin in paths(base="").plugins()]
    assert problems == ["TypeError: plug_other:number is not a function", ""]


def test_a_name_that_is_taken_stays_with_its_owner(install: Callable[..., None]) -> None:
    install("package-z", path="good:Mine", auto="good:Mine", mine="good:Mine")
    install("package-a", mine="other:Mine")
    registry = paths()
    assert registry.names() == ["path", "posix", "mine"]
    assert registry.get("path") is Path
    assert {(p.name, p.package): p.problem for p in registry.plugins()} == {
        ("auto", "package-z 1.0"): "the name 'auto' is taken by llmopt",
        ("path", "package-z 1.0"): "the name 'path' is taken by llmopt",
        ("mine", "package-a 1.0"): "TypeError: plug_other:Mine is not of pathlib.Path",
        ("mine", "package-z 1.0"): "the name 'mine' is taken by the package package-a 1.0",
    }


words = st.text("abcdefghijklmnop-", min_size=4, max_size=12)


@given(st.dictionaries(words, st.just("pathlib:Path"), min_size=1, max_size=8), st.data())
def test_a_name_with_a_slip_leads_to_the_nearest(own: dict[str, str], data: st.DataObject) -> None:
    registry: Registry[type[Path]] = Registry("path", "paths", own)
    meant = data.draw(st.sampled_from(sorted(own)))
    slip = data.draw(st.integers(0, len(meant) - 1))
    typed = meant[:slip] + meant[slip + 1 :]
    if typed in own:
        assert registry.get(typed) is Path
        return
    with pytest.raises(ConfigError) as raised:
        registry.get(typed)
    message = str(raised.value)
    assert message.startswith(f"unknown path '{typed}'; did you mean '")
    assert message.endswith(f"(there are: {', '.join(own)})")
    assert message.split("'")[3] in own


def test_nothing_like_it() -> None:
    known = "auto, path, posix"
    with pytest.raises(DatasetError, match=rf"^unknown path 'xyz' \(there are: {known}\)$"):
        paths().get("xyz")
