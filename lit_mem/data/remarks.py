"""What is worth knowing of the texts before any number is read."""

from __future__ import annotations

from collections.abc import Iterable

from lit_mem.functional.words import scripts_without_spaces


def on_scripts(texts: Iterable[str]) -> str | None:
    """A line on texts in scripts without spaces between words, whose characters count as words; None without such."""
    found, total, scripts = 0, 0, set[str]()
    for text in texts:
        total += 1
        if mine := scripts_without_spaces(text):
            found += 1
            scripts |= mine
    if not found:
        return None
    return (
        f"{found} of {total} texts are in a script without spaces between words ({', '.join(sorted(scripts))}): each "
        "of its characters counts as a word (n-gram rate, ROUGE-L, BLEU, near duplicates, text-only classifier)."
    )
