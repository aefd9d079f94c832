"""The table of all operations: it makes both the routes and the OpenAPI document, which cannot differ."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from api import health, history, nodes, pods, ports, tokens, visits, wire, wire_ports, wire_visit
from api.operation import Answer, AnyOperation, Call, Method, Operation
from api.wire import NoQuery, Query, Reply, Request, Scope

Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=Request | None)

PREFIX = "/api/v1"
POD = f"{PREFIX}/pods/{{pod_id}}"

ANYBODY: frozenset[Scope] = frozenset()
LOOK = frozenset({Scope.READ, Scope.ADMIN})
LOOK_AT_PODS = LOOK | {Scope.REVPRO}
HANDLE_PODS = frozenset({Scope.REVPRO, Scope.ADMIN})
ADMINISTER = frozenset({Scope.ADMIN})


def operation(
    method: Method,
    path: str,
    handler: Callable[[Call[Q, B]], Awaitable[Answer]],
    scopes: frozenset[Scope],
    replies: Mapping[int, type[Reply]],
    summary: str,
    *,
    query: type[Q],
    body: type[B],
    codes: tuple[str, ...] = (),
    visitors: bool = False,
) -> AnyOperation:
    """An operation named after its handler."""
    name = getattr(handler, "__name__", path)
    return Operation(method, path, name, summary, scopes, query, body, replies, handler, codes, visitors)


NO_BODY = type(None)

OPERATIONS: tuple[AnyOperation, ...] = (
    operation(
        "POST",
        f"{PREFIX}/pods",
        pods.create_pod,
        HANDLE_PODS,
        {200: wire.Pod, 201: wire.Pod},
        "Create a pod, or open the one the user has under this name. Repeats safely.",
        query=NoQuery,
        body=wire.CreatePod,
        codes=("pod_differs",),
    ),
    operation(
        "GET",
        f"{PREFIX}/pods",
        pods.list_pods,
        LOOK_AT_PODS,
        {200: wire.PodList},
        "List pods, of one user or of all.",
        query=wire.ListPodsQuery,
        body=NO_BODY,
    ),
    operation(
        "GET",
        POD,
        pods.get_pod,
        LOOK_AT_PODS,
        {200: wire.Pod},
        "Get a pod; with `wait_for`, when it is so or cannot become so, or after `timeout_s`.",
        query=wire.GetPodQuery,
        body=NO_BODY,
        codes=("too_many_waiting",),
    ),
    operation(
        "DELETE",
        POD,
        pods.delete_pod,
        HANDLE_PODS,
        {200: wire.Pod},
        "Delete a pod for good: its container goes, and it does not come back. Repeats safely.",
        query=NoQuery,
        body=NO_BODY,
    ),
    operation(
        "PUT",
        f"{POD}/desired-state",
        pods.set_desired_state,
        HANDLE_PODS,
        {200: wire.Pod},
        "Say what is wanted of a pod: running, stopped, archived or deleted.",
        query=NoQuery,
        body=wire.SetDesiredState,
        codes=("pod_deleted", "generation_conflict"),
    ),
    operation(
        "POST",
        f"{POD}:open",
        pods.open_pod,
        HANDLE_PODS,
        {200: wire.OpenedPod, 202: wire.OpenedPod},
        "Have a pod run and get its link: 200 with `url`, or 202 without while it is not running yet.",
        query=wire.OpenPodQuery,
        body=NO_BODY,
        codes=("pod_deleted", "too_many_waiting", "keyring_unavailable", "pod_unreachable"),
    ),
    operation(
        "GET",
        f"{POD}/ports",
        ports.list_ports,
        HANDLE_PODS,
        {200: wire_ports.PortList},
        "The ports of a pod whose applications others may see.",
        query=NoQuery,
        body=NO_BODY,
    ),
    operation(
        "PUT",
        f"{POD}/ports/{{port}}",
        ports.set_port,
        HANDLE_PODS,
        {200: wire_ports.Port},
        "Say who may see the application on a port: its owner, who has a link, everybody. Repeats safely.",
        query=NoQuery,
        body=wire_ports.SetPort,
        codes=("pod_deleted", "port_refused", "port_sharing_refused"),
    ),
    operation(
        "GET",
        f"{POD}:visit",
        visits.show_visit,
        ANYBODY,
        {200: wire_visit.Visit},
        "How the pod that somebody waits for is getting on. Changes nothing.",
        query=NoQuery,
        body=NO_BODY,
        visitors=True,
    ),
    operation(
        "POST",
        f"{POD}:wake",
        visits.wake_pod,
        ANYBODY,
        {200: wire_visit.Visit},
        "Have a pod run that is at rest, because somebody looks at its start page. Repeats safely.",
        query=wire_visit.WakeQuery,
        body=NO_BODY,
        visitors=True,
    ),
    operation(
        "GET",
        f"{POD}:enter",
        visits.enter_pod,
        ANYBODY,
        {303: wire_visit.Entered},
        "Have a pod run, and once it does, lead the browser into it. Repeats safely.",
        query=wire_visit.EnterQuery,
        body=NO_BODY,
        codes=("pod_not_running", "pod_unreachable"),
        visitors=True,
    ),
    operation(
        "GET",
        f"{POD}/events",
        history.list_pod_events,
        LOOK_AT_PODS,
        {200: wire.EventList},
        "A pod's history, oldest first.",
        query=wire.PodEventsQuery,
        body=NO_BODY,
    ),
    operation(
        "GET",
        f"{POD}/explain",
        history.explain_pod,
        LOOK_AT_PODS,
        {200: wire.Explanation},
        "Why a pod is as it is, and what it waits for.",
        query=NoQuery,
        body=NO_BODY,
    ),
    operation(
        "GET",
        f"{PREFIX}/events",
        history.list_events,
        LOOK,
        {200: wire.EventList},
        "The history of all pods and nodes, oldest first.",
        query=wire.EventsQuery,
        body=NO_BODY,
    ),
    operation(
        "GET",
        f"{PREFIX}/nodes",
        nodes.list_nodes,
        LOOK,
        {200: wire.NodeList},
        "All nodes, and when they were last heard from.",
        query=NoQuery,
        body=NO_BODY,
    ),
    operation(
        "PUT",
        f"{PREFIX}/nodes/{{node_id}}/cordoned",
        nodes.set_cordoned,
        ADMINISTER,
        {200: wire.Node},
        "Keep new placements off a node, or let them come again. What is there stays.",
        query=NoQuery,
        body=wire.SetCordoned,
    ),
    operation(
        "POST",
        f"{PREFIX}/nodes/{{node_id}}:declare_lost",
        nodes.declare_lost,
        ADMINISTER,
        {200: wire.Node},
        "Sign that a silent node will not come back: its users go on elsewhere, from their last archives.",
        query=NoQuery,
        body=wire.DeclareLost,
        codes=("node_alive",),
    ),
    operation(
        "POST",
        f"{PREFIX}/tokens",
        tokens.create_token,
        ADMINISTER,
        {201: wire.CreatedToken},
        "Make a token. It is shown this once; a second call makes a second one.",
        query=NoQuery,
        body=wire.CreateToken,
    ),
    operation(
        "GET",
        f"{PREFIX}/tokens",
        tokens.list_tokens,
        ADMINISTER,
        {200: wire.TokenList},
        "List tokens, also revoked ones, without the tokens themselves.",
        query=wire.ListTokensQuery,
        body=NO_BODY,
    ),
    operation(
        "DELETE",
        f"{PREFIX}/tokens/{{token_id}}",
        tokens.revoke_token,
        ADMINISTER,
        {200: wire.Token},
        "Revoke a token: it opens nothing from the next request on. Repeats safely.",
        query=NoQuery,
        body=NO_BODY,
    ),
    operation(
        "GET",
        f"{PREFIX}/healthz",
        health.healthz,
        ANYBODY,
        {200: wire.Health},
        "The program lives. Needs no token.",
        query=NoQuery,
        body=NO_BODY,
    ),
    operation(
        "GET",
        f"{PREFIX}/readyz",
        health.readyz,
        ANYBODY,
        {200: wire.Health},
        "The database answers and has the right schema. Needs no token.",
        query=NoQuery,
        body=NO_BODY,
        codes=("schema_mismatch",),
    ),
)
