"""What the stack tells its user. Every message is one line that says what is wrong and how to mend it."""


class StackError(Exception):
    """The stack cannot do what was asked. `exit_code` is what the command line ends with."""

    exit_code = 1


class EnvironmentLacking(StackError):
    """Something outside this repository is missing: Java, Maven, disk space, a free port, the network."""

    exit_code = 2
