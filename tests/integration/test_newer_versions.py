"""Agents and a control plane of different versions: what one of them does not know holds nothing else up."""

import json
import uuid
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.database import Database
from state.model import Desired
from state.wire import SyncReply, SyncRequest
from tests.support.newer_wire import UNKNOWN_VERB, as_if_newer, newer_wire
from tests.support.scripted_node import HttpNode
from tests.support.site import two_nodes, until

# What version 0.1 of both programs says, as it was sent.
SPOKEN = json.loads((Path(__file__).parent / "wire_0_1.json").read_text())
MESSAGES = {"request": SyncRequest, "reply": SyncReply}


def unknown_step() -> dict[str, object]:
    """A step that only the next version knows, for somebody who is not on any node."""
    return {
        "id": str(uuid.uuid4()),
        "workspace_id": "w-nobodynobod",
        "user_id": "nobody",
        "pod_id": "p-nobodynobod",
        "epoch": 1,
        "attempt": 1,
        "step": {"verb": UNKNOWN_VERB, "to": "disk"},
    }


@pytest.mark.parametrize("half", list(MESSAGES))
def test_what_the_release_before_says_is_read_with_every_field_of_it(half: str) -> None:
    """A message of 0.1 means the same today, and is said in the same words."""
    read = MESSAGES[half].model_validate(SPOKEN[half])
    said = json.loads(read.model_dump_json())
    assert _within(SPOKEN[half], said)


@pytest.mark.parametrize("half", list(MESSAGES))
def test_fields_of_a_newer_version_change_nothing(half: str) -> None:
    """In every object of a message."""
    kind = MESSAGES[half]
    assert kind.model_validate(as_if_newer(SPOKEN[half])) == kind.model_validate(SPOKEN[half])


@given(st.data())
def test_a_step_that_cannot_be_read_keeps_no_other_from_its_node(data: st.DataObject) -> None:
    """Of any actions, those that can be read arrive, and of the others is told which they are."""
    actions = SPOKEN["reply"]["actions"]
    broken = data.draw(st.lists(st.booleans(), min_size=len(actions), max_size=len(actions)))
    sent = [
        action | {"step": {"verb": UNKNOWN_VERB}} if bad else action
        for action, bad in zip(actions, broken, strict=True)
    ]
    reply = SyncReply.model_validate_json(json.dumps(SPOKEN["reply"] | {"actions": sent}))

    assert [action.id for action in reply.actions] == [
        a["id"] for a, bad in zip(actions, broken, strict=True) if not bad
    ]
    assert [action.id for action in reply.unreadable] == [
        a["id"] for a, bad in zip(actions, broken, strict=True) if bad
    ]
    assert all(UNKNOWN_VERB in action.why for action in reply.unreadable)


def test_old_agents_work_under_a_newer_control_plane_and_the_reverse(
    tmp_path: Path, db: Database, database_url: str
) -> None:
    """With fields that nobody knows in all that both say, a pod is opened and stopped. A step
    that an agent does not know is refused, with what to do, and everything else goes on."""
    with (
        two_nodes(db, database_url, tmp_path, names=("one",)) as site,
        newer_wire(site.reconciler.url) as wire,
    ):
        (agent,) = site.agents
        agent.begin_anew(gateway_url=wire.url)
        pod_id = site.open()
        for desired in (Desired.RUNNING, Desired.STOPPED):
            step = unknown_step()
            wire.steps.append(step)
            site.want(pod_id, desired)
            until(partial(wire.results.__contains__, step["id"]), lambda: agent.log[-2000:])
            site.until_is(pod_id, desired)
            answer = wire.results[str(step["id"])]
            assert (answer["outcome"], answer["code"], answer["permanent"]) == (
                "failed",
                "step_unknown",
                False,
            )
            assert UNKNOWN_VERB in answer["message"]
            assert "upgrade" in answer["message"]
        # What an agent says that the control plane cannot read is refused as a whole, and the agent says so.
        node = HttpNode(agent.node.node_id, f"token-of-{agent.node.node_id}", site.reconciler.url)
        message = json.loads(node.request().model_dump_json())
        message["results"] = [{"outcome": "hibernated", "action_id": "some"}]
        refused = node.post(json.dumps(message))
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_message")
        assert "results" in refused.json()["detail"]


def _within(part: object, whole: object) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return part == whole
