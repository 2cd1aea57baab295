"""What measures share that take long, and so measure in some validations only."""

from __future__ import annotations

from lit_mem.audit.measure import Pass


class EveryNth:
    """Counts the validations of a fit, and goes on counting in a resumed one.

    Attributes:
        group: first part of the logged names, by which several measures of a class in one run differ.
        every_n_validations: in a fit only every n-th validation is measured, and the check before training.
    """

    group: str
    every_n_validations: int
    _validations: int = 0

    @property
    def state_key(self) -> str:
        """Of the group."""
        return f"{type(self).__qualname__}({self.group})"

    def state_dict(self) -> dict[str, int]:
        """What a resumed run needs to measure in the same validations."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def count_anew(self) -> None:
        """Start with the first validation, as a new fit does; a resumed one gets its own count next."""
        self._validations = 0

    def is_due(self, run: Pass) -> bool:
        """Count a pass, if it is a validation of a fit; whether it is to be measured."""
        if run.stage != "fit" or run.checking:
            return True
        self._validations += 1
        return self._validations % self.every_n_validations == 0
