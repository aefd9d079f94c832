"""Addresses of the applications that run in a pod. Pure; docs/access.md tells which shape needs what."""

from api.links import base_of
from api.settings import ApiSettings
from state.model import Visibility
from state.pod_ports import PodPort

# nginx takes a link's `tkn` for a port's link by this prefix.
LINK_PREFIX = "l."
# What of a pod is not an application of its user: the IDE itself.
IDE_PORT = 8080


def address_of(settings: ApiSettings, pod_id: str, port: int) -> str:
    """Where browsers reach the application: at a host name of its own, or below the pod's path."""
    if settings.url_shape == "path":
        return f"{base_of(settings, pod_id)}proxy/{port}/"
    scheme, _, host = settings.base_url.partition("://")
    return f"{scheme}://{port}--{pod_id}.{host}/"


def url_for(settings: ApiSettings, shared: PodPort) -> str:
    """The address to give to others: with what lets them in, unless it is public, or private."""
    address = address_of(settings, shared.pod_id, shared.port)
    if shared.visibility is Visibility.LINK:
        return f"{address}?tkn={LINK_PREFIX}{shared.link_id}"
    return address


def is_allowed(settings: ApiSettings, visibility: Visibility) -> bool:
    """Whether the operator lets users open ports so far."""
    order = [Visibility.PRIVATE, Visibility.LINK, Visibility.PUBLIC]
    most = Visibility.PRIVATE if settings.port_sharing == "off" else Visibility(settings.port_sharing)
    return order.index(visibility) <= order.index(most)
