"""Chromium on pods by host name and by path, through TLS: what learners see, and what must not leak."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Request, WebSocket, expect

from tests.support.browser import (
    WORKBENCH_TIMEOUT_MS,
    kept_profile,
    open_terminal,
    open_workbench,
    screenshot,
    type_in_terminal,
)
from tests.support.classroom import DOMAIN, Classroom, classroom_up
from tests.support.course_page import COURSE_HOST, course_page
from tests.support.local_installation import ROOT, in_pod
from tests.support.patience import until

CUT_S = 60
SCREENSHOTS = Path(os.environ.get("CODEPODS_SCREENSHOTS", "/tmp/codepods-screenshots"))
SHAPES = ("subdomain", "path")
# Browsers, builds and pods share the machine with whatever else it does.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def classroom() -> Iterator[Classroom]:
    """One for all tests here."""
    with classroom_up() as up:
        yield up


@pytest.fixture
def profile(classroom: Classroom) -> Iterator[BrowserContext]:
    """A fresh profile of the browser."""
    context = classroom.browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(WORKBENCH_TIMEOUT_MS)
    yield context
    context.close()


def _work(classroom: Classroom, page: Page, pod: str, line: str) -> None:
    """Type a line in a terminal, until what it does is seen in the pod."""
    type_in_terminal(page, f"{line}; echo done >> ~/done")
    until(lambda: classroom.shell(pod, "cat ~/done 2>/dev/null || true"), f"{line!r} did not run")
    classroom.shell(pod, "rm ~/done")


def test_two_pods_of_two_users_in_one_browser(classroom: Classroom, profile: BrowserContext) -> None:
    """One by host name, one by path: both IDEs, extension hosts and terminals work, and stay who they are."""
    pages = {}
    for user, shape in zip(("ann", "bob"), SHAPES, strict=True):
        pod, link = classroom.open(user, shape)
        pages[pod] = page = profile.new_page()
        open_workbench(page, link)
        open_terminal(page)
        _work(classroom, page, pod, f"echo {user} > ~/who")
    names = [cookie["name"] for cookie in profile.cookies() if "codepods" in cookie["name"]]

    assert [classroom.shell(pod, "cat ~/who").strip() for pod in pages] == ["ann", "bob"]
    assert len(names) == len(set(names)) == 2
    for pod, page in pages.items():
        assert classroom.shell(pod, "pgrep -f type=extensionHost").strip()
        assert "tkn" not in page.url
        page.reload()
        page.wait_for_selector(".monaco-workbench", timeout=WORKBENCH_TIMEOUT_MS)
    _nothing_leaked(classroom, *pages.values())


_KEPT_BY_CODE_SERVER = r"find ~/.local/share/code-server -type f -exec cat {} + | tr -cd '[:print:]\n'"


def _nothing_leaked(classroom: Classroom, *pages: Page) -> None:
    """No token of a link in a history, a log, or in what a pod keeps and sees."""
    secrets = [link.partition("tkn=")[2].partition("&")[0][-40:] for link in classroom.links]
    logs = [*classroom.nginx.glob("logs/*"), *classroom.installation.home.glob("log/*")]
    told = "".join(path.read_text(errors="replace") for path in logs)
    for page in pages:
        session = page.context.new_cdp_session(page)
        entries = session.send("Page.getNavigationHistory")["entries"]
        told += "".join(entry["url"] for entry in entries)
        told += page.evaluate("document.referrer")
    for pod in {link.partition("://")[2].partition(".")[0] for link in classroom.links}:
        for container in classroom.installation.containers(pod):
            if container["State"]["Running"]:
                told += in_pod(container["Id"], _KEPT_BY_CODE_SERVER)
    assert [secret for secret in secrets if secret in told] == []


# ---- what a browser writes down --------------------------------------------------------------------------


def _holding(directory: Path, words: str) -> list[str]:
    """The files of a profile with these words in them, in either width that Chromium writes."""
    spellings = (words.encode(), words.encode("utf-16-le"))
    contents: dict[str, bytes] = {}
    for file in directory.rglob("*"):
        with suppress(FileNotFoundError):  # a lock, or something that goes with its process
            contents |= {str(file.relative_to(directory)): file.read_bytes()} if file.is_file() else {}
    assert len(contents) > 20
    return [name for name, held in contents.items() if any(spelling in held for spelling in spellings)]


def _history(directory: Path, words: str) -> list[str]:
    """Those of the history with these words in them; waits, for Chromium writes it down every ten seconds."""
    return until(
        lambda: [name for name in _holding(directory, words) if name.startswith("Default/History")],
        f"the browser's history has never had {words}",
    )


def test_a_followed_link_stays_in_the_files_of_its_browser(classroom: Classroom, tmp_path: Path) -> None:
    """The counterpart of the next test: what is looked for is found, so it is to be found."""
    pod, link = classroom.open("poster", "subdomain")
    with kept_profile(classroom.browser, classroom.executable, tmp_path, *classroom.flags) as profile:
        page = profile.new_page()
        page.goto(link, wait_until="commit")
        assert page.url.startswith(f"{classroom.base(pod, 'subdomain')}?folder=")
        assert _history(tmp_path, classroom.secret_of(link))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_posted_link_is_in_no_file_of_its_browser(classroom: Classroom, tmp_path: Path, shape: str) -> None:
    """By a page of another site: the IDE comes, the cookie arrives, and no file of the profile has it."""
    pod, form = classroom.open_by_form("poster", shape)
    steps: list[Request] = []
    with (
        course_page(classroom.network.here, form) as course,
        kept_profile(classroom.browser, classroom.executable, tmp_path, *classroom.flags) as profile,
    ):
        page = profile.new_page()
        page.on("request", lambda request: steps.append(request) if request.is_navigation_request() else None)
        page.goto(course)
        page.get_by_role("button").click()
        page.wait_for_selector(".monaco-workbench")
        assert page.url.startswith(f"{classroom.base(pod, shape)}?folder=")
        _, posted, landed = (step.all_headers() for step in steps[:3])
        assert (posted["sec-fetch-site"], COURSE_HOST in posted["origin"]) == ("cross-site", True)
        assert (landed["sec-fetch-site"], "codepods" in landed["cookie"]) == ("cross-site", True)
        # What came before this page, the post too, has been written down by then.
        assert _history(tmp_path, f"{classroom.base(pod, shape)}?folder=")

    token = form["fields"]["tkn"]
    assert _history(tmp_path, COURSE_HOST)
    assert _holding(tmp_path, token[-40:]) == _holding(tmp_path, "tkn=v1.") == []


@pytest.mark.parametrize("shape", SHAPES)
def test_a_visit_wakes_a_pod_and_a_tab_does_not(
    classroom: Classroom, profile: BrowserContext, shape: str
) -> None:
    """The tab of a pod that was put to rest tries again and again, in vain; a new visit leads back in."""
    pod, link = classroom.open(f"sleeper-{shape}", shape)
    tab = profile.new_page()
    open_workbench(tab, link)
    address = tab.url
    tries: list[str] = []
    tab.on("websocket", lambda socket: tries.append(socket.url))
    classroom.installation.run("archive", pod, "--wait")
    before = classroom.wishes(pod)

    until(lambda: (tab.wait_for_timeout(200), len(tries) >= 2)[1], "the tab did not try to come back")
    assert classroom.wishes(pod) == before

    visit = profile.new_page()
    addresses: list[str] = []
    visit.on("request", lambda request: addresses.append(request.url))
    with visit.expect_response(
        lambda response: response.url.endswith(":wake") or "_start/wake" in response.url
    ):
        answer = visit.goto(address)
    assert answer is not None
    assert answer.status == 503
    visit.get_by_role("heading").wait_for()
    screenshot(visit, SCREENSHOTS / f"start-page-{shape}.png")
    visit.wait_for_selector(".monaco-workbench")
    assert visit.url == address
    assert not [url for url in addresses if "tkn=" in url]
    assert classroom.wishes(pod)[len(before) :] == [f"visit:sleeper-{shape} running"]
    _nothing_leaked(classroom, visit)


def test_the_terminal_outlives_a_reload_of_nginx_and_a_lost_network(
    classroom: Classroom, profile: BrowserContext
) -> None:
    """nginx reloads and no socket is cut; after a minute without network the same shell is there."""
    pod, link = classroom.open("commuter", "subdomain")
    page = profile.new_page()
    closed: list[str] = []
    back: set[str] = set()

    def follow(socket: WebSocket) -> None:
        socket.on("close", lambda gone: closed.append(gone.url))
        if "reconnection=true" in socket.url:
            socket.on("framereceived", lambda _: back.add(socket.url))

    page.on("websocket", follow)
    open_workbench(page, link)
    open_terminal(page)
    _work(classroom, page, pod, "kept=yes; echo $$ > ~/shell")

    os.kill(int((classroom.nginx / "nginx.pid").read_text()), signal.SIGHUP)
    _work(classroom, page, pod, "echo after the reload")
    assert closed == []

    with classroom.network.cut():
        page.wait_for_timeout(CUT_S * 1000)
    until(lambda: (page.wait_for_timeout(500), len(back) >= 2)[1], "the tab did not come back")
    expect(page.locator(".monaco-dialog-box")).to_be_hidden(timeout=WORKBENCH_TIMEOUT_MS)
    page.locator(".xterm-helper-textarea").first.focus()
    _work(classroom, page, pod, "echo $$ $kept > ~/shell-after")

    shell = classroom.shell(pod, "cat ~/shell").strip()
    assert classroom.shell(pod, "cat ~/shell-after").strip() == f"{shell} yes"
    _nothing_leaked(classroom, page)


# ---- applications ----------------------------------------------------------------------------------------

_SHOWN = "() => JSON.parse(document.body.innerText)"
_ECHO = """async (path) => {
    const socket = new WebSocket(new URL(path, location.href.replace('https:', 'wss:')));
    await new Promise((done, failed) => { socket.onopen = done; socket.onerror = failed; });
    const heard = new Promise((done) => { socket.onmessage = (event) => done(event.data); });
    socket.send('echo');
    return await heard;
}"""
PYTHON_PACKAGES = ("anyio", "click", "h11", "idna", "sniffio", "starlette", "uvicorn", "websockets")
PACKAGES_OF_PYTHON = Path(pytest.__file__).parents[1]


def _put(classroom: Classroom, pod: str, sources: list[Path], target: str) -> None:
    """Copy what the installer has fetched into the pod, as its user's."""
    (container,) = classroom.installation.containers(pod)
    classroom.shell(pod, f"mkdir -p {target}")
    archive = ["tar", "-c", "--owner=1000", "--group=1000"]
    for source in sources:
        archive += ["-C", str(source.parent), source.name]
    with subprocess.Popen(archive, stdout=subprocess.PIPE) as packed:
        subprocess.run(
            ["docker", "exec", "-i", "-u", "coder", container["Id"], "tar", "-x", "-C", target],
            stdin=packed.stdout,
            check=True,
        )


