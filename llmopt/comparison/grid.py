"""What a comparison runs: optimizers × data sets × shots × seeds."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from llmopt.errors import ConfigError, nearest
from llmopt.runs.compose import compose
from llmopt.runs.config import RunConfig
from llmopt.runs.plan import make_plan
from llmopt.runs.whole import without_defaults
from llmopt.search import OPTIMIZERS, setting_names
from llmopt.spend.currency import CAPS, CURRENCIES, Cap, Spend, is_money

# The same for all arms, or a side of the grid.
_SHARED: Final = ("dataset", "shots", "seed", "runs", "data_root")

EQUAL: Final = {
    **{cap.name: cap for cap in CAPS.values()},
    **{one.name: CAPS[one.cap] for one in CURRENCIES.values() if one.cap and one.kind == "spent"},
}
"""What arms can be held equal in, and the cap that does it. Text and soft-prompt encodings are the
same work for the text tower, so they share a cap."""


@dataclass(frozen=True)
class Arm:
    """One way to search.

    Attributes:
        name: in tables.
        optimizer: its name.
        options: other options of a run, and settings of the optimizer, as texts. ``head`` is the
            run's option, even where the optimizer has a setting of that name.
        after: an arm whose best template this one starts from.
        named: somebody gave it its name.
    """

    name: str
    optimizer: str
    options: Mapping[str, str] = field(default_factory=dict)
    after: str = ""
    named: bool = False

    def config(self, base: RunConfig) -> RunConfig:
        """The base config, changed into this arm's."""
        base = without_defaults(base)
        settings = setting_names(self.optimizer) - {"head"}
        own = {k: v for k, v in self.options.items() if k in settings}
        changes: dict[str, Any] = {k: v for k, v in self.options.items() if k not in settings}
        known = {f.name for f in dataclasses.fields(RunConfig)}
        for name in changes:
            if name in _SHARED:
                raise ConfigError(
                    f"arm '{self.name}': '{name}' is the same for all arms; leave it out and give "
                    f"--{name.replace('_', '-')} to compare"
                )
            if name not in known:
                options = known - {
                    "settings",
                    "llm_settings",
                    "blackbox_settings",
                    "optimizer",
                    *_SHARED,
                }
                raise ConfigError(
                    f"arm '{self.name}': '{name}' is no option of a run and no setting of "
                    f"'{self.optimizer}'{nearest(name, [*options, *settings])} "
                    f"(its settings: {', '.join(sorted(settings)) or 'none'})"
                )
        values = {name: getattr(base, name) for name in known}
        changes |= {"optimizer": self.optimizer, "settings": {**base.settings, **own}}
        return RunConfig.make({**values, **changes}, f"arm '{self.name}'")


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        arm: how.
        config: on what, with which seed.
        shared: the cap that all arms share, if any; an arm that starts from another has what that
            one left of it.
    """

    arm: Arm
    config: RunConfig
    shared: Cap | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        """Data set, shots, seed."""
        return self.config.dataset, self.config.shots, self.config.seed

    @property
    def title(self) -> str:
        """For people."""
        dataset, shots, seed = self.place
        return f"{self.arm.name} on {dataset}, {shots}-shot, seed {seed}"


def parse_arm(text: str) -> Arm:
    """``[NAME=]OPTIMIZER[,KEY=VALUE…]``; the key ``after`` names an arm to start from.

    Raises:
        ConfigError: it is not of that form.
    """
    first, *rest = text.split(",")
    name, equals, optimizer = first.partition("=")
    options = {}
    for part in rest:
        key, separator, value = part.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"arm {text!r}: {part!r} is not of the form KEY=VALUE")
        options[key.strip().replace("-", "_")] = value.strip()
    after = options.pop("after", "")
    optimizer = (optimizer if equals else name).strip()
    OPTIMIZERS.get(optimizer)
    named = bool(equals)
    return Arm(name.strip() if named else text.strip(), optimizer, options, after, named)


def parse_numbers(text: str, what: str) -> tuple[int, ...]:
    """``1,2,4`` or ``1-3`` as numbers.

    Raises:
        ConfigError: it is not of that form.
    """
    numbers: list[int] = []
    try:
        for part in text.split(","):
            low, dash, high = part.partition("-")
            span = range(int(low), int(high) + 1) if dash else [int(low)]
            if not span:
                raise ConfigError(f"--{what} {text!r}: the span {part} is empty; say {high}-{low}")
            numbers += span
    except ValueError:
        raise ConfigError(f"--{what} {text!r} must be numbers such as 1,2,4 or 1-3") from None
    return tuple(dict.fromkeys(numbers))


def make_grid(
    base: RunConfig,
    arms: Sequence[Arm],
    datasets: Sequence[str],
    shots: Sequence[int],
    seeds: Sequence[int],
) -> list[Cell]:
    """Every combination; arms that start from others come after them.

    Raises:
        ConfigError: two arms share a name, or one starts from an arm that is not there.
    """
    names = [arm.name for arm in arms]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two arms are called '{twice[0]}'; name them: NAME=OPTIMIZER")
    for arm in arms:
        if arm.after and arm.after not in names:
            raise ConfigError(
                f"arm '{arm.name}' starts after '{arm.after}'{nearest(arm.after, names)}, "
                "which is not among the arms"
            )
    ordered = list(_ordered(arms))
    return [
        Cell(arm, dataclasses.replace(config, shots=n, seed=s))
        for d in datasets
        for n, s, (arm, config) in itertools.product(shots, seeds, _configs(base, ordered, d))
    ]


def _configs(base: RunConfig, arms: Iterable[Arm], dataset: str) -> list[tuple[Arm, RunConfig]]:
    """Each arm with its config on a data set."""
    here = dataclasses.replace(base, dataset=dataset)
    return [(arm, arm.config(here)) for arm in arms]


def hold_equal(cells: Sequence[Cell], currency: str) -> tuple[list[Cell], str]:
    """The same cells under equal caps of a currency, and a note that says so.

    The cap is the one asked for, or else the least that any of the arms that search may spend.

    Raises:
        ConfigError: the currency has no cap, or no arm spends it.
    """
    if currency not in EQUAL:
        raise ConfigError(
            f"--equal {currency}: not a currency with a cap{nearest(currency, EQUAL)} "
            f"(there are: {', '.join(EQUAL)})"
        )
    cap = EQUAL[currency]
    changed: list[Cell] = []
    said: dict[str, float] = {}
    for (dataset, shots), group in itertools.groupby(cells, key=lambda c: c.place[:2]):
        members = list(group)
        limit = max((getattr(c.config, cap.option) or 0 for c in members), default=0)
        limit = limit or _least_bound(members, cap, currency)
        said[f"{dataset}, {shots}-shot"] = limit
        for cell in members:
            change: dict[str, Any] = {cap.option: limit if is_money(cap.name) else int(limit)}
            config = dataclasses.replace(cell.config, **change)
            changed.append(Cell(cell.arm, config, cap))
    parts = [f"{limit:,g} ({task})" for task, limit in said.items()]
    note = f"Every arm may spend as much of '{currency}' ({cap.flag}): "
    return changed, note + "; ".join(parts) + ". What each did spend stands in the table."


def left(config: RunConfig, cap: Cap, spent: Mapping[str, float | None], seconds: float) -> Any:
    """What an earlier run left of a cap.

    What it lost is not counted, so that a comparison that was cut off asks the same as another.
    """
    limit = getattr(config, cap.option)
    used = seconds if cap.name == "seconds" else Spend.read(spent).under(cap.name, lost=False)
    return type(limit)(max(0, limit - used))


def _ordered(arms: Sequence[Arm]) -> Iterable[Arm]:
    """Arms so that each comes after the one it starts from."""
    placed: dict[str, Arm] = {}
    waiting = list(arms)
    while waiting:
        ready = [arm for arm in waiting if not arm.after or arm.after in placed]
        if not ready:
            raise ConfigError(
                f"arms start from each other in a circle: {', '.join(a.name for a in waiting)}"
            )
        placed |= {arm.name: arm for arm in ready}
        waiting = [arm for arm in waiting if arm not in ready]
    return placed.values()


def _least_bound(cells: Sequence[Cell], cap: Cap, currency: str) -> float:
    if cap.name == "seconds":
        raise ConfigError("--equal seconds needs --max-seconds: what a search takes is not known")
    least: dict[str, float] = {}
    for cell in cells:
        plan = make_plan(compose(cell.config))
        rows = {row.name: row.most for row in plan.rows}
        most = rows.get(cap.name)
        # The start template alone is no search, so it does not set the bar.
        if most and (cap.name != "queries" or most > 2 * plan.needed):
            least[cell.arm.name] = min(most, least.get(cell.arm.name, most))
    if not least:
        raise ConfigError(f"--equal {currency}: no arm spends it, or its upper bound is unknown")
    return min(least.values())
