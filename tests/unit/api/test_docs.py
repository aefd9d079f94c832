"""docs/api.md and docs/podctl.md say what there is, no more and no less."""

import re
from pathlib import Path

import typer

from api.operations import OPERATIONS
from api.podctl.main import app
from api.settings import ApiSettings

DOCS = Path(__file__).parents[3] / "docs"


def test_every_setting_is_documented_with_its_default() -> None:
    """The table of settings has each setting of the program, and each has a description."""
    rows = dict(
        re.findall(r"^\| `(CODEPODS_[A-Z_]+)` \| ([^|]*)\|", (DOCS / "api.md").read_text(), re.MULTILINE)
    )
    settings = {
        f"CODEPODS_{name.upper()}": "" if field.is_required() else str(field.default)
        for name, field in ApiSettings.model_fields.items()
    }

    assert {name: default.strip("` ") for name, default in rows.items()} == settings
    assert all(field.description for field in ApiSettings.model_fields.values())


def test_every_operation_is_documented_with_its_scopes() -> None:
    """The table of operations has each method and path, with who may call it."""
    text = (DOCS / "api.md").read_text()
    rows = re.findall(r"^\| (GET|POST|PUT|DELETE) \| `([^`]+)`.*? \| ([a-z, ]+) \|", text, re.MULTILINE)
    documented = {(method, path): set(scopes.split(", ")) for method, path, scopes in rows}
    documented.pop(("GET", "/api/v1/openapi.json"))

    assert documented == {
        (operation.method, operation.path): {str(scope) for scope in operation.scopes}
        or {"visitors" if operation.visitors else "none"}
        for operation in OPERATIONS
    }


def test_every_command_is_documented() -> None:
    """docs/podctl.md names each command of podctl."""
    text = (DOCS / "podctl.md").read_text()
    groups = [
        group for group in app.registered_groups if group.hidden is not True
    ]  # those are second spellings
    names = _names(app) | {group.name or "" for group in groups}
    for group in groups:
        assert group.typer_instance is not None
        names |= {f"{group.name} {name}" for name in _names(group.typer_instance)}

    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def _names(commands: typer.Typer) -> set[str]:
    registered = commands.registered_commands
    return {command.name or getattr(command.callback, "__name__", "") for command in registered}
