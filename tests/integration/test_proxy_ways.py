"""The second way of keeping the gate's yes, by proxy_cache: what nginx does where it has no embedded Perl."""

import stat
import time
from collections.abc import Iterator

import pytest

from tests.integration.test_proxy import assert_refused_in_time
from tests.integration.test_proxy_attacks import assert_all_refused
from tests.support.front import SECRET, Front, front_door
from tests.support.nginx import front_directory


@pytest.fixture(scope="module")
def by_cache() -> Iterator[Front]:
    """A front door without Perl, whatever this machine's nginx has."""
    with front_directory() as directory, front_door(directory, perl=False) as front:
        assert "proxy_cache gate;" in (front.nginx.settings.prefix / "nginx.conf").read_text()
        yield front


def test_no_attack_of_any_table_reaches_a_pod(by_cache: Front) -> None:
    """The same tables as for the way of this machine."""
    assert_all_refused(by_cache)


def test_a_key_that_is_taken_away_counts_within_seconds(by_cache: Front) -> None:
    """For what is kept as well."""
    keyring = by_cache.keyring
    used = by_cache.cookie("pod-a", issued_at=int(time.time()) + 5)
    assert by_cache.nginx.ask("/pods/pod-a/", [used]).status == 200

    by_cache.write_keyring(keyring.without(keyring.current))

    assert_refused_in_time(by_cache, used)
    by_cache.write_keyring(keyring)


def test_what_is_kept_is_for_the_workers_only(by_cache: Front) -> None:
    """It holds sessions' secrets."""
    gate = by_cache.nginx.settings.runtime / "gate"

    assert stat.S_IMODE(gate.stat().st_mode) == 0o700
    by_cache.nginx.ask("/pods/pod-b/", [by_cache.cookie("pod-b", issued_at=int(time.time()) + 5)])
    kept = [file for file in gate.iterdir() if SECRET["pod-b"].encode() in file.read_bytes()]
    assert {stat.S_IMODE(file.stat().st_mode) for file in kept} == {0o600}
