"""The gate's pure functions under Node: its own tables, and laws that hold it to the Python half."""

import ipaddress
import json
import string
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.access_token import AccessClaims, Keyring, TokenRefusedError, open_token, seal
from state.revoked import Kind, Revoked, Visit

HERE = Path(__file__).parent
KEYRING = Keyring("k2", {"k1": b"1" * 32, "k2": b"2" * 32})
KEYRING_JSON = {
    "current": "k2",
    "keys": {
        "k1": "MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE",
        "k2": "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjI",
    },
}
NAMES = st.sampled_from(["a", "b", "__proto__", "constructor"])
NOW = 1_800_000_000

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Calls a function of the gate in a Node process that stays for the module."""
    command = ["node", str(HERE / "ask.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdin is not None
        assert node.stdout is not None
        into, out = node.stdin, node.stdout

        def question(module: str, function: str, *arguments: object) -> Any:
            into.write(json.dumps({"module": module, "function": function, "arguments": arguments}) + "\n")
            into.flush()
            return json.loads(out.readline())

        # Node is there when this is answered: no example waits for it.
        question("claims", "isUpstream", "", "0.0.0.0/0", "1-65535")
        yield question
        into.close()


identifiers = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
quads = st.ip_addresses(v=4).map(str)
claims = st.builds(
    AccessClaims,
    pod=identifiers,
    user=st.text(min_size=1, max_size=256),
    epoch=st.integers(0, 2**53 - 1),
    upstream=st.builds("{}:{}".format, quads, st.integers(1, 65_535)),
    secret=st.text("0123456789abcdef", min_size=64, max_size=64),
    expires_at=st.integers(NOW + 1, 2**53 - 1),
    session_id=st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64),
    scope=st.just("owner")
    | st.builds("{}:{}".format, st.sampled_from(["port", "link", "public"]), st.integers(1, 65_535)),
)
uses = st.sampled_from(["url", "cookie", "visit", "port"])
tokens = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", fullmatch=True)
cookies = st.one_of(
    st.builds("{}={}".format, tokens, st.text('abc"=,%/ ', max_size=10).map(str.strip)),
    st.sampled_from(
        ["code-server-session=1", "__Secure-codepods-p=1", "__Host-codepods=2", "CODE-SERVER-SESSION-x=1"]
    ),
    st.text(" =;x", max_size=5),
)


def test_the_tables_written_in_javascript_hold() -> None:
    """Each table of examples beside this file passes."""
    files = sorted(str(file) for file in HERE.glob("*.test.mjs"))
    done = subprocess.run(["node", "--test", *files], capture_output=True, text=True, check=False)

    assert len(files) == 3
    assert done.returncode == 0, done.stdout


@settings(deadline=None)
@given(given_claims=claims, use=uses)
def test_what_python_seals_the_gate_opens(ask: Ask, given_claims: AccessClaims, use: Any) -> None:
    """A link made by the control plane opens in nginx, with the same claims, found good."""
    text = seal(given_claims, KEYRING, use)

    opened = ask("token", "open", KEYRING_JSON, use, given_claims.pod, text)

    assert opened == {"claims": asdict(given_claims)}
    networks = f"{given_claims.upstream.partition(':')[0]}/32"
    assert ask("claims", "problem", opened["claims"], given_claims.pod, NOW, networks, "1-65535") == ""


@settings(deadline=None)
@given(given_claims=claims, use=uses)
def test_what_the_gate_seals_python_opens(ask: Ask, given_claims: AccessClaims, use: Any) -> None:
    """A cookie made by nginx opens in the control plane, with the same claims."""
    text = ask("token", "seal", KEYRING_JSON, use, asdict(given_claims))

    assert open_token(text, KEYRING, use, given_claims.pod, NOW) == given_claims


@settings(deadline=None)
@given(given_claims=claims, use=uses, data=st.data())
def test_a_changed_token_opens_nowhere(
    ask: Ask, given_claims: AccessClaims, use: Any, data: st.DataObject
) -> None:
    """Any one character replaced, removed or doubled: both halves refuse."""
    text = seal(given_claims, KEYRING, use)
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from(["", text[at] * 2, *string.ascii_letters, *string.digits, *"._-= "]))
    changed = text[:at] + put + text[at + 1 :]
    if changed == text:
        return

    assert "claims" not in ask("token", "open", KEYRING_JSON, use, given_claims.pod, changed)
    with pytest.raises(TokenRefusedError):
        open_token(changed, KEYRING, use, given_claims.pod, NOW)


@settings(deadline=None)
@given(given_claims=claims, use=uses, pod=identifiers)
def test_a_token_is_good_for_its_use_and_pod_only(
    ask: Ask, given_claims: AccessClaims, use: Any, pod: str
) -> None:
    """Moved to the other use, or to another pod: both halves refuse."""
    text = seal(given_claims, KEYRING, use)
    other: Any = "cookie" if use == "url" else "url"
    for tried_use, tried_pod in ((other, given_claims.pod), (use, pod), (other, pod)):
        if (tried_use, tried_pod) == (use, given_claims.pod):
            continue

        assert "claims" not in ask("token", "open", KEYRING_JSON, tried_use, tried_pod, text)
        with pytest.raises(TokenRefusedError):
            open_token(text, KEYRING, tried_use, tried_pod, NOW)


near_upstreams = st.one_of(
    st.text("0123456789.:", max_size=21),
    st.from_regex(r"([0-9]{1,3}\.){3}[0-9]{1,3}:[0-9]{1,6}", fullmatch=True),
    st.builds("{}:{}".format, quads, st.integers(-1, 70_000)),
    st.text(max_size=20),
)


@settings(deadline=None)
@given(upstream=near_upstreams)
def test_both_halves_read_upstreams_alike(ask: Ask, upstream: str) -> None:
    """What may be sealed as an upstream is exactly what the gate takes for one."""
    try:
        AccessClaims("p", "u", 0, upstream, "0" * 64, NOW, "s")
        sealed = True
    except ValueError:
        sealed = False

    assert ask("claims", "isUpstream", upstream, "0.0.0.0/0", "1-65535") is sealed


@settings(deadline=None)
@given(address=st.ip_addresses(v=4), around=st.ip_addresses(v=4), bits=st.integers(0, 32), data=st.data())
def test_networks_hold_what_they_hold(
    ask: Ask, address: ipaddress.IPv4Address, around: ipaddress.IPv4Address, bits: int, data: st.DataObject
) -> None:
    """The gate's network check is that of the standard library."""
    network = ipaddress.ip_network((around, bits), strict=False)
    tried = data.draw(st.sampled_from([address, network[0], network[-1], around]))

    assert ask("claims", "isUpstream", f"{tried}:8080", str(network), "8080-8080") is (tried in network)


