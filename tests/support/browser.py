"""A real Chromium on a pod's link: what a learner does and sees."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, BrowserType, Page, Request, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

CHROMIUM = "/usr/bin/chromium"
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WORKBENCH_TIMEOUT_MS = 120_000
LOADS_MAX = 8
LOOK_EVERY_MS = 3_000
NETWORK_CHANGED = "ERR_NETWORK_CHANGED"


@contextmanager
def chromium(executable: str = CHROMIUM, *flags: str) -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    with sync_playwright() as playwright, _launched(playwright.chromium, executable, flags) as browser:
        yield browser


@contextmanager
def another_chromium(beside: Browser, executable: str, *flags: str) -> Iterator[Browser]:
    """A second one in the same test, elsewhere."""
    with _launched(beside.browser_type, executable, flags) as browser:
        yield browser


@contextmanager
def _launched(kind: BrowserType, executable: str, flags: Sequence[str]) -> Iterator[Browser]:
    browser = kind.launch(executable_path=executable, headless=True, args=[*_FLAGS, *flags])
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def kept_profile(beside: Browser, executable: str, directory: Path, *flags: str) -> Iterator[BrowserContext]:
    """A third one, which writes its history, cookies and caches into this directory, as people's own do."""
    profile = beside.browser_type.launch_persistent_context(
        directory, executable_path=executable, headless=True, args=[*_FLAGS, *flags]
    )
    profile.set_default_timeout(2 * WORKBENCH_TIMEOUT_MS)
    try:
        yield profile
    finally:
        profile.close()


@contextmanager
def learner_page(browser: Browser) -> Iterator[Page]:
    """A fresh profile with one tab; it does not know our certificate authority, so it passes over that."""
    context = browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 800})
    try:
        yield context.new_page()
    finally:
        context.close()


def open_workbench(page: Page, url: str) -> None:
    """Visit the link and wait until VS Code is there and its files are listed.

    Chromium gives up requests when a network interface of its machine comes or goes, as other pods' do here
    and not where learners are; then the page is loaded again. What failed in each load is printed.
    """
    for _ in range(LOADS_MAX):
        if _loads(page, url):
            return
    raise AssertionError(f"no workbench in {LOADS_MAX} loads; at last {page.url} said: {_text_of(page)}")


def _loads(page: Page, url: str) -> bool:
    failed: list[str] = []

    def note(request: Request) -> None:
        failed.append(f"{request.failure} {request.url.partition('?')[0]}")

    page.on("requestfailed", note)
    try:
        page.goto(url)
        _wait_unless_cut(page, ".monaco-workbench", failed)
        page.wait_for_selector(".explorer-folders-view .monaco-list-row", timeout=WORKBENCH_TIMEOUT_MS)
    except PlaywrightError as error:
        print(f"load cut: {error.message.splitlines()[0]}", *failed[:10], _text_of(page), sep="\n  ")
        return False
    finally:
        page.remove_listener("requestfailed", note)
    return True


def _wait_unless_cut(page: Page, selector: str, failed: list[str]) -> None:
    """As long as there is hope: a workbench whose scripts were given up never comes."""
    deadline = time.monotonic() + WORKBENCH_TIMEOUT_MS / 1000
    while True:
        try:
            page.wait_for_selector(selector, timeout=LOOK_EVERY_MS)
        except PlaywrightError:
            if any(NETWORK_CHANGED in line for line in failed) or time.monotonic() > deadline:
                raise
        else:
            return


def _text_of(page: Page) -> str:
    try:
        text: str = page.evaluate("document.body ? document.body.innerText.slice(0, 300) : ''")
    except PlaywrightError as error:  # it is just going elsewhere
        return error.message
    return text or "nothing"


def run_command(page: Page, title: str) -> None:
    """A command of the command palette."""
    page.keyboard.press("F1")
    box = page.locator(".quick-input-box input")
    expect(box).to_be_visible(timeout=WORKBENCH_TIMEOUT_MS)
    box.fill(f">{title}")
    page.locator(".quick-input-list .monaco-list-row").first.wait_for(timeout=WORKBENCH_TIMEOUT_MS)
    page.keyboard.press("Enter")


def open_terminal(page: Page) -> None:
    """A terminal panel with a shell in it."""
    run_command(page, "Terminal: Create New Terminal")
    page.locator(".terminal.xterm").first.wait_for(timeout=WORKBENCH_TIMEOUT_MS)
    page.locator(".xterm-helper-textarea").first.focus()


def type_in_terminal(page: Page, line: str) -> None:
    """A line, and Enter."""
    page.keyboard.type(line, delay=5)
    page.keyboard.press("Enter")


def edit_and_save(page: Page, name: str, text: str) -> None:
    """Open a file from the explorer, type at its beginning, save."""
    tab = page.locator(f'.tab[data-resource-name="{name}"]')
    page.locator(f'.explorer-folders-view .monaco-list-row[aria-label^="{name}"]').first.dblclick()
    tab.wait_for(timeout=WORKBENCH_TIMEOUT_MS)
    page.locator(".editor-group-container .monaco-editor .view-lines:visible").first.click()
    page.keyboard.press("Control+Home")
    page.keyboard.insert_text(text)
    page.keyboard.press("Control+S")
    page.locator(f'.tab[data-resource-name="{name}"]:not(.dirty)').wait_for(timeout=WORKBENCH_TIMEOUT_MS)


def screenshot(page: Page, path: Path) -> None:
    """What is on the screen now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))
