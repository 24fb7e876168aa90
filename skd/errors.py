"""The one exception whose message is written for the user: what is wrong, where, and the remedy."""


class UserError(Exception):
    """Stages print its message alone, without a traceback, and exit with status 2."""
