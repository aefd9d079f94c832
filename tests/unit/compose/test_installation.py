"""What makes an installation this one, and where its files are."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose.environment import environment_of, for_node
from compose.installation import NODES_MAX, Installation, load_installation, save_installation, with_nodes
from compose.layout import Layout, find_home, make_directories, open_to_others
from compose.problems import ProblemError


@given(st.lists(st.integers(1, NODES_MAX), max_size=6))
def test_a_node_once_made_keeps_its_name_and_token(counts: list[int]) -> None:
    """However often the number of nodes changes, none is renamed, and as many run as were asked for."""
    installation = with_nodes(None, None)
    for count in counts:
        grown = with_nodes(installation, count)

        assert grown.nodes[: len(installation.nodes)] == installation.nodes
        assert len(grown.running) == count
        installation = grown


def test_nodes_of_two_installations_never_share_a_name() -> None:
    """Two checkouts on one Docker engine must not see each other's containers."""
    ours, theirs = with_nodes(None, 2), with_nodes(None, 2)

    assert not set(ours.node_ids) & set(theirs.node_ids)
    assert ours.node_ids == (f"node-1-{ours.id}", f"node-2-{ours.id}")


def test_as_many_nodes_as_the_last_time_when_none_are_asked_for() -> None:
    """A plain `make up` after `make up NODES=2` brings both nodes back: people's pods are on both."""
    assert len(with_nodes(with_nodes(None, 2), None).running) == 2
    assert len(with_nodes(None, None).running) == 1


@pytest.mark.parametrize("count", [0, -1, NODES_MAX + 1])
def test_no_absurd_numbers_of_nodes(count: int) -> None:
    """The message names the range."""
    with pytest.raises(ProblemError, match=f"from 1 to {NODES_MAX}"):
        with_nodes(None, count)


def test_an_installation_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    """And its file, which has tokens in it, is closed to others."""
    saved = with_nodes(None, 2)
    layout = Layout(tmp_path)
    save_installation(saved, layout.config)

    assert load_installation(layout) == saved
    assert layout.config.stat().st_mode & 0o777 == 0o600


def test_a_spoilt_file_is_told_and_not_replaced(tmp_path: Path) -> None:
    """Without the node names nobody could find the containers again."""
    layout = Layout(tmp_path)
    layout.config.write_text("{")

    with pytest.raises(ProblemError, match="restore it"):
        load_installation(layout)


def test_the_home_is_in_the_checkout_unless_named(tmp_path: Path) -> None:
    """`CODEPODS_HOME` moves everything."""
    assert find_home({}, tmp_path) == tmp_path / ".codepods"
    assert find_home({"CODEPODS_HOME": "/srv/pods"}, tmp_path) == Path("/srv/pods")


def test_secrets_are_closed_and_what_other_users_read_is_open(tmp_path: Path) -> None:
    """nginx's workers read its configuration; nobody else walks into keys, pids and node data."""
    layout = Layout(tmp_path / "home")
    make_directories(layout, ("node-1",))

    closed = (layout.tls, layout.run, layout.node("node-1"))
    assert [path.stat().st_mode & 0o777 for path in closed] == [0o700] * 3
    assert layout.nginx.stat().st_mode & 0o777 == 0o755


def test_a_home_that_other_users_cannot_reach_is_put_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone under /root works: PostgreSQL and nginx's workers are not root."""
    closed, shared = tmp_path / "closed", tmp_path / "shared"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr("compose.layout.SHARED_HOMES", shared)
    layout = Layout(closed / ".codepods")

    make_directories(layout, ())

    assert not open_to_others(closed / "anything")
    assert layout.home.is_symlink()
    assert layout.home.resolve().parent == shared


def test_nodes_are_told_nothing_of_the_database(tmp_path: Path) -> None:
    """Nodes run strangers' code: neither the database's URL nor the key ring reaches them."""
    installation = Installation("abc123", with_nodes(None, 1).nodes, 1)
    environ = {"CODEPODS_DATABASE_URL": "postgresql://secret", "CODEPODS_KEYRING": "/k", "PATH": "/bin"}

    told = for_node(environment_of(Layout(tmp_path), installation, environ), installation.nodes[0])

    assert "CODEPODS_DATABASE_URL" not in told
    assert "CODEPODS_KEYRING" not in told
    assert told["PATH"] == "/bin"
    assert told["CODEPODS_NODE_TOKEN"] == installation.nodes[0].token
