"""Accounts as actors: each keeps its balance, and handles one message after another.

docs/patterns.md explains it.
"""

from typing import Any

from flotilla_runtime.agents import ActorEnded, Context, Task, Turn

RECEIPTS: list[str] = []


def receipt(line: str) -> str:
    """Prints a receipt."""
    RECEIPTS.append(line)
    return line


class Account:
    """An account. It fails for amounts that are no numbers, and may do so three times a minute."""

    mailbox = 50
    restarts = 3
    restart_seconds = 60

    async def receive(self, ctx: Context, state: int | None, message: Any) -> Turn:
        """Add an amount, or say the balance. The printer is a child: it prints in its own time."""
        balance = state or 0
        if isinstance(message, ActorEnded) or message == "balance":
            return Turn(state=balance, answer=balance)
        balance += int(message["amount"])
        await ctx.actor("printer", Printer, child=True).tell(f"{ctx.address}: {balance}")
        return Turn(state=balance, answer=balance)


class Printer:
    """Prints receipts, and counts them."""

    async def receive(self, ctx: Context, state: int | None, message: str) -> Turn:
        """Print a line."""
        await ctx.tool("receipt", {"line": message})
        return Turn(state=(state or 0) + 1)


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Put the amounts of the task's input on an account, and ask for the balance."""
    account = ctx.actor(f"account/{task.metadata.get('account', 'main')}", Account)
    for amount in task.input.split():
        await account.tell({"amount": amount})
    return {"balance": await account.ask("balance")}
