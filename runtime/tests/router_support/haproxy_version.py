"""Which HAProxy a test meets: some of what it does differs by branch."""

import subprocess

PARSER_TAKES_OUR_WORDS = (3, 2)
LOOKS_WHEN_IT_CONNECTS = (3, 0)


def branch(version: str) -> tuple[int, ...]:
    """The branch of a version: (3, 2) of 3.2.22-alpine."""
    return tuple(int(number) for number in version.split(".")[:2])


def branch_on_the_path() -> tuple[int, ...]:
    """The branch of the first HAProxy on the PATH."""
    told = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout
    return branch(told.split()[2])


def parser_takes_our_words() -> bool:
    """Whether what its parser refuses is answered in the router's words."""
    return branch_on_the_path() >= PARSER_TAKES_OUR_WORDS


def looks_for_callers_that_left_while_it_holds() -> bool:
    """Or only once it connects to a replica."""
    return branch_on_the_path() < LOOKS_WHEN_IT_CONNECTS
