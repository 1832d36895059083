"""A short conversation in a process of its own, to be killed and started again.

Usage: talk.py URL JOURNAL TURNS; prints the replies and the ledger as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from test_hostile import converse, meter


def main(url: str, path: str, turns: str) -> None:
    """Converse, and say what came of it."""
    chat, ledger, journal = meter(url, Path(path))
    with chat, journal:
        course = converse(chat, int(turns))
    assert course.ended_by is None, course.ended_by
    replies = [reply.text for reply in course.replies]
    print(json.dumps({"replies": replies, "ledger": ledger.snapshot()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
