"""Opening ports to others: what the API takes, and the files that tell nginx, which are level with it."""

import time
from pathlib import Path

import pytest

from api.access_token import Keyring, open_token
from api.port_files import FILE_LIFETIME_S, PortFiles
from api.settings import ApiSettings
from state import pod_ports
from state.model import Observed
from state.pod_ports import PORTS_OF_POD_MAX
from tests.integration.test_api_pods import create
from tests.support.api_server import ApiServer
from tests.support.node_hand import SECRET, UPSTREAM, NodeHand


@pytest.fixture
def pod_id(api: ApiServer, node: NodeHand) -> str:
    """A pod that runs."""
    with api.client("revpro") as client:
        made: str = create(client, f"sharer-on-{node.node_id}")["pod_id"]
    node.place(made)
    node.report(made, Observed.RUNNING)
    return made


@pytest.fixture
def public(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> ApiSettings:
    """The operator lets users open ports to everybody."""
    monkeypatch.setattr(api.settings, "port_sharing", "public")
    return api.settings


def _set(api: ApiServer, pod_id: str, port: object, visibility: str) -> tuple[int, dict[str, str]]:
    with api.client("revpro") as client:
        answer = client.put(f"/api/v1/pods/{pod_id}/ports/{port}", json={"visibility": visibility})
    return answer.status_code, answer.json()


def _files(api: ApiServer, directory: Path, files: PortFiles, now: int = 0) -> dict[str, str]:
    """What is there once they are level."""
    keyring = Keyring.load(api.settings.keyring)
    files.level(pod_ports.reachable(api.db), keyring, now or int(time.time()))
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_a_link_lasts_until_the_port_is_private_again(api: ApiServer, pod_id: str) -> None:
    """Asking again gives the same link; private ends it, and the next link is another one."""
    first = _set(api, pod_id, 5173, "link")[1]["url"]
    again = _set(api, pod_id, 5173, "link")[1]["url"]
    closed = _set(api, pod_id, 5173, "private")[1]
    after = _set(api, pod_id, 5173, "link")[1]["url"]

    assert first.startswith(f"https://localhost:8443/pods/{pod_id}/proxy/5173/?tkn=l.")
    assert (again, closed["visibility"], "tkn" in closed["url"]) == (first, "private", False)
    assert after != first


def test_the_history_tells_who_opened_a_port_and_not_the_link(api: ApiServer, pod_id: str) -> None:
    """Each change once, with the port."""
    url = _set(api, pod_id, 8000, "link")[1]["url"]
    _set(api, pod_id, 8000, "link")
    _set(api, pod_id, 8000, "private")

    with api.client() as client:
        text = client.get(f"/api/v1/pods/{pod_id}/events").text
        events = [
            e for e in client.get(f"/api/v1/pods/{pod_id}/events").json()["events"] if e["kind"] == "port"
        ]
    assert [(e["from_value"], e["to_value"], e["detail"]["port"]) for e in events] == [
        ("private", "link", 8000),
        ("link", "private", 8000),
    ]
    assert url.partition("l.")[2] not in text


@pytest.mark.parametrize("port", ["0", "65536", "08", "x", "-1", "80.5", "٣"])
def test_what_is_no_port_is_refused(api: ApiServer, pod_id: str, port: str) -> None:
    """1 to 65535, written plainly."""
    status, problem = _set(api, pod_id, port, "link")

    assert (status, problem["code"]) == (422, "invalid_field")


def test_the_ides_own_port_is_never_opened(api: ApiServer, pod_id: str) -> None:
    """Behind it is the whole pod."""
    assert _set(api, pod_id, 8080, "link")[1]["code"] == "port_refused"


def test_the_operators_switch_bounds_what_users_choose(
    api: ApiServer, pod_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the switch: 403, saying what it is; what was opened before is shown as private again."""
    assert _set(api, pod_id, 5173, "public")[1]["code"] == "port_sharing_refused"
    assert _set(api, pod_id, 5173, "link")[0] == 200

    monkeypatch.setattr(api.settings, "port_sharing", "off")
    with api.client("revpro") as client:
        [shown] = client.get(f"/api/v1/pods/{pod_id}/ports").json()["ports"]
    assert (shown["visibility"], "tkn" in shown["url"]) == ("private", False)
    assert _set(api, pod_id, 5173, "link")[0] == 403
    assert _set(api, pod_id, 5173, "private")[0] == 200


def test_a_pod_has_a_bounded_number_of_open_ports(api: ApiServer, pod_id: str) -> None:
    """The next one is refused until another is private."""
    for port in range(3000, 3000 + PORTS_OF_POD_MAX):
        assert _set(api, pod_id, port, "link")[0] == 200
    assert _set(api, pod_id, 9000, "link")[1]["code"] == "port_refused"

    _set(api, pod_id, 3000, "private")
    assert _set(api, pod_id, 9000, "link")[0] == 200


def test_nginx_is_told_of_open_ports_of_pods_that_run(
    api: ApiServer, node: NodeHand, pod_id: str, public: ApiSettings, tmp_path: Path
) -> None:
    """One sealed file for each; none for a pod that does not run; a restart changes what it says."""
    files, now = PortFiles(tmp_path), int(time.time())
    link = _set(api, pod_id, 5173, "link")[1]["url"].partition("tkn=l.")[2]
    _set(api, pod_id, 8000, "public")

    mine = {name: text for name, text in _files(api, tmp_path, files).items() if name.startswith(pod_id)}
    keyring = Keyring.load(public.keyring)
    by_link = open_token(mine[f"{pod_id}.5173"], keyring, "port", pod_id, now)
    to_all = open_token(mine[f"{pod_id}.8000"], keyring, "port", pod_id, now)
    assert (by_link.scope, by_link.session_id) == ("link:5173", link)
    assert (to_all.scope, to_all.upstream, to_all.secret) == ("public:8000", UPSTREAM, SECRET)
    assert SECRET not in "".join(mine.values())

    node.report(pod_id, Observed.STOPPED)
    assert not [name for name in _files(api, tmp_path, files) if name.startswith(pod_id)]
    node.report(pod_id, Observed.RUNNING, upstream="127.0.0.1:20222")
    moved = open_token(_files(api, tmp_path, files)[f"{pod_id}.8000"], keyring, "port", pod_id, now)
    assert moved.upstream == "127.0.0.1:20222"


def test_files_are_made_level_and_left_alone(api: ApiServer, pod_id: str, tmp_path: Path) -> None:
    """Level, not edge: strays go, what was lost comes back, what is right is not written, what ages is."""
    files, now = PortFiles(tmp_path), int(time.time())
    _set(api, pod_id, 5173, "link")
    name = f"{pod_id}.5173"
    first = _files(api, tmp_path, files, now)
    (tmp_path / "p-aaaaaaaaaaaa.5173").write_text("stray")

    second = _files(api, tmp_path, files, now + 10)
    assert second[name] == first[name]
    assert "p-aaaaaaaaaaaa.5173" not in second
    (tmp_path / name).unlink()
    third = _files(api, tmp_path, files, now + 20)
    assert name in third
    fourth = _files(api, tmp_path, files, now + FILE_LIFETIME_S // 2 + 60)
    assert fourth[name] != third[name]
    assert set(_files(api, tmp_path, PortFiles(tmp_path), now)) == set(fourth)