@settings(deadline=None)
@given(
    found=st.lists(st.tuples(st.sampled_from(Kind), NAMES, st.integers(0, 3)), max_size=6),
    pod=NAMES,
    session=NAMES,
    user=NAMES,
    issued_at=st.integers(0, 3),
)
def test_both_halves_know_what_is_revoked(
    ask: Ask,
    found: list[tuple[Kind, str, int]],
    pod: str,
    session: str,
    user: str,
    issued_at: int,
) -> None:
    """Whom nginx refuses is whose sockets are cut; a revoked key is refused by the ring without it."""
    revoked = Revoked.of(found)
    claims = {"pod": pod, "session_id": session, "user": user, "issued_at": issued_at}

    refused = ask("claims", "isRevoked", claims, json.loads(revoked.text()))

    assert refused is revoked.stops(Visit("no-key", pod, session, user, issued_at))
    assert Revoked.read(revoked.text()) == revoked


@settings(deadline=None)
@given(header=st.lists(cookies, max_size=8).map(";".join))
def test_a_pod_sees_one_session_and_nothing_of_ours(ask: Ask, header: str) -> None:
    """Whatever cookies come: the injected session is first and the only one; applications' own stay."""
    sent = ask("request", "podCookie", header, "0" * 64).split("; ")
    names = [pair.partition("=")[0].strip().lower() for pair in sent]
    reserved = ("code-server-session", "__secure-codepods-", "__host-codepods")
    came = [pair.strip() for pair in header.split(";")]

    assert sent[0] == f"code-server-session={'0' * 64}"
    assert not any(name.startswith(reserved) for name in names[1:])
    assert sent[1:] == [pair for pair in came if pair.find("=") > 0 and not pair.lower().startswith(reserved)]


@settings(deadline=None)
@given(base=st.sampled_from(["/", "/pods/pod-a/"]), uri=st.text("/.%2fFpodsab-?=&\\", max_size=30))
def test_a_target_is_the_raw_path_or_nothing(ask: Ask, base: str, uri: str) -> None:
    """The path for the pod is what came, less the base: never decoded, merged or resolved."""
    target = ask("request", "below", base, uri)
    path, _, query = uri.partition("?")

    if path.startswith(base):
        assert target == {"path": f"/{path.removeprefix(base)}", "query": query}
    else:
        assert target is None
