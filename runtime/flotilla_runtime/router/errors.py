"""The errors of the router's agent when it asks HAProxy.

RouterProcessError      HAProxy cannot be reached
└── UnexpectedReply     the reply is not one of HAProxy 2.6 to 3.x
"""


class RouterProcessError(Exception):
    """HAProxy does not answer on its admin socket: it is starting, restarting or gone."""


class UnexpectedReply(RouterProcessError):  # noqa: N818 (it is named by what happened)
    """A reply that this version of the agent cannot parse."""
