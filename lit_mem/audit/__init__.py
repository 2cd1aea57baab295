"""One scoring pass feeds every measure; and, as a function, an audit of a finished model: `lit_mem.audit(...)`.

This package can be called, so that `lit_mem.audit` is both: the call is `lit_mem.audit.run.run_audit`.
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
        """So that `inspect.signature` and `help` show the options."""
        from lit_mem.audit.run import run_audit

        return run_audit


sys.modules[__name__].__class__ = _Callable
