"""One row for each reason that a fleet's conditions can carry: what it refers to and what runs, and what the
plan says. That no reason is left out: tests/house/test_reasons.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from flotilla_operator.cluster.writes import Apply
from flotilla_operator.controllers.agent_fleet.reasons import ConditionType, Reason
from flotilla_operator.objects import used_by
from flotilla_operator.objects.send_to import ANNOTATION
from flotilla_runtime import contract
from leaks.planted import planted
from tests.builders.agent_fleet import agent_fleet, served_index, served_model, worker_of
from tests.builders.pod_options import PRIORITY_CLASS, RUNTIME_CLASS
from tests.builders.world import RESTRICTED
from tests.controllers.agent_fleet.test_decide import unready_pod, worker_deployment
from tests.controllers.agent_fleet.test_plan import IDLE, Stage, condition

HUSH = planted("hush")

WITH_INDEX: dict[str, Any] = {"indexes": [{"name": "h", "indexRef": {"name": "handbook"}}]}
WITH_KEYS: dict[str, Any] = {"gateway": {"auth": {"mode": "Secret", "secretRef": {"name": "callers"}}}}


def with_certificate(secret: str) -> dict[str, Any]:
    return {"gateway": {"tls": {"secretRef": {"name": secret}}}}


def searched_with(secret: str) -> dict[str, Any]:
    """An index whose callers have keys of this Secret."""
    index = served_index(keys={"secretName": secret})
    return {**index, "spec": {**index["spec"], "retriever": {"authSecretRef": {"name": secret}}}}


OWN_REDIS: dict[str, Any] = {"queue": {"redis": {"mode": "External", "urlSecretRef": {"name": "redis"}}}}


def with_redis(secret: str, key: str = "url") -> dict[str, Any]:
    return {"queue": {"redis": {"mode": "External", "urlSecretRef": {"name": secret, "key": key}}}}


def mounting(claim: str) -> dict[str, Any]:
    return {"pod": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}}


def claim_of(users: str) -> dict[str, Any]:
    metadata = {
        "name": "files",
        "namespace": "default",
        "uid": "uid-files",
        "annotations": {used_by.ANNOTATION: users},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {}}


OTHERS_KEY = {"url": "https://m.example/v1", "model": "gpt", "apiKeySecretRef": {"name": "others"}}
WITH_A_KEY_FOR_ANOTHER = {"models": [{"role": "Default", "endpoint": OTHERS_KEY}]}
THROUGH_A_PROXY = {"env": [{"name": "HTTP_PROXY", "value": "http://evil.example:3128"}]}
WITH_A_KEY_THROUGH_A_PROXY = {
    "models": [{"role": "Default", "endpoint": {**OTHERS_KEY, "url": "http://other.example/v1"}}],
    "workers": {"pod": THROUGH_A_PROXY},
}
ELSEWHERE = {
    "models": [
        {
            "role": "Default",
            "endpoint": {
                "url": "https://m.example/v1",
                "model": "gpt",
                "apiKeySecretRef": {"name": "empty"},
            },
        }
    ]
}
SANDBOXED, FIRST = {"runtimeClassName": RUNTIME_CLASS}, {"priorityClassName": PRIORITY_CLASS}
A_TOOL: dict[str, Any] = {
    "name": "weather",
    "http": {"url": "https://weather.example", "headersSecretRef": {"name": "weather"}},
}
WITH_A_TOOL: dict[str, Any] = {"tools": [A_TOOL]}
OPERATION = {"url": "https://docs.example/openapi.json", "operationId": "getWeather"}


def a_query(secret: str, key: str = "url") -> dict[str, Any]:
    return {"name": "cities", "sql": {"urlSecretRef": {"name": secret, "key": key}, "query": "select 1"}}


A_SERVER = {"url": "https://mcp.example/mcp"}
WITH_AN_OPERATION = agent_fleet(tools=[{"name": name, "http": {"openapi": OPERATION}} for name in ("a", "b")])
ASKED_ELSEWHERE = {
    "name": "weather",
    "http": {"url": "https://weather.example"},
    "reconcile": {"http": {"url": "https://weather.example", "headersSecretRef": {"name": "others"}}},
}
SENTINELS = {
    "queue": {
        "redis": {
            "mode": "External",
            "urlSecretRef": {"name": "sentinels"},
            "topology": "Sentinel",
            "sentinel": {"master": "mymaster", "passwordSecretRef": {"name": "sentinel"}},
        }
    }
}


def with_traces(secret: str) -> dict[str, Any]:
    return {
        "telemetry": {"otlpEndpoint": "https://traces.example", "headersSecretRef": {"name": secret}},
    }


def with_payloads(secret: str, endpoint: str = "https://objects.example:9000") -> dict[str, Any]:
    payloads = {"url": "s3://fleets/a", "endpoint": endpoint, "secretRef": {"name": secret}}
    return {"queue": {"payloads": payloads}}


TOOLS = ConditionType.TOOLS_READY
MODELS, INDEXES, QUEUE = ConditionType.MODELS_READY, ConditionType.INDEXES_READY, ConditionType.QUEUE_READY
GATEWAY, WORKERS = ConditionType.GATEWAY_READY, ConditionType.WORKERS_READY


@pytest.mark.holds(
    "argocd.md", "An object waits for a model or an index that comes later, and a person must add a Secret"
)
@pytest.mark.holds(
    "tools.md",
    "Secrets with headers of tools, MCP servers, documents and validators, and URLs of databases, "
    "go only where `flotilla.dev/send-to` says; else `ToolsReady` names the field",
)
@pytest.mark.holds(
    "tasks.md", "While the certificate is missing the gateways that run stay, and a condition says so"
)
@pytest.mark.holds(
    "tasks.md", "The headers of tools are mounted as files, and go only where `flotilla.dev/send-to` says"
)
@pytest.mark.holds(
    "tasks.md", "New credentials of the bucket need no restart, and go only where `flotilla.dev/send-to` says"
)
@pytest.mark.holds("pods.md", "A missing class is a condition that names the field")
@pytest.mark.holds("security.md", "The headers of a validator go to its URL alone")
@pytest.mark.holds(
    "security.md",
    "An object that a Secret does not list says `SecretForOthers`, and no pod mounts it; what runs stays",
)
@pytest.mark.holds(
    "security.md", "An object that would send it elsewhere says `SecretForElsewhere`, and what runs stays"
)
@pytest.mark.holds(
    "observability.md",
    "The Secret with headers goes only where `flotilla.dev/send-to` says, is read anew, and is in no log",
)
@pytest.mark.parametrize(
    ("objects", "spec", "condition_type", "reason", "says", "stalled"),
    [
        pytest.param((), {}, MODELS, Reason.MODEL_MISSING, "ModelReplicaSet 'llama'", False, id="model"),
        pytest.param(
            (served_model(model={"task": "Embed"}),),
            {},
            MODELS,
            Reason.MODEL_WRONG_TASK,
            "is Embed; refer to one with the task Generate",
            True,
            id="a model that embeds",
        ),
        pytest.param(
            (served_model(available=False),),
            {},
            MODELS,
            Reason.MODEL_STARTING,
            "0 of 1 replicas are ready",
            False,
            id="a model that starts",
        ),
        pytest.param(
            (served_model(router={"authSecretRef": {"name": "keys"}}),),
            {},
            MODELS,
            Reason.SECRET_MISSING,
            "'keys'",
            True,
            id="the keys of a model",
        ),
        pytest.param(
            (served_model(),),
            WITH_INDEX,
            INDEXES,
            Reason.INDEX_MISSING,
            "VectorIndex 'handbook'",
            False,
            id="index",
        ),
        pytest.param(
            (served_model(), served_index(activeGeneration=None, phase="Building")),
            WITH_INDEX,
            INDEXES,
            Reason.INDEX_BUILDING,
            "cannot be searched yet (its phase is Building)",
            False,
            id="an index that is being built",
        ),
        pytest.param(
            (served_model(), served_index(retriever=False, phase="Promoting")),
            WITH_INDEX,
            INDEXES,
            Reason.INDEX_STARTING,
            "cannot be searched yet (its phase is Promoting)",
            False,
            id="an index that is built and has no retriever yet",
        ),
        pytest.param(
            (served_model(), served_index(phase="Promoting")),
            WITH_INDEX,
            INDEXES,
            Reason.INDEX_STARTING,
            "cannot be searched yet (its phase is Promoting)",
            False,
            id="an index that was never ready",
        ),
        pytest.param(
            (served_model(), served_index(retriever=False, phase="Degraded")),
            WITH_INDEX,
            INDEXES,
            Reason.INDEX_STARTING,
            "cannot be searched yet (its phase is Degraded)",
            False,
            id="an index that has lost its retriever",
        ),
        pytest.param(
            (served_model(),),
            WITH_KEYS,
            GATEWAY,
            Reason.SECRET_MISSING,
            "Secret 'callers'",
            True,
            id="the callers' keys",
        ),
        pytest.param(
            (served_model(),),
            with_certificate("absent"),
            GATEWAY,
            Reason.SECRET_MISSING,
            "spec.gateway.tls.secretRef: there is no Secret 'absent'",
            True,
            id="the certificate",
        ),
        pytest.param(
            (served_model(),),
            {"gateway": {"auth": {"mode": "Secret", "secretRef": {"name": "unsendable"}}}},
            GATEWAY,
            Reason.SECRET_KEY_MISSING,
            "spec.gateway.auth.secretRef: the Secret 'unsendable' holds no token that can be sent",
            True,
            id="tokens of callers that nobody can send",
        ),
        pytest.param(
            (served_model(),),
            with_certificate("empty"),
            GATEWAY,
            Reason.SECRET_KEY_MISSING,
            "spec.gateway.tls.secretRef: the Secret 'empty' has no entry 'tls.crt'",
            True,
            id="an entry of the certificate",
        ),
        pytest.param(
            (served_model(),),
            with_certificate("tls"),
            GATEWAY,
            Reason.SECRET_FOR_OTHERS,
            "spec.gateway.tls.secretRef: the Secret 'tls' is not mounted",
            True,
            id="the certificate of another fleet",
        ),
        pytest.param(
            (served_model(),),
            {"gateway": {"auth": {"mode": "Secret", "secretRef": {"name": "tls"}}}},
            GATEWAY,
            Reason.SECRET_FOR_OTHERS,
            "spec.gateway.auth.secretRef: the Secret 'tls' is not mounted",
            True,
            id="a Secret of another fleet as keys of callers",
        ),
        pytest.param(
            (served_model(router={"authSecretRef": {"name": "keys-of-gpt"}}),),
            {},
            MODELS,
            Reason.SECRET_FOR_OTHERS,
            "does not list ModelReplicaSet/llama",
            True,
            id="the keys of another model",
        ),
        pytest.param(
            (served_model(), searched_with("keys-of-gpt")),
            WITH_INDEX,
            INDEXES,
            Reason.SECRET_FOR_OTHERS,
            "does not list VectorIndex/handbook",
            True,
            id="the keys of a model, for an index",
        ),
        pytest.param(
            (served_model(),),
            OWN_REDIS,
            QUEUE,
            Reason.SECRET_MISSING,
            "spec.queue.redis.urlSecretRef",
            True,
            id="the address of Redis",
        ),
        pytest.param(
            (),
            ELSEWHERE,
            MODELS,
            Reason.SECRET_KEY_MISSING,
            "no entry 'apiKey'",
            True,
            id="an entry of a secret",
        ),
        pytest.param(
            (),
            WITH_A_KEY_FOR_ANOTHER,
            MODELS,
            Reason.SECRET_FOR_ELSEWHERE,
            "does not list m.example:443",
            True,
            id="a key for another endpoint",
        ),
        pytest.param(
            (),
            WITH_A_KEY_THROUGH_A_PROXY,
            MODELS,
            Reason.SECRET_FOR_ELSEWHERE,
            "does not list evil.example:3128",
            True,
            id="a key that a proxy would read",
        ),
        pytest.param(
            (served_model(),),
            {"limits": {"maxCostUSD": 1}},
            MODELS,
            Reason.MODEL_WITHOUT_PRICE,
            "spec.models[Default].pricing",
            True,
            id="a model without a price, and tasks that must not cost more",
        ),
        pytest.param(
            (served_model(),),
            WITH_A_TOOL,
            TOOLS,
            Reason.SECRET_MISSING,
            "spec.tools[weather].http.headersSecretRef: there is no Secret 'weather'",
            True,
            id="the headers of a tool",
        ),
        pytest.param(
            (served_model(),),
            {"tools": [{**A_TOOL, "http": {**A_TOOL["http"], "headersSecretRef": {"name": "others"}}}]},
            TOOLS,
            Reason.SECRET_FOR_ELSEWHERE,
            "does not list weather.example:443",
            True,
            id="the headers of another tool",
        ),
        pytest.param(
            (served_model(),),
            {"tools": [{**A_TOOL, "http": {"openapi": OPERATION, "headersSecretRef": {"name": "others"}}}]},
            TOOLS,
            Reason.SECRET_FOR_ELSEWHERE,
            "does not list docs.example:443",
            True,
            id="the headers of another tool, for the host of a document",
        ),
        pytest.param(
            (served_model(),),
            {"tools": [{"name": "git", "mcp": {**A_SERVER, "headersSecretRef": {"name": "others"}}}]},
            TOOLS,
            Reason.SECRET_FOR_ELSEWHERE,
            "spec.tools[git].mcp.headersSecretRef",
            True,
            id="the headers of another tool, for an MCP server",
        ),
        pytest.param(
            (served_model(),),
            {
                "validators": [
                    {
                        "name": "policy",
                        "http": {"url": "https://a.example", "headersSecretRef": {"name": "others"}},
                    }
                ]
            },
            TOOLS,
            Reason.SECRET_FOR_ELSEWHERE,
            "spec.validators[policy].http.headersSecretRef",
            True,
            id="the headers of another tool, for a validator",
        ),
        pytest.param(
            (served_model(),),
            with_traces("absent"),
            WORKERS,
            Reason.SECRET_MISSING,
            "spec.telemetry.headersSecretRef: there is no Secret 'absent'",
            True,
            id="the headers of traces",
        ),
        pytest.param(
            (served_model(),),
            with_traces("others"),
            WORKERS,
            Reason.SECRET_FOR_ELSEWHERE,
            "does not list traces.example:443",
            True,
            id="the headers of traces, for another receiver",
        ),
        pytest.param(
            (served_model(),),
            {
                **with_traces("traces"),
                "gateway": {"pod": {"env": [{"name": "HTTPS_PROXY", "value": "http://evil.example:3128"}]}},
            },
            WORKERS,
            Reason.SECRET_FOR_ELSEWHERE,
            "does not list evil.example:3128",
            True,
            id="the headers of traces, which a gateway's proxy would read",
        ),
        pytest.param(
            (served_model(),),
            {"tools": [a_query("absent")]},
            TOOLS,
            Reason.SECRET_MISSING,
            "spec.tools[cities].sql.urlSecretRef: there is no Secret 'absent'",
            True,
            id="a database that nothing names",
        ),
        pytest.param(
            (served_model(),),
            {"tools": [a_query("database", "reader")]},
            TOOLS,
            Reason.SECRET_KEY_MISSING,
            "has no entry 'reader'",
            True,
            id="a database under another entry",
        ),
        pytest.param(
            (served_model(),),
            {"tools": [a_query("database")]},
            TOOLS,
            Reason.SECRET_FOR_ELSEWHERE,
            "does not list db.example:5432",
            True,
            id="a database elsewhere",
        ),
        pytest.param(
            (served_model(),),
            {"tools": [a_query("sentinels")]},
            TOOLS,
            Reason.TOOL_UNUSABLE,
            "the entry 'url' of the Secret 'sentinels' cannot be used: it is no URL",
            True,
            id="a URL of no database",
        ),
        pytest.param(
            (served_model(),),
            {"tools": [ASKED_ELSEWHERE]},
            TOOLS,
            Reason.SECRET_FOR_ELSEWHERE,
            "spec.tools[weather].reconcile.http.headersSecretRef",
            True,
            id="the headers of another tool, for the one that is asked",
        ),
        pytest.param(
            (served_model(),),
            SENTINELS,
            QUEUE,
            Reason.SECRET_FOR_ELSEWHERE,
            "does not list b.example:26379",
            True,
            id="the password of other sentinels",
        ),
        pytest.param(
            (served_model(),),
            with_redis("elsewhere"),
            QUEUE,
            Reason.SECRET_FOR_ELSEWHERE,
            "spec.queue.redis.urlSecretRef: the Secret 'elsewhere' is not sent: its annotation "
            "flotilla.dev/send-to does not list redis.example:6379",
            True,
            id="the URL of a Redis elsewhere",
        ),
        pytest.param(
            (served_model(),),
            with_redis("traces", "authorization"),
            QUEUE,
            Reason.SECRET_FOR_ELSEWHERE,
            "its hosts cannot be read",
            True,
            id="headers as the URL of Redis",
        ),
        pytest.param(
            (served_model(),),
            with_payloads("missing"),
            QUEUE,
            Reason.SECRET_MISSING,
            "spec.queue.payloads.secretRef: there is no Secret 'missing'",
            True,
            id="the credentials of the object store",
        ),
        pytest.param(
            (served_model(),),
            with_payloads("empty"),
            QUEUE,
            Reason.SECRET_KEY_MISSING,
            "spec.queue.payloads.secretRef: the Secret 'empty' has no entry 'accessKeyId'",
            True,
            id="an entry of these credentials",
        ),
        pytest.param(
            (served_model(),),
            with_payloads("objects"),
            QUEUE,
            Reason.SECRET_FOR_ELSEWHERE,
            "does not list objects.example:9000",
            True,
            id="the credentials of another object store",
        ),
        pytest.param(
            (served_model(),),
            {"queue": {"redis": {"pod": SANDBOXED}}},
            QUEUE,
            Reason.RUNTIME_CLASS_MISSING,
            "spec.queue.redis.pod.runtimeClassName: there is no RuntimeClass 'sandboxed'",
            True,
            id="the runtime of Redis",
        ),
        pytest.param(
            (served_model(),),
            {"gateway": {"pod": FIRST}},
            GATEWAY,
            Reason.PRIORITY_CLASS_MISSING,
            "spec.gateway.pod.priorityClassName: there is no PriorityClass 'serving'",
            True,
            id="the priority of the gateway",
        ),
        pytest.param(
            (served_model(),),
            {"workers": mounting("absent")},
            WORKERS,
            Reason.CLAIM_MISSING,
            "spec.workers.pod.volumes[v].persistentVolumeClaim.claimName: there is no",
            True,
            id="a claim of the workers",
        ),
        pytest.param(
            (served_model(), claim_of("AgentFleet/billing")),
            {"workers": mounting("files")},
            WORKERS,
            Reason.CLAIM_FOR_OTHERS,
            "does not list AgentFleet/support",
            True,
            id="a claim of another fleet",
        ),
        pytest.param(
            (served_model(),),
            {"workers": {"pod": SANDBOXED}},
            WORKERS,
            Reason.RUNTIME_CLASS_MISSING,
            "spec.workers.pod.runtimeClassName: there is no RuntimeClass 'sandboxed'",
            True,
            id="the runtime of the workers",
        ),
    ],
)
async def test_what_is_missing_is_named_and_says_who_mends_it(
    objects: tuple[dict[str, Any], ...],
    spec: dict[str, Any],
    condition_type: str,
    reason: Reason,
    says: str,
    stalled: bool,
) -> None:
    stage = Stage(
        *objects,
        empty={"other": "x"},
        unsendable={"ann": " \n", "bob": "é", "eve": "e" * 20_000},
        others={"apiKey": "x", ANNOTATION: "other.example"},
        sentinels={"url": f"redis://:{HUSH}@a.example:26379,b.example/0"},
        database={"url": f"postgresql://me:{HUSH}@db.example/shop", ANNOTATION: "other.example"},
        sentinel={"password": "x", ANNOTATION: "a.example"},
        elsewhere={"url": f"redis://me:{HUSH}@redis.example/0", ANNOTATION: "other.example"},
        tls={"tls.crt": "x", "tls.key": "x", used_by.ANNOTATION: "AgentFleet/billing"},
        **{"keys-of-gpt": {"agentfleet-support": "x", used_by.ANNOTATION: "ModelReplicaSet/gpt"}},
        traces={"authorization": "Basic x", ANNOTATION: "traces.example"},
        objects={"accessKeyId": "k", "secretAccessKey": "s", ANNOTATION: "objects.example:443"},
    )
    plan = await stage.plan(agent_fleet(**spec))
    found = condition(plan, condition_type)
    assert (found["status"], found["reason"]) == ("False", reason)
    assert says in found["message"]
    assert condition(plan, "Ready")["status"] == "False"
    assert condition(plan, "Stalled")["status"] == str(stalled)
    assert condition(plan, "Ready")["reason"] == reason or not stalled


def nothing(stage: Stage) -> None:
    """Nothing of the fleet exists yet."""


def everything(stage: Stage) -> None:
    stage.everything_runs()


def a_worker_is_needed(stage: Stage) -> None:
    stage.everything_runs()
    stage.report(IDLE.model_copy(update={"waiting": 1}))


def a_worker_runs(stage: Stage) -> None:
    a_worker_is_needed(stage)
    stage.run("Deployment", worker_of(ON_ALL), 1, 1)


def a_gateway_cannot_use_its_certificate(stage: Stage) -> None:
    stage.everything_runs()
    stage.report(IDLE.model_copy(update={"certificate_problem": "the key is of another certificate"}))


def a_tool_is(stage: Stage, *reports: tuple[str, str, str]) -> None:
    """Workers say this of tools: their names, what the trouble is, and their words."""
    stage.everything_runs()
    told = [contract.ToolReport(tool=tool, trouble=trouble, message=says) for tool, trouble, says in reports]
    stage.report(IDLE.model_copy(update={"tools": tuple(told)}))


def workers_report(*reports: tuple[str, str, str]) -> Callable[[Stage], None]:
    return lambda stage: a_tool_is(stage, *reports)


def no_gateway_reaches_redis(stage: Stage) -> None:
    stage.everything_runs()
    stage.measurements.forget("uid-pod")


def the_password_is_gone(stage: Stage) -> None:
    stage.everything_runs()
    stage.secrets.entries = {}
    stage.now += timedelta(seconds=300)


def their_redis_is(problem: str, stage: Stage) -> None:
    """A gateway says this of it."""
    stage.everything_runs()
    stage.report(IDLE.model_copy(update={"store_problem": problem}))


def an_older_revision_has_tasks(stage: Stage) -> None:
    """The gateways are new, and a task of before runs."""
    stage.everything_runs()
    stage.put(worker_deployment("old"))
    running = {"old": contract.RevisionTasks(running=1)}
    stage.report(IDLE.model_copy(update={"in_flight": 1, "revisions": running}))


def an_older_revision_has_none(stage: Stage) -> None:
    stage.everything_runs()
    stage.put(worker_deployment("old"))


def gateways_are_old(stage: Stage) -> None:
    stage.everything_runs()
    stage.put(worker_deployment("old"))
    stage.run("Deployment", "gateway", 2, 2, gives="old")


def workers_crash(stage: Stage, exit_code: int = 1) -> None:
    """A worker is needed, and each one ends."""
    stage.everything_runs()
    worker = worker_of(stage.fleet)
    stage.run("Deployment", worker, 0, 1)
    ended = {"exitCode": exit_code, "message": "app:main: there is no module app"}
    container = {
        "name": "worker",
        "ready": False,
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": ended},
    }
    pod = unready_pod(worker.removeprefix("worker-"))
    stage.put({**pod, "spec": {"nodeName": "a"}, "status": {"containerStatuses": [container]}})
    stage.report(IDLE.model_copy(update={"waiting": 1}))


def the_image_lacks_the_function(stage: Stage) -> None:
    workers_crash(stage, 3)


def executors_of(stage: Stage, ready: int, **status: Any) -> None:
    """A call waits for an executor, of which there is one Deployment."""
    stage.everything_runs()
    executor = worker_of(stage.fleet).replace("worker", "executor")
    stage.run("Deployment", executor, ready, 1)
    revision = executor.removeprefix("executor-")
    pod = unready_pod(revision)
    labels = {**pod["metadata"]["labels"], contract.LABEL_COMPONENT: "executor"}
    stage.put({**pod, "metadata": {**pod["metadata"], "labels": labels}, **status})
    waiting = {revision: contract.ToolRequestsOfRevision(waiting=1)}
    stage.report(IDLE.model_copy(update={"tool_requests": contract.ToolRequestFigures(revisions=waiting)}))


def ended(exit_code: int) -> dict[str, Any]:
    container = {
        "name": "executor",
        "ready": False,
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": exit_code, "message": "spec.tools[t].python: no module"}},
    }
    return {"spec": {"nodeName": "a"}, "status": {"containerStatuses": [container]}}


def executors_crash(stage: Stage) -> None:
    executors_of(stage, 0, **ended(1))


def executors_lack_the_function(stage: Stage) -> None:
    executors_of(stage, 0, **ended(3))


def executors_start(stage: Stage) -> None:
    executors_of(stage, 0)


def an_executor_runs(stage: Stage) -> None:
    executors_of(stage, 1)


def tasks_are_fast(stage: Stage) -> None:
    """All but one in a hundred ended within four seconds."""
    stage.everything_runs()
    stage.report(IDLE.model_copy(update={"ended": {"Completed": 100}, "took_ticks": {"20": 99, "60": 1}}))


def tasks_are_slow(stage: Stage) -> None:
    """One in ten took half an hour."""
    stage.everything_runs()
    stage.report(IDLE.model_copy(update={"ended": {"Completed": 100}, "took_ticks": {"20": 90, "60": 10}}))


def tasks_fail(stage: Stage) -> None:
    stage.everything_runs()
    ended = {"Completed": 90, "ModelFailed": 10, "Cancelled": 100}
    stage.report(IDLE.model_copy(update={"ended": ended, "took_ticks": {"20": 200}}))


ON_ALL = agent_fleet(**WITH_INDEX)
WITH_EXECUTORS = agent_fleet(
    image="registry.example/agents:1", tools=[{"name": "t", "python": "app:t"}], toolExecutors={}
)
SANDBOXED_EXECUTORS = agent_fleet(
    image="registry.example/agents:1",
    tools=[{"name": "t", "python": "app:t"}],
    toolExecutors={"pod": {"runtimeClassName": "absent"}},
)
IN_CODE = agent_fleet(agent={"entrypoint": "app:main"}, image="registry.example/agents:1")
PROGRESSING = ConditionType.PROGRESSING
WITH_SLO, SLO = agent_fleet(slo={}), ConditionType.MEETING_SLO
SECRETS = {
    "redis": {"url": "redis://elsewhere:6379"},
    "tls": {"tls.crt": "x", "tls.key": "y"},
    "callers": {"ann": "a-key"},
}


@pytest.mark.holds("tools.md", "Workers report what they cannot use, and take it back")
@pytest.mark.holds(
    "tasks.md",
    "A pair that cannot be used is told, the one before stays, and a new gateway waits for a good one",
)
@pytest.mark.holds("tasks.md", "`GatewayReady` is True with the reason `TokensInClear` without `gateway.tls`")
@pytest.mark.holds(
    "tasks.md", "`QueueReady` names an external Redis that evicts, keeps no append-only file or is too old"
)
@pytest.mark.holds(
    "tasks.md",
    "A worker whose image lacks a function ends with words that name the field, and `ToolsReady` has them",
)
@pytest.mark.holds("tasks.md", "A Redis that fails over and takes writes without a replica is told")
@pytest.mark.parametrize(
    ("happens", "fleet", "kind", "status", "reason"),
    [
        pytest.param(nothing, ON_ALL, "SpecValid", "True", Reason.VALID, id="nothing is wrong"),
        pytest.param(
            nothing, agent_fleet(shiny=True), "SpecValid", "True", Reason.FIELDS_IGNORED, id="a newer field"
        ),
        pytest.param(nothing, ON_ALL, MODELS, "True", Reason.MODELS_AVAILABLE, id="the model answers"),
        pytest.param(nothing, ON_ALL, INDEXES, "True", Reason.INDEXES_SERVED, id="the index is served"),
        pytest.param(nothing, agent_fleet(), INDEXES, "True", Reason.NO_INDEXES, id="no index is named"),
        pytest.param(nothing, ON_ALL, QUEUE, "False", Reason.REDIS_STARTING, id="no Redis yet"),
        pytest.param(everything, ON_ALL, QUEUE, "True", Reason.REDIS_AVAILABLE, id="Redis runs"),
        pytest.param(the_password_is_gone, ON_ALL, QUEUE, "False", Reason.PASSWORD_LOST, id="no password"),
        pytest.param(
            nothing,
            agent_fleet(**OWN_REDIS),
            QUEUE,
            "False",
            Reason.REDIS_STARTING,
            id="a Redis of the user's, and no gateway yet to reach it",
        ),
        pytest.param(
            everything,
            agent_fleet(**OWN_REDIS),
            QUEUE,
            "True",
            Reason.REDIS_AVAILABLE,
            id="a Redis of the user's that a gateway reaches",
        ),
        pytest.param(
            no_gateway_reaches_redis,
            agent_fleet(**OWN_REDIS),
            QUEUE,
            "False",
            Reason.REDIS_UNREACHABLE,
            id="a Redis of the user's that no gateway reaches",
        ),
        *(
            pytest.param(
                partial(their_redis_is, problem),
                agent_fleet(**OWN_REDIS),
                QUEUE,
                status,
                reason,
                id=f"a Redis of the user's: {problem}",
            )
            for problem, status, reason in (
                ("TooOld", "False", Reason.REDIS_TOO_OLD),
                ("Evicts", "False", Reason.REDIS_EVICTS),
                ("NoAppendOnlyFile", "False", Reason.REDIS_KEEPS_NOTHING),
                ("NoLimit", "True", Reason.REDIS_WITHOUT_LIMIT),
                ("NoReplicaRequired", "True", Reason.REDIS_MAY_REPEAT_EFFECTS),
                ("Sulks", "True", Reason.REDIS_AVAILABLE),
            )
        ),
        pytest.param(
            partial(their_redis_is, "Evicts"), ON_ALL, QUEUE, "True", Reason.REDIS_AVAILABLE, id="ours is fit"
        ),
        pytest.param(nothing, ON_ALL, GATEWAY, "False", Reason.GATEWAY_STARTING, id="no gateway yet"),
        pytest.param(
            everything, ON_ALL, GATEWAY, "True", Reason.TOKENS_IN_CLEAR, id="a gateway takes tokens"
        ),
        pytest.param(
            everything, agent_fleet(**WITH_KEYS), GATEWAY, "True", Reason.TOKENS_IN_CLEAR, id="keys"
        ),
        pytest.param(
            everything,
            agent_fleet(gateway={"auth": {"mode": "None"}}),
            GATEWAY,
            "True",
            Reason.GATEWAY_AVAILABLE,
            id="a gateway takes neither",
        ),
        pytest.param(
            everything,
            agent_fleet(**with_certificate("tls")),
            GATEWAY,
            "True",
            Reason.GATEWAY_AVAILABLE,
            id="a gateway serves HTTPS",
        ),
        pytest.param(
            a_gateway_cannot_use_its_certificate,
            agent_fleet(**with_certificate("tls")),
            GATEWAY,
            "False",
            Reason.CERTIFICATE_UNUSABLE,
            id="a gateway cannot use its certificate",
        ),
        pytest.param(
            a_gateway_cannot_use_its_certificate,
            agent_fleet(gateway={"auth": {"mode": "None"}}),
            GATEWAY,
            "True",
            Reason.GATEWAY_AVAILABLE,
            id="a gateway of before that had a certificate",
        ),
        pytest.param(
            nothing,
            agent_fleet(models=[{"role": "Default", "modelRef": {"name": "absent"}}]),
            WORKERS,
            "False",
            Reason.WAITS_FOR_MODELS_AND_INDEXES,
            id="workers would not know what to call",
        ),
        pytest.param(everything, ON_ALL, WORKERS, "True", Reason.NO_TASKS, id="no worker is needed"),
        pytest.param(
            a_worker_is_needed, ON_ALL, WORKERS, "False", Reason.WORKERS_STARTING, id="no worker runs yet"
        ),
        pytest.param(a_worker_runs, ON_ALL, WORKERS, "True", Reason.WORKERS_AVAILABLE, id="a worker runs"),
        pytest.param(nothing, ON_ALL, TOOLS, "True", Reason.NO_TOOLS, id="no tool is named"),
        pytest.param(
            nothing,
            agent_fleet(tools=[{"name": "a", "http": {"url": "https://a.example"}}]),
            TOOLS,
            "True",
            Reason.TOOLS_AVAILABLE,
            id="a tool that needs no secret",
        ),
        pytest.param(
            workers_report(("a", contract.ToolTrouble.NO_ANSWER, "no answer")),
            WITH_AN_OPERATION,
            TOOLS,
            "False",
            Reason.TOOL_UNREACHABLE,
            id="a document does not answer",
        ),
        pytest.param(
            workers_report(
                ("a", contract.ToolTrouble.NO_ANSWER, "x"), ("b", contract.ToolTrouble.MISSING, "y")
            ),
            WITH_AN_OPERATION,
            TOOLS,
            "False",
            Reason.TOOL_MISSING,
            id="an operation is not there, and another document does not answer",
        ),
        pytest.param(
            workers_report(("a", contract.ToolTrouble.UNUSABLE, "x")),
            WITH_AN_OPERATION,
            TOOLS,
            "False",
            Reason.TOOL_UNUSABLE,
            id="a document that is none",
        ),
        pytest.param(
            workers_report(("a", "OfALaterRelease", "x")),
            WITH_AN_OPERATION,
            TOOLS,
            "False",
            Reason.TOOL_UNUSABLE,
            id="what only a later release knows",
        ),
        pytest.param(
            workers_report(("gone", contract.ToolTrouble.MISSING, "x")),
            WITH_AN_OPERATION,
            TOOLS,
            "True",
            Reason.TOOLS_AVAILABLE,
            id="a tool that the spec no longer names",
        ),
        pytest.param(nothing, ON_ALL, PROGRESSING, "True", Reason.SETTLED, id="one revision"),
        pytest.param(
            an_older_revision_has_tasks, ON_ALL, PROGRESSING, "True", Reason.UPDATING, id="tasks of before"
        ),
        pytest.param(gateways_are_old, ON_ALL, PROGRESSING, "True", Reason.UPDATING, id="gateways of before"),
        pytest.param(
            an_older_revision_has_none,
            ON_ALL,
            PROGRESSING,
            "True",
            Reason.HANDING_OVER,
            id="workers leave",
        ),
        pytest.param(
            an_older_revision_has_tasks,
            ON_ALL,
            WORKERS,
            "False",
            Reason.WORKERS_STARTING,
            id="its start",
        ),
        pytest.param(workers_crash, ON_ALL, WORKERS, "False", Reason.WORKERS_FAIL, id="workers that end"),
        pytest.param(
            executors_start, WITH_EXECUTORS, TOOLS, "False", Reason.EXECUTORS_STARTING, id="no executor yet"
        ),
        pytest.param(
            executors_crash, WITH_EXECUTORS, TOOLS, "False", Reason.EXECUTORS_FAIL, id="executors that end"
        ),
        pytest.param(
            an_executor_runs, WITH_EXECUTORS, TOOLS, "True", Reason.TOOLS_AVAILABLE, id="an executor runs"
        ),
        pytest.param(
            executors_lack_the_function,
            WITH_EXECUTORS,
            TOOLS,
            "False",
            Reason.FUNCTION_MISSING,
            id="an image without the function of an executor",
        ),
        pytest.param(
            everything,
            SANDBOXED_EXECUTORS,
            TOOLS,
            "False",
            Reason.RUNTIME_CLASS_MISSING,
            id="a class of executors",
        ),
        pytest.param(
            the_image_lacks_the_function,
            IN_CODE,
            TOOLS,
            "False",
            Reason.FUNCTION_MISSING,
            id="an image without the function",
        ),
        pytest.param(nothing, WITH_SLO, SLO, "Unknown", Reason.NO_FIGURES, id="nobody counts"),
        pytest.param(everything, WITH_SLO, SLO, "Unknown", Reason.NO_TASKS, id="nothing to judge"),
        pytest.param(tasks_are_fast, WITH_SLO, SLO, "True", Reason.SLO_KEPT, id="tasks in time"),
        pytest.param(tasks_are_slow, WITH_SLO, SLO, "False", Reason.SLO_MISSED, id="slow tasks"),
        pytest.param(tasks_fail, WITH_SLO, SLO, "False", Reason.SLO_MISSED, id="tasks that fail"),
        pytest.param(
            nothing, agent_fleet(paused=True), ConditionType.PAUSED, "True", Reason.SPEC_PAUSED, id="paused"
        ),
    ],
)
async def test_conditions(
    happens: Callable[[Stage], None], fleet: dict[str, Any], kind: str, status: str, reason: Reason
) -> None:
    stage = Stage(served_model(), served_index(), fleet, **SECRETS)
    await stage.plan(fleet)
    happens(stage)
    found = condition(await stage.plan(fleet), kind)
    assert (found["status"], found["reason"]) == (status, reason)


@pytest.mark.holds(
    "security.md",
    "The URL of a Redis goes to the hosts that its Secret lists, and no message has a part of it",
)
@pytest.mark.parametrize(
    ("url", "topology", "says"),
    [
        pytest.param(f"redis://me:{HUSH}@r.example/0", {}, ["r.example:6379"], id="one"),
        pytest.param(
            f"rediss://me:{HUSH}@r.example:7000,s.example:7001",
            {"topology": "Cluster"},
            ["r.example:7000", "s.example:7001"],
            id="nodes",
        ),
        pytest.param(
            f"redis://me:{HUSH}@r.example,s.example",
            {"topology": "Sentinel", "sentinel": {"master": "m"}},
            ["r.example:26379", "s.example:26379"],
            id="sentinels",
        ),
        pytest.param(f"redis://me:{HUSH}/{HUSH}@r.example", {}, ["hosts cannot be read"], id="not encoded"),
        pytest.param(HUSH, {}, ["hosts cannot be read"], id="no URL"),
    ],
)
async def test_where_kinds_are_restricted_a_url_of_redis_says_where_it_goes(
    url: str, topology: dict[str, Any], says: list[str]
) -> None:
    """And no message has a part of it."""
    stage = Stage(served_model(), redis={"url": url})
    stage.config = RESTRICTED
    redis = {"mode": "External", "urlSecretRef": {"name": "redis"}, **topology}
    plan = await stage.plan(agent_fleet(queue={"redis": redis}))
    found = condition(plan, QUEUE)
    assert found["reason"] == Reason.SECRET_FOR_ELSEWHERE
    for words in says:
        assert words in found["message"]
    assert HUSH not in str(plan.status)
    assert [write for write in plan.writes if "Deployment" in str(write)] == []
    if "example" in says[0]:
        stage.secrets.entries = {"redis": {"url": url, ANNOTATION: ", ".join(says)}}
        plan = await stage.plan(agent_fleet(queue={"redis": redis}))
        assert condition(plan, QUEUE)["reason"] != Reason.SECRET_FOR_ELSEWHERE


@pytest.mark.parametrize("part", ["workers", "toolExecutors"])
async def test_no_worker_and_no_executor_is_made_that_would_mount_a_claim_of_others(part: str) -> None:
    stage = Stage(served_model(), claim_of("AgentFleet/billing"))
    spec: dict[str, Any] = {
        "image": "registry.example/agents:1",
        "tools": [{"name": "t", "python": "app:t"}],
        "toolExecutors": {},
    }
    fleet = agent_fleet(**{**spec, part: mounting("files")})
    plan = await stage.plan(fleet)
    made = {write.manifest["metadata"]["name"] for write in plan.writes if isinstance(write, Apply)}
    assert "support-gateway" in made
    assert not [name for name in made if "worker" in name or "executor" in name]
    reasons = [one["reason"] for one in plan.status["conditions"]] if plan.status else []
    assert Reason.CLAIM_FOR_OTHERS in reasons
