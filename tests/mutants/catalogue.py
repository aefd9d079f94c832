"""The deliberate bugs, each with the law it breaks and the tests that must notice."""

from tests.mutants.agent import AGENT_MUTANTS
from tests.mutants.archives import ARCHIVE_MUTANTS
from tests.mutants.chains import CHAIN_MUTANTS
from tests.mutants.control import CONTROL_MUTANTS
from tests.mutants.fleet import FLEET_MUTANTS
from tests.mutants.lives import LIFE_MUTANTS
from tests.mutants.runner import Mutant
from tests.mutants.state import STATE_MUTANTS
from tests.mutants.store import STORE_MUTANTS
from tests.mutants.visits import VISIT_MUTANTS

_PLAN = "tests/property/test_plan_laws.py"
_GATE = "tests/njs/test_gate.py"
_PROXY = "tests/integration/test_proxy.py"
_DEFENCE = "tests/integration/test_proxy_defence.py"

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "a silent node's pods are planned as if it were there",
        "LAW 6",
        "reconciler/classify.py",
        "    return now - heard > limits.node_silent_after",
        "    return False",
        (f"{_PLAN}::test_a_fresh_leader_grants_every_node_a_new_lease",),
    ),
    Mutant(
        "a workspace's failure outlives the wish that came after it",
        "LAW 12",
        "reconciler/classify.py",
        "live_failure(workspace.failure, workspace.wished_at)",
        "workspace.failure",
        ("tests/property/test_plan_failures.py",),
    ),
    Mutant(
        "a fresh leader grants no new lease",
        "LAW 13",
        "reconciler/classify.py",
        "    heard = max(node.last_seen_at or leading_since, leading_since)",
        "    heard = node.last_seen_at or leading_since",
        (f"{_PLAN}::test_a_fresh_leader_grants_every_node_a_new_lease",),
    ),
    Mutant(
        "the mass-failure breaker never opens",
        "LAW 13",
        "reconciler/plan.py",
        "        if self.breaker_open and verb in WITHDRAWING_VERBS:",
        "        if False and verb in WITHDRAWING_VERBS:",
        (f"{_PLAN}::test_the_breaker_withholds_from_every_lone_pod",),
    ),
    Mutant(
        "removal without looking at the fingerprint",
        "LAW 8",
        "reconciler/classify.py",
        "        return pod.archive.fingerprint == pod.observed.fingerprint",
        "        return True",
        (f"{_PLAN}::test_a_container_changed_after_its_archive_is_archived_again",),
    ),
    Mutant(
        "a running container is archived without a stop",
        "LAW 7",
        "reconciler/classify.py",
        "        lambda f: _is_going(f) and f.state in _UP,",
        "        lambda f: f.pod.desired is Desired.STOPPED and f.state in _UP,",
        (f"{_PLAN}::test_the_laws_hold_for_every_lone_pod",),
    ),
    Mutant(
        "a second action while one is open",
        "LAW 11",
        "reconciler/classify.py",
        "lambda f: f.pod.open_action is not None, _why_busy",
        "lambda f: False, _why_busy",
        (f"{_PLAN}::test_the_laws_hold_for_every_lone_pod",),
    ),
    Mutant(
        "an archived volume is removed while a container is there",
        "LAW 8",
        "reconciler/plan.py",
        "    needed = any(facts.must_exist or facts.state is not Observed.ABSENT for facts in all_facts)",
        "    needed = any(facts.must_exist for facts in all_facts)",
        (_PLAN,),
    ),
    Mutant(
        "no bound on the steps of a pass",
        "LAW 15",
        "reconciler/plan.py",
        "        if len(self.steps) >= self.limits.actions_per_pass_max:",
        "        if len(self.steps) >= 10 * self.limits.actions_per_pass_max:",
        (f"{_PLAN}::test_a_herd_is_let_in_a_few_at_a_time",),
    ),
    Mutant(
        "an epoch that is not the placement's",
        "LAW 5",
        "reconciler/plan.py",
        "            epoch=workspace.placement.epoch,\n            generation=pod.generation,",
        "            epoch=workspace.epoch + 1,\n            generation=pod.generation,",
        (f"{_PLAN}::test_the_laws_hold_for_every_lone_pod",),
    ),
    Mutant(
        "the gate lets everybody in",
        "LAW 17",
        "nginx_njs/nginx.conf.template",
        "            # Any answer but 2xx refuses, none too.\n            auth_request /_codepods_gate;",
        "",
        (_DEFENCE,),
    ),
    Mutant(
        "what was let in for one pod is let in for all",
        "LAW 17",
        "nginx_njs/nginx.conf.template",
        'proxy_cache_key "$pod_base $pod $app_port $http_cookie";',
        'proxy_cache_key "$http_cookie";',
        (f"{_DEFENCE}::test_what_was_let_in_lets_in_nothing_else",),
    ),
    Mutant(
        "what was let in stays let in for an hour",
        "LAW 17",
        "nginx_njs/gate.js",
        "nowS() + Number(r.variables.gate_kept_s)",
        "nowS() + 3600",
        (f"{_PROXY}::test_a_revoked_key_opens_nothing_more",),
    ),
    Mutant(
        "what was revoked goes on opening",
        "LAW 17",
        "nginx_njs/gate.js",
        "claims.isRevoked(opened.claims, revoked(r))",
        "false",
        ("tests/integration/test_proxy_revocation.py",),
    ),
    Mutant(
        "who vanished is there for a quarter of an hour",
        "LAW 15",
        "compose/listeners.py",
        "socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS_MAX",
        "socket.TCP_USER_TIMEOUT, 0",
        ("tests/integration/test_proxy_vanished.py",),
    ),
    Mutant(
        "a link for once opens again",
        "LAW 17",
        "nginx_njs/gate.js",
        "{ flag: 'wx', mode: 0o600 }",
        "{ mode: 0o600 }",
        ("tests/integration/test_proxy_once.py::test_a_link_for_once_opens_once",),
    ),
    Mutant(
        "everybody's sockets are cut",
        "LAW 12",
        "state/revoked.py",
        "visit.issued_at <= before.get(subject, -1)",
        "visit.issued_at >= before.get(subject, -1)",
        ("tests/integration/test_proxy_revocation.py", _GATE),
    ),
    Mutant(
        "pages from elsewhere open sockets",
        "LAW 17",
        "nginx_njs/nginx.conf.template",
        "if ($from_elsewhere) {",
        "if ($cookies_are_long) {",
        (f"{_PROXY}::test_a_page_from_elsewhere_opens_no_socket_and_changes_nothing",),
    ),
    Mutant(
        "an exception in the gate lets in",
        "LAW 17",
        "nginx_njs/gate.js",
        "    let reason = 'error';\n    try {\n        reason = await admit",
        "    let reason = '';\n    try {\n        reason = await admit",
        (f"{_PROXY}::test_without_a_good_keyring_everything_is_closed",),
    ),
    Mutant(
        "a token is good for every pod",
        "LAW 17",
        "nginx_njs/token.js",
        "|${kid}|${pod}`",
        "|${kid}|`",
        (f"{_GATE}::test_what_python_seals_the_gate_opens",),
    ),
    Mutant(
        "claims are good for every pod",
        "LAW 17",
        "nginx_njs/claims.js",
        "claims.pod !== pod",
        "false",
        (f"{_GATE}::test_the_tables_written_in_javascript_hold",),
    ),
    Mutant(
        "a token may name any upstream",
        "LAW 17",
        "nginx_njs/claims.js",
        "        && networks.split(',').some((network) => inNetwork(number, network));",
        "        ;",
        (f"{_GATE}::test_networks_hold_what_they_hold",),
    ),
    Mutant(
        "tokens never expire",
        "LAW 17",
        "nginx_njs/claims.js",
        "claims.expires_at <= nowS",
        "false",
        (_DEFENCE,),
    ),
    Mutant(
        "a browser may bring its own session cookie",
        "LAW 17",
        "nginx_njs/request.js",
        "|code-server-session)/i",
        ")/i",
        (f"{_DEFENCE}::test_forged_headers_do_not_reach_the_pod",),
    ),
    Mutant(
        "a pod sends nginx to another address",
        "LAW 17",
        "nginx_njs/nginx.conf.template",
        "proxy_ignore_headers X-Accel-Redirect ",
        "proxy_ignore_headers ",
        (f"{_DEFENCE}::test_a_pods_answer_cannot_steer_nginx_or_the_browser_beyond_the_pod",),
    ),
    *AGENT_MUTANTS,
    *ARCHIVE_MUTANTS,
    *CHAIN_MUTANTS,
    *STATE_MUTANTS,
    *VISIT_MUTANTS,
    *CONTROL_MUTANTS,
    *STORE_MUTANTS,
    *LIFE_MUTANTS,
    *FLEET_MUTANTS,
)