def _run_app(classroom: Classroom, pod: str) -> None:
    """The application of tests/fixtures, on port 8000 of the pod."""
    found = [PACKAGES_OF_PYTHON / name for name in PYTHON_PACKAGES if (PACKAGES_OF_PYTHON / name).exists()]
    extra = list(PACKAGES_OF_PYTHON.glob("typing_extensions.py"))
    _put(classroom, pod, [*found, *extra, ROOT / "tests" / "fixtures" / "app.py"], "/home/coder/app")
    classroom.shell(pod, "cd ~/app && (nohup python3 app.py >~/app.log 2>&1 &)")
    until(lambda: classroom.shell(pod, "curl -sf localhost:8000/up || true"), "the application did not start")


def _run_vite(classroom: Classroom, pod: str, base: str) -> None:
    """A page that Vite serves on port 5173 of the pod, with hot reload."""
    serve = f"../node_modules/vite/bin/vite.js --port 5173 --strictPort --base {base}"
    classroom.shell(
        pod,
        f"""cd ~/vite && kill $(cat ~/vite.pid 2>/dev/null) 2>/dev/null; mkdir -p page && cd page
        echo '<!doctype html><p id=text></p><script type=module src="/main.js"></script>' > index.html
        echo 'import {{ word }} from "./word.js"; const show = (it) => {{ text.innerText = it; }}; show(word);
        import.meta.hot.accept("./word.js", (now) => show(now.word));' > main.js
        echo 'export const word = "first";' > word.js
        nohup /opt/code-server/lib/node {serve} > ~/vite.log 2>&1 & echo $! > ~/vite.pid""",
    )
    until(lambda: classroom.shell(pod, f"curl -sf localhost:5173{base} || true"), "Vite did not start")


