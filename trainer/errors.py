"""The one exception family of this package: known errors that a CLI prints as a single line."""


class TrainerError(Exception):
    """A known failure. The message says what was found, where, and what to do next."""
