"""The one exception that means "the user can mend this": its text is shown without a traceback."""


class InputError(Exception):
    """A mistake in what the user gave: configuration, data, weights or arguments.

    The text says what must hold, what was received, and what to do. Commands print it and exit with code 2.
    """