@pytest.fixture(scope="module")
def workshop(classroom: Classroom) -> tuple[str, str]:
    """A pod in which applications run, and a link to it."""
    pod, link = classroom.open("maker", "subdomain")
    _put(classroom, pod, [Path(sys.prefix, "vite").resolve() / "node_modules"], "/home/coder/vite")
    _run_app(classroom, pod)
    return pod, link


def _app(classroom: Classroom, pod: str, port: int, shape: str, way: str = "proxy") -> str:
    """The address of an application."""
    if shape == "path":
        return f"{classroom.base(pod, shape)}{way}/{port}/"
    return f"https://{port}--{pod}.{DOMAIN}:{classroom.port}/"


@pytest.mark.parametrize("shape", SHAPES)
def test_an_application_works_and_hears_no_secret(
    classroom: Classroom, profile: BrowserContext, workshop: tuple[str, str], shape: str
) -> None:
    """Its pages, redirects, cookies and sockets; what it hears holds neither our cookies nor the session."""
    pod, link = workshop
    page = profile.new_page()
    page.goto(link.replace(classroom.base(pod, "subdomain"), classroom.base(pod, shape)))
    address = _app(classroom, pod, 8000, shape)

    page.goto(f"{address}hello?x=1")
    first = page.evaluate(_SHOWN)
    page.goto(f"{address}away")

    assert first["path"] == "/hello"
    assert page.url == f"{address}there"
    heard = page.evaluate(_SHOWN)["headers"]
    assert heard["cookie"] == "seen=yes"
    assert heard["host"] == "localhost:8000"
    assert heard["x-forwarded-host"] == address.split("/")[2]
    assert not any("codepods" in value or "tkn" in value for value in heard.values())
    assert page.evaluate(_ECHO, f"{address}socket") == "echo"
    assert "codepods" not in page.evaluate("document.cookie")


