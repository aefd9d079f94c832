"""What the API says of ports. Pure; part of the wire, see `api.wire`."""

from pydantic import Field

from api.wire import Reply, Request
from state.model import Visibility


class SetPort(Request):
    """Who may see the application on a port from now on."""

    visibility: Visibility


class Port(Reply):
    """A port of a pod, and who may see what runs there."""

    port: int
    visibility: Visibility
    url: str = Field(description="The application's address; for `link`, with what lets in whoever has it.")


class PortList(Reply):
    """The ports of a pod that are open to others. Those not listed are private."""

    ports: list[Port]
