"""Longest common substring of two texts, in time linear in their lengths."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def longest_common_substring(left: str, right: str) -> int:
    """Length in characters of the longest common substring; 0 if either is empty.

    Builds the suffix automaton of `right` and matches `left` against it. Comparing all pairs of characters would take
    seconds for two long repetitive texts, as generated ones often are.

    Args:
        left: any text.
        right: any text.

    Returns:
        A count of Unicode code points, symmetric in the two texts.

    Source: Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text".

    >>> longest_common_substring("mild rash after two doses", "severe rash after two weeks")
    16
    """
    return Substrings(right).longest_in(left)


class Substrings:
    """All substrings of a sequence, in memory linear in its length.

    Args:
        sequence: a string, or other items.
    """

    def __init__(self, sequence: Sequence[Hashable]) -> None:
        self._length, self._link, self._step = _suffix_automaton(sequence)

    def longest_in(self, other: Sequence[Hashable]) -> int:
        """Length of the longest substring also contained in another sequence; 0 if there is none."""
        length, link, step = self._length, self._link, self._step
        state = run = best = 0
        for item in other:
            while state and item not in step[state]:
                state = link[state]
                run = length[state]
            if item in step[state]:
                state = step[state][item]
                run += 1
                best = max(best, run)
        return best


def _suffix_automaton(text: Sequence[Hashable]) -> tuple[list[int], list[int], list[dict[Hashable, int]]]:
    """For each state: the length of its longest substring, its suffix link, its transitions."""
    length, link, step = [0], [-1], [dict[Hashable, int]()]
    last = 0
    for item in text:
        new = len(length)
        length.append(length[last] + 1)
        link.append(0)
        step.append({})
        state = last
        while state != -1 and item not in step[state]:
            step[state][item] = new
            state = link[state]
        if state != -1:
            reached = step[state][item]
            if length[reached] > length[state] + 1:
                # Its shorter substrings end here too, its longest does not: split the state.
                copy = len(length)
                length.append(length[state] + 1)
                link.append(link[reached])
                step.append(dict(step[reached]))
                link[reached] = copy
                while state != -1 and step[state].get(item) == reached:
                    step[state][item] = copy
                    state = link[state]
                reached = copy
            link[new] = reached
        last = new
    return length, link, step