@pytest.mark.parametrize("shape", SHAPES)
def test_vite_reloads_hot(
    classroom: Classroom, profile: BrowserContext, workshop: tuple[str, str], shape: str
) -> None:
    """A change in the pod is on the page by itself, without the page being loaded again."""
    pod, link = workshop
    address = _app(classroom, pod, 5173, shape, "absproxy")
    _run_vite(classroom, pod, "/" if shape == "subdomain" else f"/pods/{pod}/absproxy/5173/")
    page = profile.new_page()
    page.goto(link.replace(classroom.base(pod, "subdomain"), classroom.base(pod, shape)))
    with page.expect_websocket():
        page.goto(address)
    page.get_by_text("first").wait_for()
    page.evaluate("window.kept = 'yes'")

    until(
        lambda: (
            classroom.shell(pod, "echo 'export const word = \"second\";' > ~/vite/page/word.js"),
            page.wait_for_timeout(500),
            page.inner_text("#text") == "second",
        )[2],
        "the change did not come",
    )
    assert page.evaluate("window.kept") == "yes"


def test_a_port_is_opened_to_others_and_closed_again(
    classroom: Classroom, profile: BrowserContext, workshop: tuple[str, str]
) -> None:
    """By link and to everybody, in a browser that knows nothing; then private: soon it is closed."""
    pod, _ = workshop
    address = _app(classroom, pod, 8000, "subdomain")
    page = profile.new_page()

    def status(url: str) -> int:
        answer = page.goto(url)
        return answer.status if answer else 0

    assert status(address) == 403
    url = classroom.installation.json("port", pod, "8000", "link")["url"]
    until(lambda: status(url) == 200, "the link does not open")
    assert page.url == address
    assert [status(classroom.base(pod, shape)) for shape in SHAPES] == [403, 403]
    assert status(_app(classroom, pod, 5173, "subdomain")) == 403
    classroom.installation.run("port", pod, "8000", "private")
    until(lambda: status(address) == 403, "the port is still open")

    profile.clear_cookies()
    classroom.installation.run("port", pod, "8000", "public")
    by_shape = [_app(classroom, pod, 8000, shape) for shape in SHAPES]
    until(lambda: [status(url) for url in by_shape] == [200, 200], "not open to everybody")
    assert [status(classroom.base(pod, shape)) for shape in SHAPES] == [403, 403]
    classroom.installation.run("port", pod, "8000", "private")
    until(lambda: [status(url) for url in by_shape] == [403, 403], "still open to everybody")
