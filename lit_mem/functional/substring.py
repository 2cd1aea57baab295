"""Longest run of characters that two texts share, in time linear in their lengths."""

from __future__ import annotations


def longest_common_substring(left: str, right: str) -> int:
    """Length in characters of the longest contiguous piece of text common to both; 0 where either is empty.

    The suffix automaton of `right` is built, and `left` is read through it. A comparison of all pairs of characters
    would take seconds for two long texts that repeat themselves, as generated ones do.

    Args:
        left: any text.
        right: any text.

    Returns:
        A count of Unicode code points, the same with the texts exchanged.

    Source: Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text".

    >>> longest_common_substring("mild rash after two doses", "severe rash after two weeks")
    16
    """
    length, link, step = _suffix_automaton(right)
    state = run = best = 0
    for character in left:
        while state and character not in step[state]:
            state = link[state]
            run = length[state]
        if character in step[state]:
            state = step[state][character]
            run += 1
            best = max(best, run)
    return best


def _suffix_automaton(text: str) -> tuple[list[int], list[int], list[dict[str, int]]]:
    """Of each state: its longest substring's length, the state of its longest suffix that is elsewhere, its steps."""
    length, link, step = [0], [-1], [dict[str, int]()]
    last = 0
    for character in text:
        new = len(length)
        length.append(length[last] + 1)
        link.append(0)
        step.append({})
        state = last
        while state != -1 and character not in step[state]:
            step[state][character] = new
            state = link[state]
        if state != -1:
            reached = step[state][character]
            if length[reached] > length[state] + 1:
                # Its shorter substrings end here too, its longest does not: the state is split.
                copy = len(length)
                length.append(length[state] + 1)
                link.append(link[reached])
                step.append(dict(step[reached]))
                link[reached] = copy
                while state != -1 and step[state].get(character) == reached:
                    step[state][character] = copy
                    state = link[state]
                reached = copy
            link[new] = reached
        last = new
    return length, link, step
