"""The one error that a user can act on; everything else that escapes is a bug of ours."""


class UserError(Exception):
    """A message that names the file, row, key or parameter, what was expected, and what to do."""
