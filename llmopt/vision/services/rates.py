"""What services charge: for what they read, or for the time they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llmopt.errors import ConfigError
from llmopt.language.prices import parse_price

UNITS: Final = {
    "token": "TEXT,IMAGE in US dollars per million tokens of each",
    "character": "TEXT,IMAGE in US dollars per million characters and per million pictures",
    "second": "SECOND in US dollars per second of its time",
}
"""What a service may count, and how its price is given."""


@dataclass(frozen=True)
class Rates:
    """US dollars.

    Attributes:
        text: per million tokens, or characters, of text.
        image: per million tokens of pictures, or pictures.
        second: per second that the service works.
    """

    text: float = 0.0
    image: float = 0.0
    second: float = 0.0

    def cost(self, texts: float, images: float, seconds: float) -> float:
        """What so much costs."""
        return (texts * self.text + images * self.image) / 1e6 + seconds * self.second


def parse_rates(text: str, unit: str) -> Rates:
    """Rates a user gives.

    Args:
        text: amounts.
        unit: of ``UNITS``.

    Raises:
        ConfigError: it is not what the unit asks for.
    """
    if unit != "second":
        price = parse_price(text, UNITS[unit])
        return Rates(price.input, price.output)
    try:
        second = float(text)
        if not 0 <= second < 1e6:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"the price {text!r} is not an amount; write {UNITS[unit]}, as in 0.012"
        ) from None
    return Rates(second=second)
