"""Whether an approval still holds for an Unsafe call that is to be made again. Pure.

An approval is one call: once the call may have reached the other side, the approval is used up. Who says that
it did not happen has not said yes to another one. That a tool's `reconcile` says so is no approval either,
as it is none where the call's worker lives: it may have looked before the effect showed. A call that was not
begun is still the one that was approved.
"""

from flotilla_runtime.agent.journal import BY_RECONCILE, BY_WORKER


def must_ask_anew(who: str | None, *, asks: bool, follows_approval: bool) -> bool:
    """Whether somebody must approve before the call is made again.

    `who` says that it did not happen; None in journals of older releases. With `asks` the tool needs
    approval. With `follows_approval`, somebody said yes to the agent itself before the call, and may have
    meant it: the word of a person, who may be the one that asked, does not repeat it. The reconcile of a tool
    that needs no approval is believed as it is in other tasks.
    """
    if who == BY_WORKER:
        return False
    return asks or (follows_approval and who != BY_RECONCILE)
