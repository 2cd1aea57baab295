"""One exception tree for everything that a user can put right.

The command line turns each of these into one line on standard error and exit code 2; anything else is a bug
of ours and keeps its traceback.
"""


class LitMemError(Exception):
    """A mistake that the user can mend; the message names what was found, where, and what was expected."""


class ConfigError(LitMemError):
    """An option has a value that cannot work."""


class DataError(LitMemError):
    """A file, row or field of the data is not what was expected."""


class ModelError(LitMemError):
    """A base model, tokenizer or adapter cannot be loaded, or does not fit the options."""


class CheckpointError(LitMemError):
    """A checkpoint is damaged, or belongs to another base model or adapter."""


class TrainingError(LitMemError):
    """Training has gone where nothing more can be learned."""


class MetricError(LitMemError):
    """A measure was asked for something that its input cannot give."""
