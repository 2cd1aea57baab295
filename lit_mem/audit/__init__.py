"""Measures over one scoring pass, and `lit_mem.audit(...)`, a function that audits a finished model.

The package is callable: calling `lit_mem.audit` runs `lit_mem.audit.run.run_audit`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_mem.audit.result import AuditResult


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> AuditResult:
        """See `lit_mem.audit.run.run_audit`."""
        from lit_mem.audit.run import run_audit

        return run_audit(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        """Show the options of `run_audit` in `inspect.signature` and `help`."""
        from lit_mem.audit.run import run_audit

        return run_audit


sys.modules[__name__].__class__ = _Callable
