"""Which engines we can speak to. The version is negotiated, for Docker 29 wants at least 1.44."""

from docker.utils import version_lt

from node_agent.errors import EngineTooOld

# Docker 20.10, which the agent is run on here. It has all that we ask for; older ones were never tried.
API_VERSION_MIN = "1.41"


def check_api_version(negotiated: str) -> None:
    """Raises EngineTooOld."""
    if version_lt(negotiated, API_VERSION_MIN):
        raise EngineTooOld(
            f"The container engine speaks API version {negotiated}; at least {API_VERSION_MIN} is needed "
            "(Docker 20.10). Upgrade the engine on this node, then the agent goes on by itself."
        )
