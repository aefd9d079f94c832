"""Finding the pod that somebody means by an id or by USER/NAME."""

import re

import typer

from api.podctl.client import Client
from api.podctl.failing import Failed
from state.model import Desired

PODS_OF_USER_MAX = 10_000
_ID = re.compile(r"p-[a-z0-9-]+", re.ASCII)


def find_pod(client: Client, ref: str) -> str:
    """The pod's id. Raises `Failed` (`pod_not_found`), or a usage error when `ref` is neither."""
    if _ID.fullmatch(ref):
        return ref
    user, separator, name = ref.rpartition("/")
    if not separator or not user or not name:
        raise typer.BadParameter(f"{ref!r} is neither an id (p-…) nor USER/NAME", param_hint="POD")
    for pod in client.pods(user, PODS_OF_USER_MAX):
        if pod.name == name and pod.desired is not Desired.DELETED:
            return pod.pod_id
    raise Failed(
        "pod_not_found", f"{user} has no pod named {name}.", f"`podctl list --user {user}` lists them."
    )
