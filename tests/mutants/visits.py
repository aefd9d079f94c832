"""Deliberate bugs of the start page, of applications on ports, and of the gate's yes as it is kept."""

from tests.mutants.runner import Mutant

_START = "tests/integration/test_proxy_start.py"
_PORTS = "tests/integration/test_proxy_ports.py"
_POSTED = "tests/integration/test_proxy_posted.py"
_VISITS = "tests/integration/test_api_visits.py"
_KEPT = "tests/njs/test_kept.py"
_FILES = "tests/integration/test_api_ports.py"

VISIT_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "a yes is kept for longer than the gate said",
        "LAW 17",
        "nginx_njs/kept.pm",
        "$now <= $entry->[1]",
        "$now <= $entry->[1] + 60",
        (f"{_KEPT}::test_nothing_is_said_but_what_was_kept_last_and_is_good_in_this_second",),
    ),
    Mutant(
        "a yes of before a clock was set back counts again",
        "LAW 17",
        "nginx_njs/kept.pm",
        "$now >= $entry->[0] && ",
        "",
        (f"{_KEPT}::test_nothing_is_said_but_what_was_kept_last_and_is_good_in_this_second",),
    ),
    Mutant(
        "a yes is kept for all cookies of a pod",
        "LAW 17",
        "nginx_njs/nginx.conf.template",
        'default "$pod_base $pod $app_port $http_cookie";',
        'default "$pod_base $pod $app_port";',
        ("tests/integration/test_proxy_defence.py::test_what_was_let_in_lets_in_nothing_else",),
    ),
    Mutant(
        "what browsers have kept grows without a bound",
        "issue 4",
        "nginx_njs/kept.pm",
        "$bytes + $size > $BYTES_MAX || ",
        "",
        (f"{_KEPT}::test_memory_is_bounded_and_the_newest_stay",),
    ),
    Mutant(
        "a frame in another page wakes a pod",
        "issue 4, 6",
        "nginx_njs/request.js",
        "    return !fetchDest || fetchDest === 'document';",
        "    return true;",
        (f"{_START}::test_a_frame_gets_no_token",),
    ),
    Mutant(
        "a link's token is good for a visit",
        "LAW 17",
        "api/endpoint.py",
        'visit = open_token(token, keyring, "visit", pod_id, int(time.time()))',
        'visit = open_token(token, keyring, "url", pod_id, int(time.time()))',
        (f"{_VISITS}::test_only_the_token_of_a_visit_to_this_pod_is_taken",),
    ),
    Mutant(
        "a start page asks anew after each failure",
        "LAW 12",
        "api/visits.py",
        "or (again and status.failure is not None)):",
        "or status.failure is not None):",
        (f"{_VISITS}::test_a_failure_is_told_and_tried_again_by_hand_only",),
    ),
    Mutant(
        "a link is posted to whatever address",
        "issue 4, 8",
        "nginx_njs/request.js",
        "asked !== null && asked.path === '/_start/open'",
        "asked !== null",
        (f"{_POSTED}::test_what_is_posted_otherwise_is_refused",),
    ),
    Mutant(
        "a script posts a link",
        "issue 4, 8",
        "nginx_njs/gate.js",
        "r.method !== 'POST' || !request.isVisit(v.http_sec_fetch_dest)",
        "r.method !== 'POST'",
        (f"{_POSTED}::test_what_is_posted_otherwise_is_refused",),
    ),
    Mutant(
        "the token of the way in reaches the browser",
        "issue 4, 1",
        "nginx_njs/nginx.conf.template",
        "            proxy_hide_header Codepods-Token;\n",
        "",
        (f"{_START}::test_the_way_in_is_shown_to_the_cookie_only",),
    ),
    Mutant(
        "the token of an application's door opens again",
        "issue 4, 4",
        "nginx_njs/gate.js",
        "expires_at: nowS() + DOOR_S, reuse: 'once' }",
        "expires_at: nowS() + DOOR_S }",
        (f"{_PORTS}::test_by_host_name_a_page_fetches_its_cookie_at_the_pods_door",),
    ),
    Mutant(
        "the cookie of an application opens the IDE",
        "LAW 17",
        "nginx_njs/gate.js",
        "    return ofScope('owner', opened);\n}\n\nfunction ofScope",
        "    return opened;\n}\n\nfunction ofScope",
        (f"{_PORTS}::test_the_cookie_of_an_application_opens_nothing_else",),
    ),
    Mutant(
        "what was let in for one port is let in for all",
        "LAW 17",
        "nginx_njs/nginx.conf.template",
        'default "$pod_base $pod $app_port $http_cookie";',
        'default "$pod_base $pod $http_cookie";',
        (f"{_PORTS}::test_a_public_port_is_open_to_everybody_and_nothing_else_is",),
    ),
    Mutant(
        "any link opens a port that has one",
        "LAW 17",
        "nginx_njs/claims.js",
        "        && shown.session_id === open.session_id;",
        "        && true;",
        (f"{_PORTS}::test_what_is_not_the_link_opens_nothing",),
    ),
    Mutant(
        "a public port opens its neighbours",
        "LAW 17",
        "nginx_njs/gate.js",
        "return opened.reason || !opened.claims.scope.endsWith(`:${port}`) ? null : opened;",
        "return opened.reason ? null : opened;",
        (f"{_PORTS}::test_a_file_says_nothing_of_another_port_or_pod",),
    ),
    Mutant(
        "a port that is private again stays open",
        "LAW 1",
        "api/port_files.py",
        "            (self._directory / name).unlink(missing_ok=True)\n",
        "",
        (_FILES,),
    ),
)
