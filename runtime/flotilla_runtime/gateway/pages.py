"""Selects the tasks of a list by the parameters of GET /v1/tasks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from flotilla_runtime.agent.journal import TaskStatus, WaitKind
from flotilla_runtime.agent.tasks import TaskRecord
from flotilla_runtime.gateway.problems import FieldProblem
from flotilla_runtime.gateway.requests import CONVERSATION, CONVERSATION_RULE, TENANT, TENANT_RULE, refused
from flotilla_runtime.gateway.task_ids import is_task_id

DEFAULT_PAGE: Final = 50
MOST_PER_PAGE: Final = 200
LIMIT: Final = re.compile(r"[0-9]{1,3}")
PARAMETERS: Final = ("status", "tenant", "conversationId", "waitsFor", "cursor", "limit")

Member = TypeVar("Member", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageWanted:
    """The tasks that a caller asks for; None is any."""

    statuses: frozenset[TaskStatus] | None = None
    tenant: str | None = None
    conversation_id: str | None = None
    waits_for: WaitKind | None = None
    before: str | None = None
    count: int = DEFAULT_PAGE

    @property
    def approvals(self) -> bool:
        """Whether tasks of which somebody may decide on a call alone are asked for."""
        return self.waits_for is WaitKind.APPROVAL

    def shows(self, record: TaskRecord, *, is_to_approve: bool = False) -> bool:
        """Whether a task belongs on the page; one that is to be approved may also run."""
        return (
            (self.statuses is None or record.status in self.statuses)
            and self.tenant in (None, record.tenant)
            and self.conversation_id in (None, record.conversation_id)
            and (is_to_approve if self.approvals else self.waits_for in (None, waits_for(record)))
        )


def page_wanted(query: Mapping[str, str]) -> PageWanted:
    """Read the parameters. Raises a problem that names every wrong one."""
    known = f"{', '.join(PARAMETERS[:-1])} or {PARAMETERS[-1]}"
    problems = [
        FieldProblem(field=name, problem=f"unknown parameter; use {known}")
        for name in query
        if name not in PARAMETERS
    ]
    status = _member(TaskStatus, "status", query, problems)
    tenant, waits_for = query.get("tenant"), _member(WaitKind, "waitsFor", query, problems)
    if tenant is not None and not TENANT.fullmatch(tenant):
        problems.append(FieldProblem(field="tenant", problem=TENANT_RULE))
    conversation = query.get("conversationId")
    if conversation is not None and not CONVERSATION.fullmatch(conversation):
        problems.append(FieldProblem(field="conversationId", problem=CONVERSATION_RULE))
    cursor, limit = query.get("cursor"), query.get("limit", str(DEFAULT_PAGE))
    if cursor is not None and not is_task_id(cursor):
        problems.append(FieldProblem(field="cursor", problem="must be the nextCursor of an earlier page"))
    if not LIMIT.fullmatch(limit) or not 1 <= int(limit) <= MOST_PER_PAGE:
        problems.append(FieldProblem(field="limit", problem=f"must be a number from 1 to {MOST_PER_PAGE}"))
    if problems:
        raise refused(problems)
    return PageWanted(
        statuses=None if status is None else frozenset({status}),
        tenant=tenant,
        conversation_id=conversation,
        waits_for=waits_for,
        before=cursor,
        count=int(limit),
    )


def _member(
    kinds: type[Member], name: str, query: Mapping[str, str], problems: list[FieldProblem]
) -> Member | None:
    told = query.get(name)
    if told is None:
        return None
    if told not in set(kinds):
        problems.append(FieldProblem(field=name, problem=f"must be one of {', '.join(kinds)}"))
        return None
    return kinds(told)


def waits_for(record: TaskRecord) -> WaitKind | None:
    """The kind of a suspended task's wait; None for any other task."""
    return record.waits_for if record.status is TaskStatus.SUSPENDED else None
