"""Run slow measures in every n-th validation only."""

from __future__ import annotations

from typing import Any

from lit_mem.audit.measure import Pass


class EveryNth:
    """Counts the validations of a fit, continuing in a resumed run.

    Attributes:
        group: namespace of the logged names, which distinguishes several measures of one class.
        every_n_validations: in a fit, measure only every n-th validation, and the check before training.
    """

    group: str
    every_n_validations: int
    _validations: int = 0

    @property
    def state_key(self) -> str:
        """State key by group."""
        return f"{type(self).__qualname__}({self.group})"

    def state_dict(self) -> dict[str, Any]:
        """State that keeps the same schedule in a resumed run."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count."""
        self._validations = state_dict["validations"]

    def count_anew(self) -> None:
        """Reset the count for a new fit; in a resumed run, `load_state_dict` follows."""
        self._validations = 0

    def is_due(self, run: Pass) -> bool:
        """Count the pass if it is a validation of a fit; return whether to measure it."""
        if run.stage != "fit" or run.checking:
            return True
        self._validations += 1
        return self._validations % self.every_n_validations == 0
