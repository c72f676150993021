"""The one error that a user can act on; everything else that escapes is a bug of ours. No message shows a password."""

from __future__ import annotations

import re

MASK = "***"
# An address with a host: a scheme, `//` (one slash where it was taken for a path), and all up to the next white space
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/{1,2})(?!/)(\S+)")
SCHEMELESS = re.compile(r"""(?<![^\s'"(=,])[^\s:/@'"(=,]+:(?!/)\S+@(?=\S)""")  # user:password@host
CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029]")
QUERY = re.compile(
    r"([?&;#][^\s=&;#?]*?(?:token|pass|pwd|secret|key|sig|auth|cred|session|jwt|odbc_connect)[^\s=&;#?]*=)[^\s&]+", re.I
)
SETTING = re.compile(  # as database drivers write it, outside an address
    r"(?<![\w.])((?:password|passwd|pwd|secret|token|access_token|api_?key)\s*=\s*)(?:'[^']*'|\"[^\"]*\"|[^\s&]+)", re.I
)


class UserError(Exception):
    """A message that names the file, row, key or parameter, what was expected, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(masked(message)))


def one_line(text: str) -> str:
    """The text with ? for characters that would end its line, or that a terminal obeys: names of files may hold them.

    >>> one_line("log\\n.csv: the file is empty")
    'log?.csv: the file is empty'
    """
    return CONTROL.sub("?", text)


def first_line(error: Exception) -> str:
    """What a library says first of what went wrong, or else what kind of error it was.

    >>> first_line(ValueError("\\nnot a model\\nsee below")), first_line(KeyError())
    ('not a model', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def masked(text: str) -> str:
    """The text with *** for the users, passwords and tokens of every address in it; what is masked stays as it is.

    Where an @ may belong to a password or to what follows the host, it counts as the password's.

    >>> masked("cannot reach https://me:pa@ss@runs.org:5000/x?token=abc&page=2")
    'cannot reach https://***@runs.org:5000/x?token=***&page=2'
    >>> masked("sqlite:////home/me@work/mlflow.db")
    'sqlite:////home/me@work/mlflow.db'
    """
    text = ADDRESS.sub(lambda found: found[1] + _without_user(found[2]), text)
    text = SCHEMELESS.sub(f"{MASK}@", text)
    return SETTING.sub(rf"\1{MASK}", QUERY.sub(rf"\1{MASK}", text))


def _without_user(rest: str) -> str:
    """What follows a scheme: a password may hold /, ? or #, so any @ after a colon or an @ of the host ends it."""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return f"{MASK}{rest[rest.rindex('@') :]}" if "@" in rest and ("@" in host or ":" in host) else rest
