"""The one exception a user can cause, and the one warning category of the package."""

from __future__ import annotations


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, where and what to do.

    Parameters
    ----------
    problem : str
        What is wrong, without a final full stop.
    source : str or path, optional
        The file, option or expression that is at fault.
    remedy : str, optional
        What the user can type or change.

    Notes
    -----
    ``str(error)`` is one sentence on one line: the command line prints it and exits with 2.
    """

    exit_code = 2

    def __init__(self, problem: str, source: object = None, remedy: str | None = None):
        self.problem = " ".join(str(problem).split()).rstrip(".")
        self.source = None if source is None else str(source)
        self.remedy = None if remedy is None else " ".join(remedy.split()).rstrip(".")
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.problem if self.source is None else f"{self.source}: {self.problem}"
        if not self.remedy:
            return f"{text}."
        return f"{text}; {self.remedy}" + ("" if self.remedy.endswith("?") else ".")

    def __reduce__(self):
        return type(self), (self.problem, self.source, self.remedy)


class DeepspecWarning(UserWarning):
    """Something was decided for the user that may matter; also recorded in the result."""
