"""House rules that no linter has: sizes, banned things, settings and packages that must be written down."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from node_agent.settings import Settings as AgentSettings
from reconciler.settings import Settings as ReconcilerSettings
from tests.mutants.catalogue import MUTANTS
from tests.mutants.runner import Mutant, mutated
from tests.mutants.sim import SIM_MUTANTS, SOUGHT_BY
from tests.sim.directed import seeds_of

ROOT = Path(__file__).resolve().parents[1]
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 400
PACKAGES = ("state", "api", "reconciler", "node_agent", "compose")
# Put together here, so that this file does not break its own rule.
REGISTRY_HOSTS = (
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "npmjs" + ".org",
    "npmjs" + ".com",
    "deb.debian" + ".org",
)
TEXT = {
    ".py",
    ".js",
    ".mjs",
    ".sh",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".json",
    ".template",
    ".sql",
    ".html",
    ".lock",
    "",
}


def _tracked() -> list[Path]:
    listed = subprocess.run(("git", "ls-files", "-z"), cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


TRACKED = _tracked()
SOURCES = [path for path in TRACKED if path.suffix == ".py"]
PROGRAM_SOURCES = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in PACKAGES]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PROGRAM_SOURCES, ids=_name)
def test_modules_are_small(path: Path) -> None:
    """A module past the bound has more than one noun in it."""
    assert len(path.read_text().splitlines()) <= MODULE_LINES_MAX


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_functions_are_short(path: Path) -> None:
    """A function past the bound cannot be read at one look."""
    functions = [
        (node.name, (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert [(name, lines) for name, lines in functions if lines > FUNCTION_LINES_MAX] == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_real_parts_only(path: Path) -> None:
    """Nothing is patched or mocked: a test that replaces what it tests shows nothing."""
    imported = {name for node in ast.walk(ast.parse(path.read_text())) for name in _imported_by(node)}

    assert [name for name in imported if name.startswith(("unittest.mock", "mock", "pytest_mock"))] == []


def _imported_by(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_broad_except_says_why(path: Path) -> None:
    """Catching everything hides bugs, so the line, or the one before or after, gives the reason."""
    text = path.read_text()
    lines = text.splitlines()
    unexplained = [
        handler.lineno
        for handler in ast.walk(ast.parse(text))
        if isinstance(handler, ast.ExceptHandler)
        and _is_broad(handler)
        and not any(_has_reason(line) for line in lines[handler.lineno - 2 : handler.lineno + 1])
        and not _raises_again(handler)
    ]

    assert unexplained == []


def _is_broad(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or (
        isinstance(handler.type, ast.Name) and handler.type.id in ("Exception", "BaseException")
    )


def _has_reason(line: str) -> bool:
    """A comment with words in it besides the linter's."""
    comment = re.sub(r"noqa(:\s*[A-Z0-9, ]+)?", "", line.partition("#")[2])
    return len(re.findall(r"[a-z]{2,}", comment)) >= 3


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Clean up and pass on: nothing is hidden."""
    return isinstance(handler.body[-1], ast.Raise)


@pytest.mark.parametrize("path", [path for path in TRACKED if path.suffix in TEXT], ids=_name)
def test_no_registry_is_named(path: Path) -> None:
    """Which mirror is used is the operator's business: nothing here names a registry's host."""
    text = path.read_text(errors="replace")

    assert [host for host in REGISTRY_HOSTS if host in text] == []


def _settings() -> Iterator[tuple[str, str]]:
    programs: tuple[tuple[str, type[BaseSettings]], ...] = (
        ("api", ApiSettings),
        ("reconciler", ReconcilerSettings),
        ("node agent", AgentSettings),
    )
    for program, settings in programs:
        for field in settings.model_fields:
            yield program, f"CODEPODS_{field.upper()}"


@pytest.mark.parametrize(("program", "setting"), list(_settings()), ids=lambda word: word)
def test_every_setting_is_documented(program: str, setting: str) -> None:
    """docs/settings.md has a line for each setting of each program."""
    document = (ROOT / "docs" / "settings.md").read_text()

    assert f"`{setting}`" in document, f"{setting} of the {program} is not in docs/settings.md"


def test_every_documented_setting_exists() -> None:
    """Nobody sets what nothing reads."""
    document = (ROOT / "docs" / "settings.md").read_text()
    known = {setting for _, setting in _settings()}
    sources = "\n".join(
        path.read_text() for path in TRACKED if path.suffix in {".py", ".sh", ".template", ""}
    )
    documented = set(re.findall(r"`(CODEPODS_[A-Z0-9_]+)`", document))

    assert {name for name in documented - known if name not in sources and not _is_a_port(name)} == set()


def _is_a_port(name: str) -> bool:
    from compose.ports import Ports, setting_of

    return name in {setting_of(server) for server, _ in Ports().items()}


def test_every_package_is_listed() -> None:
    """A package that pyproject does not name is missing from the wheel."""
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {
        ".".join(path.relative_to(ROOT).parent.parts)
        for path in PROGRAM_SOURCES
        if path.name == "__init__.py"
    }

    assert there == listed


@pytest.mark.parametrize("mutant", [*MUTANTS, *SIM_MUTANTS], ids=lambda mutant: mutant.name)
def test_mutants_fit_the_code(mutant: Mutant) -> None:
    """One that fits no more guards nothing; better known here than at the end of the whole suite."""
    assert mutated(mutant, ROOT)
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert not name or f"def {name}(" in (ROOT / file).read_text()


def test_hunts_begin_with_seeds_that_are_there() -> None:
    """For mutants that are there."""
    assert SOUGHT_BY.keys() <= {mutant.name for mutant in SIM_MUTANTS}
    assert all(next(seeds_of(kind)) >= 0 for kind in SOUGHT_BY.values())


_PATH = re.compile(
    r"`((?:api|bench|compose|docs|nginx_njs|node_agent|pod_image|reconciler|state|tests)/[\w./-]+)`"
)


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/**/*.md")), ids=lambda path: path.name)
def test_documents_name_files_that_exist(document: Path) -> None:
    """Whoever follows a document to the code finds it."""
    assert [name for name in _PATH.findall(document.read_text()) if not (ROOT / name).exists()] == []
