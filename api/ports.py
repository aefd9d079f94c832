"""The handlers about ports of pods: who may see the applications that run there."""

from api import wire
from api.operation import Answer, Call
from api.pods import read_pod
from api.port_links import IDE_PORT, address_of, is_allowed, url_for
from api.problems import ProblemError
from api.settings import ApiSettings
from api.wire_ports import Port, PortList, SetPort
from state import pod_ports
from state.model import Desired, Visibility
from state.pod_ports import PodPort


async def list_ports(call: Call[wire.NoQuery, None]) -> Answer:
    """The ports that are open to others."""
    await read_pod(call.deps, call.target_id)
    found = await call.deps.run(pod_ports.list_ports, call.deps.db, call.target_id)
    return Answer(PortList(ports=[_shown(call.deps.settings, one) for one in found]))


async def set_port(call: Call[wire.NoQuery, SetPort]) -> Answer:
    """Say who may see the application on this port. Counts within seconds, for who is in already too."""
    settings, wanted = call.deps.settings, call.body.visibility
    if call.port == IDE_PORT:
        raise ProblemError("port_refused", f"Port {IDE_PORT} is the IDE itself.")
    if not is_allowed(settings, wanted):
        raise ProblemError(
            "port_sharing_refused", f"{wanted}: CODEPODS_PORT_SHARING={settings.port_sharing}."
        )
    status = await read_pod(call.deps, call.target_id)
    if status.desired is Desired.DELETED:
        raise ProblemError("pod_deleted", f"Pod {status.id} was deleted.")
    try:
        made = await call.deps.run(
            pod_ports.set_visibility, call.deps.db, status.id, call.port, wanted, actor=call.actor
        )
    except pod_ports.TooManyPorts as error:
        raise ProblemError("port_refused", str(error)) from error
    return Answer(_shown(settings, made), headers={"Cache-Control": "no-store"})


def _shown(settings: ApiSettings, one: PodPort) -> Port:
    shown = one.visibility if is_allowed(settings, one.visibility) else Visibility.PRIVATE
    url = url_for(settings, one) if shown is one.visibility else address_of(settings, one.pod_id, one.port)
    return Port(port=one.port, visibility=shown, url=url)
