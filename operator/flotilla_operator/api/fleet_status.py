"""Status of an AgentFleet."""

from typing import Annotated

from pydantic import Field

from flotilla_operator.api.base import ApiModel, MapList
from flotilla_operator.api.parts import Conditions, LongText, ShortText, Status, Time

OLDER_REVISIONS_SHOWN = 5


class WorkersStatus(ApiModel):
    """The number of worker pods."""

    desired: int | None = None
    """Desired number of worker pods."""
    ready: int | None = None
    """Number of ready worker pods."""


class ToolExecutorsStatus(ApiModel):
    """The number of pods that run tools."""

    desired: int | None = None
    """Desired number of pods that run tools."""
    ready: int | None = None
    """Number of ready pods that run tools."""


class OlderRevision(ApiModel):
    """A revision that has workers of its own, because tasks of it are left."""

    revision: ShortText
    """The revision. `BeforeRevisions` stands for the workers of a release that knew no revisions."""
    tasks: int | None = None
    """Tasks of the revision that have not ended. Absent while no gateway reports."""
    since_time: Time
    """When another revision took its place."""
    until_time: Time
    """When the tasks that are left go over to the workers of `status.revision`."""


class TasksStatus(ApiModel):
    """Counts of tasks."""

    waiting: int | None = None
    """Tasks that wait in the queue."""
    running: int | None = None
    """Tasks that a worker runs, or whose worker was lost and not yet replaced."""
    suspended: int | None = None
    """Tasks that hold no worker, because they wait for tasks that they started, for a time, for a signal, or
    for somebody who approves a call or says whether one happened."""
    admitted: int | None = None
    """Tasks that may run at the same time, because the models have room for their histories and their calls.
    Absent: nothing limits them."""
    succeeded_1h: int | None = None
    """Tasks that completed in the last hour."""
    failed_1h: int | None = None
    """Tasks that ended in the last hour without completing. Cancelled tasks do not count."""
    recovered_1h: int | None = None
    """Tasks that ended in the last hour and that another worker had taken over from a lost one."""
    unknown_effects: int | None = None
    """Tasks that wait until somebody says whether a call of a tool had its effect."""
    waiting_for_approval: int | None = None
    """Tasks with a call on which somebody is to decide. Some may run meanwhile."""
    dead_letters: int | None = None
    """Tasks that failed and can still be read and replayed."""


class StoreStatus(ApiModel):
    """Use of Redis by the tasks."""

    used_mib: float | None = None
    """Memory that Redis uses, in MiB."""
    limit_mib: float | None = None
    """Memory at which submissions are refused, in MiB. Absent: nothing limits them."""
    replicas: int | None = None
    """Number of replicas that follow the primary."""


class LatencyStatus(ApiModel):
    """The duration of tasks."""

    p50_seconds: float | None = None
    """Median of the time from the submission of a task to its end, in seconds."""
    p95_seconds: float | None = None
    """The 95th percentile of the time from the submission of a task to its end, in seconds: 95 % of the tasks
    took at most this long."""
    wait_p95_seconds: float | None = None
    """The 95th percentile of the time from the submission of a task until a worker took it, in seconds: 95 %
    of the tasks waited at most this long."""


class AgentFleetStatus(Status):
    """State that the operator last saw."""

    conditions: Conditions = ()
    """State of the fleet, one condition for each aspect. SpecValid: the operator can act on the spec.
    ModelsReady: every model can be called. IndexesReady: every index can be searched. ToolsReady: every tool
    can be called. QueueReady: Redis takes tasks. GatewayReady: a gateway pod is ready. WorkersReady: of each
    revision that needs workers, one is ready. Progressing: a new revision takes the place of an older one; it
    informs. MeetingSLO: tasks keep `spec.slo`; it informs, and is absent without one. Paused: `spec.paused`
    is true; the condition is absent otherwise. Ready: the summary, True when those that count are.
    Reconciling: Ready is not True, and the operator expects it to become True without help. Stalled: Ready is
    not True, and a person must act."""
    url: LongText | None = None
    """URL of the task API."""
    ready: ShortText | None = None
    """Ready and desired pods of the fleet (gateway, workers, tool executors and managed Redis) as one text,
    for example 4/4, for the column READY."""
    workers: WorkersStatus | None = None
    """Number of worker pods, of all revisions."""
    tool_executors: ToolExecutorsStatus | None = None
    """Number of pods that run tools, of all revisions. Absent without `spec.toolExecutors`."""
    revision: ShortText | None = None
    """The revision of agent, image, tools, models and indexes that new tasks get. It stays the older one
    until every model and index of the spec is known."""
    older_revisions: Annotated[
        tuple[OlderRevision, ...],
        MapList("revision"),
        Field(max_length=OLDER_REVISIONS_SHOWN),
    ] = ()
    """Older revisions whose tasks still have workers of their own, the newest first; at most 5 are shown."""
    tasks: TasksStatus | None = None
    """Counts of tasks, now and over the last hour. Absent while no gateway reports."""
    store: StoreStatus | None = None
    """Use of Redis by the tasks. Absent while no gateway reports."""
    latency: LatencyStatus | None = None
    """How long the tasks took that ended in the last hour. Empty when none ended."""
    goodput_per_minute: float | None = None
    """Tasks completed per minute, over the last hour."""
    success_rate: float | None = None
    """Of the tasks that ended in the last hour, the share that completed, from 0 to 1. Cancelled tasks do not
    count. Absent when none ended."""
    tokens_per_task: float | None = None
    """Mean number of tokens, in prompts and answers together, of the tasks that ended in the last hour.
    Absent when none ended."""
    cost_per_task_usd: float | None = None
    """Mean cost of the tasks that ended in the last hour, in USD. Absent when none ended, or when a price is
    unknown."""
    cache_hit_rate: float | None = None
    """Share of searches and calls of Pure tools that the cache answered, from 0 to 1, in the tasks that ended
    in the last hour. Absent when there were none, or when `spec.cache` keeps nothing."""
    bottleneck: ShortText | None = None
    """Cause that slows tasks down most, over the last hour. None: no task waits, and hardly any has waited.
    Workers: all workers are busy, and `workers.maxReplicas` of them run. ToolExecutors: the same of tool
    executors, and calls wait for one. Model/NAME: tasks wait because this model has no room for more.
    Model/NAME, Index/NAME, Tool/NAME: tasks spend most of their time with this model, index or tool.
    RateLimit/NAME: they wait most for their turn at this limit."""
