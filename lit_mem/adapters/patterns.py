"""Test regular expressions from an adapter's configuration in a subprocess with a time limit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Collection
from typing import Final

SECONDS = 10.0
"""Time limit for all patterns of an option."""
_LONGEST: Final = 10_000
_PLAIN: Final = re.compile(r"[\w.\-]*")
"""Module names; as regular expressions they take linear time."""

# The ways in which peft matches: full names, suffixes, names of layer lists, parts of names.
_TRY: Final = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for number, pattern in enumerate(patterns):
    print(number, flush=True)
    forms, ends = [], (("(.*\\.)?(", ")$"), ("(^|.*\\.)", "($|\\..*)"), ("(^|.*?\\.)", "\\.(\\d+)\\."))
    for form in (pattern, *(before + pattern + after for before, after in ends)):
        try:
            forms.append(re.compile(form))
        except (re.error, RecursionError, OverflowError, MemoryError):
            if form == pattern:
                sys.exit(3)
    for name in names:
        forms[0].fullmatch(name), forms[0].search(name), [form.match(name) for form in forms[1:]]
"""


def slow_pattern(patterns: Collection[str], names: Collection[str]) -> tuple[str, str] | None:
    """The first unusable pattern, and the reason; None if all are usable.

    Python's `re`, used by peft, has no time limit, so a subprocess tries the patterns first and is killed if slow.

    Args:
        patterns: regular expressions.
        names: module names that peft will match them with.
    """
    doubtful = [pattern for pattern in patterns if len(patterns) > 500 or not _PLAIN.fullmatch(pattern)]
    if not doubtful:
        return None
    if too_long := next((pattern for pattern in doubtful if len(pattern) > _LONGEST), None):
        return too_long, f"it has over {_LONGEST:,} characters"
    command = [sys.executable, "-I", "-S", "-c", _TRY]
    given = json.dumps([doubtful, list(names)])
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=SECONDS, check=False)
        output, why = done.stdout, "it is not a valid regular expression" if done.returncode else ""
    except subprocess.TimeoutExpired as error:
        raw = error.stdout or b""
        output, why = raw.decode() if isinstance(raw, bytes) else raw, f"matching takes over {SECONDS:g} seconds"
    if not why:
        return None
    last = output.split()
    return doubtful[int(last[-1]) if last else 0], why
