"""Bad input, end to end: a clear error where it is met, in `podctl explain`, and nothing stuck behind it."""

import json
import shutil

import pytest

from tests.support.local_installation import LocalInstallation


@pytest.mark.parametrize("user", ["../../etc/passwd", "ünïcode", "a" * 10_000, "", "-rf", "a/b", "a b"])
def test_impossible_user_names_are_refused(installation: LocalInstallation, user: str) -> None:
    """Path tricks, unicode, 10 kB: refused at once, saying what a user id may be."""
    refused = installation.run("open", f"--user={user}", "--lab", "hello", check=False)

    assert refused.returncode in (1, 2)
    assert "user" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--lab", "no-such-lab"], "lab_not_found"),
        (["--lab", "hello", "--image", "codepods-no-such-image:1"], "image_not_found"),
    ],
)
def test_what_is_not_there_is_named(installation: LocalInstallation, options: list[str], code: str) -> None:
    """No such lab, no such image: --wait fails fast, explain says why, others are not held up."""
    failed = installation.run("open", "--user", "bad-" + code.split("_")[0], *options, "--wait", check=False)

    assert failed.returncode == 1
    assert options[-1] in failed.stderr
    pods = json.loads(installation.run("list", "--user", "bad-" + code.split("_")[0], "--json").stdout)
    (pod,) = pods["pods"] if isinstance(pods, dict) else pods
    explained = json.dumps(installation.json("explain", pod["pod_id"]))
    assert code in explained
    assert installation.open("bystander")["state"] == "running"


def test_what_was_put_right_is_tried_at_once(installation: LocalInstallation) -> None:
    """A pod parked for a lab that was not there runs as soon as the lab is, and somebody opens it again."""
    asked = ("open", "--user", "early", "--lab", "late-lab", "--wait")
    labs = installation.home / "store" / "labs"
    refused = installation.run(*asked, check=False)
    assert (refused.returncode, "late-lab" in refused.stderr) == (1, True)

    shutil.copyfile(labs / "hello.tar", labs / "late-lab.tar")
    opened = json.loads(installation.run(*asked, "--json").stdout)

    assert opened["state"] == "running"
    assert opened["pod"]["failure"] is None
    assert opened["pod"]["generation"] > 1


def test_an_unknown_pod_is_said_plainly(installation: LocalInstallation) -> None:
    """A pod id that nobody has: exit 1 and one line that says so."""
    refused = installation.run("get", "p-aaaaaaaaaaaa", check=False)

    assert refused.returncode == 1
    assert "p-aaaaaaaaaaaa" in refused.stderr
