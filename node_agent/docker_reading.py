"""From the engine's JSON to the port's values. Pure."""

from collections.abc import Mapping
from typing import Any

from node_agent.runtime import GATE_FILE, IDE_PORT, SESSION_DIR, Container, EngineFacts, Status, Volume

Json = Mapping[str, Any]


def container(found: Json) -> Container:
    """From `GET /containers/{id}/json`."""
    state = found["State"]
    mounts = found.get("Mounts") or ()
    return Container(
        id=found["Id"],
        name=found["Name"].removeprefix("/"),
        labels=dict(found["Config"].get("Labels") or {}),
        status=_status(state["Status"]),
        image_id=found["Image"],
        started_at=state["StartedAt"],
        finished_at=state["FinishedAt"],
        exit_code=state.get("ExitCode"),
        oom_killed=bool(state.get("OOMKilled")),
        upper_dir=((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir"),
        host_port=_host_port(found),
        volumes=tuple(mount["Name"] for mount in mounts if mount.get("Type") == "volume"),
        session_dir=next((m["Source"] for m in mounts if m.get("Destination") == SESSION_DIR), None),
        pid=state.get("Pid") or None,
    )


def _status(said: str) -> Status:
    """A state that this version does not know is none that a pod could be used in."""
    try:
        return Status(said)
    except ValueError:
        return Status.DEAD


def _host_port(found: Json) -> int | None:
    ports = (found.get("NetworkSettings") or {}).get("Ports") or {}
    bindings = ports.get(f"{IDE_PORT}/tcp") or ()
    return next((int(binding["HostPort"]) for binding in bindings if binding.get("HostPort")), None)


def volume(found: Json) -> Volume:
    """From `GET /volumes/{name}`."""
    return Volume(name=found["Name"], labels=dict(found.get("Labels") or {}), mountpoint=found["Mountpoint"])


def facts(info: Json, api_version: str) -> EngineFacts:
    """From `GET /info`."""
    return EngineFacts(
        engine_version=info["ServerVersion"],
        api_version=api_version,
        storage_driver=info["Driver"],
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        cpu_millis=int(info["NCPU"]) * 1000,
        memory_mib=int(info["MemTotal"]) >> 20,
    )


def gate(image: Json) -> Json:
    """The image's own command behind a shell that waits, as long as the agent has the gate shut.

    Asked for by `ContainerPlan.gated`: so that a container can be put in order before it ever runs.
    """
    config = image.get("Config") or {}
    own = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    script = f'while [ -e {SESSION_DIR}/{GATE_FILE} ]; do sleep 1; done; exec "$@"'
    return {"entrypoint": ["/bin/sh", "-c", script, "gate"], "command": own}
