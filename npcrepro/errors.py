"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message is one sentence that names the file or value and the likely cause. The command line prints it
    without a traceback and ends with exit status 1; in a notebook it is the last line of the error.
    """
