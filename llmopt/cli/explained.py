"""What ``explain`` found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmopt.cli.show import console, say
from llmopt.figures import percent, points
from llmopt.tables import print_table, text_columns

if TYPE_CHECKING:
    from llmopt.runs.explain import Explanation
    from llmopt.runs.words import WordsWorth


def print_explanation(found: Explanation, shown: int = 5) -> None:
    """The words nearest to a soft prompt, and how little that may mean."""
    out = console()
    for name, places in list(found.prompts.items())[:shown]:
        words = f" for {name}" if name else ""
        columns = text_columns(
            "", "began at", "moved", "nearest words",
            words=("nearest words",), texts=("began at",),
        )  # fmt: skip
        rows = [
            (
                str(number),
                place.began_at or "–",
                "–" if place.moved is None else f"{place.moved:.3g}",
                "  ".join(f"{near.text} ({near.distance:.3g})" for near in place.nearest),
            )
            for number, place in enumerate(places, start=1)
        ]
        title = f"words of {found.model} nearest to the soft prompt{words} (distance)"
        print_table(out, columns, rows, title=title)
    if (more := len(found.prompts) - shown) > 0:
        say(out, f"and {more} classes more; --json has them all")
    far = found.nearest_distance / found.token_spacing
    say(
        out,
        f"\nHow little this may mean: a vector is {found.nearest_distance:.3g} from its nearest "
        f"word, {far:.1f} times as far as these words are from one another "
        f"({found.token_spacing:.3g}). With the nearest words in the vectors' place "
        f"{percent(found.as_words)} of the training images are right instead of "
        f"{percent(found.as_vectors)}.",
    )


def print_words(found: WordsWorth) -> None:
    """What each word of the templates is worth."""
    out = console()
    names = ("word", "nats", "± se", "accuracy, points", "without it")
    columns = text_columns(*names, texts=names[:1], words=names[-1:])
    for template, words in found.templates.items():
        rows = [
            (
                word.text,
                f"{round(word.worth, 3) + 0.0:+.3f}",
                "–" if word.se is None else f"{word.se:.3f}",
                points(word.accuracy),
                word.without,
            )
            for word in words
        ]
        title = f"what each word of '{template}' is worth on {found.images} labelled images"
        if rows:
            print_table(out, columns, rows, title=title)
        else:
            say(out, f"'{template}' has no word that could be left out")
    say(
        out,
        "\nWorth: what the log-likelihood of the true class loses without the word "
        "('llmopt docs nats'). These images chose the template, so compare words, not runs.",
    )
    if found.apart:
        say(out, f"Measured without the run's {' and '.join(found.apart)}, by templates alone.")
