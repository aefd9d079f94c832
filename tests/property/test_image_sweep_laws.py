"""Clearing away images, by the real handler on a real store: no image that anything is made of ever goes.

Nodes take images into use and give them up, archives pin them and are retired, sweeps are asked and carried
out late or cut off anywhere, in any order; time passes by making files older.
"""

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from node_agent.archive.image_store import (
    ImageManifest,
    image_key,
    missing_layers,
    read_image,
    renew,
)
from node_agent.chores import Budget, ChoreContext, ChoreDropped, ChoreError
from node_agent.directory_store import DirectoryStore
from node_agent.image_sweep import sweep_images
from node_agent.sweep import REQUEST_AGE_S_MAX
from state.chore_wire import Chore, Payload
from tests.support.stored_images import store_image

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
MIN_AGE_S, CONFIRM_S, RENEWED_S = 3 * DAY_S, DAY_S, 6 * HOUR_S
STORE_ID = "installation-1"
# Every image has the base, and two of them share another layer.
IMAGES = {"{}": (b"base",), '{"a":1}': (b"base", b"shared"), '{"b":1}': (b"base", b"shared", b"top")}


class Cut(Exception):
    """The agent was killed here."""


class CutStore(DirectoryStore):
    """Dies before its n-th deletion."""

    deletions = 10**9

    def delete_if_same(self, entry: Any) -> bool:
        """Count down."""
        if self.deletions == 0:
            raise Cut
        self.deletions -= 1
        return super().delete_if_same(entry)


class World:
    """The store, and what the database knows."""

    def __init__(self, root: Path) -> None:
        self.store = CutStore(root)
        self.root = root
        self.clock_s = 0.0
        self.ids: dict[str, str] = {}
        self.used: set[str] = set()
        self.archived: set[str] = set()
        self.retired_s: dict[str, float] = {}
        self.seen_s: dict[str, float] = {}
        self.renewed_s = 0.0

    def take(self, config: str) -> None:
        """A pod of this image comes to a node, which keeps it in the store."""
        image_id = store_image(self.store, config, *IMAGES[config])
        self.ids[config] = image_id
        self.used.add(config)
        self.keep(config)

    def keep(self, config: str) -> None:
        """As `Images.keep`, from an engine that has the image."""
        manifest = read_image(self.store, self.ids[config])
        if manifest is not None:
            renew(self.store, manifest)
        if manifest is None or missing_layers(self.store, manifest):
            store_image(self.store, config, *IMAGES[config])

    def alive(self) -> set[str]:
        """As state.image_sweeps counts it."""
        lately = {one for one, at in self.retired_s.items() if self.clock_s - at < MIN_AGE_S}
        return self.used | self.archived | lately

    def request(self) -> Payload:
        """As state.image_sweeps makes it."""
        alive = self.alive()
        doomed = [key for key, since in self.seen_s.items() if self.clock_s - since > CONFIRM_S]
        return {
            "store_id": STORE_ID,
            "dead": [self.ids[config] for config in self.ids if config not in alive],
            "needed": [self.ids[config] for config in sorted(self.archived)],
            "doomed": doomed if alive else [],
            "min_age_s": MIN_AGE_S,
        }

    def sweep(self, request: Payload, age_s: float = 0.0) -> Payload:
        """By the real handler."""
        chore = Chore(id="c", attempt=1, kind="sweep_images", subject="s", request=request, age_s=age_s)
        context = ChoreContext(self.store, chore, Budget(1 << 40), threading.Event(), lambda *_: None)
        return sweep_images(context)

    def note(self, result: Payload) -> None:
        """As state.image_sweeps does."""
        keys = [line["key"] for line in result["candidates"]]
        self.seen_s = {key: self.seen_s.get(key, self.clock_s) for key in keys}

    def look(self) -> Payload:
        """Asked, done and written down at once."""
        result = self.sweep(self.request())
        self.note(result)
        return result

    def pass_time(self, seconds: float) -> None:
        """All that is there grows older; nodes renew what they have."""
        self.clock_s += seconds
        for path in self.root.rglob("*"):
            if path.is_file():
                at = path.stat().st_mtime - seconds
                os.utime(path, (at, at))
        if self.clock_s - self.renewed_s >= RENEWED_S:
            self.renewed_s = self.clock_s
            for config in self.used:
                self.keep(config)

    def whole(self, config: str) -> bool:
        """Whether the store has all of it."""
        manifest = read_image(self.store, self.ids[config])
        return manifest is not None and not missing_layers(self.store, manifest)


class Images(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="codepods-images-")
        self.world = World(Path(self.folder.name))
        self.asked: list[tuple[float, Payload]] = []

    def teardown(self) -> None:
        """Nothing stays."""
        self.folder.cleanup()

    @rule(config=st.sampled_from(sorted(IMAGES)))
    def take(self, config: str) -> None:
        """Used, perhaps again, perhaps while a sweep that knows it as dead is under way."""
        self.world.take(config)

    @rule(config=st.sampled_from(sorted(IMAGES)), archived=st.booleans())
    def put_away(self, config: str, archived: bool) -> None:
        """The pod goes, into an archive or for good."""
        if config in self.world.used:
            self.world.used.discard(config)
            if archived:
                self.world.archived.add(config)
            self.world.retired_s.pop(config, None)
            if not archived:
                self.world.retired_s[config] = self.world.clock_s

    @rule(config=st.sampled_from(sorted(IMAGES)))
    def retire(self, config: str) -> None:
        """The last archive of it is not kept any more."""
        if config in self.world.archived:
            self.world.archived.discard(config)
            self.world.retired_s[config] = self.world.clock_s

    @rule()
    def ask(self) -> None:
        """The request is made, and carried out who knows when."""
        self.asked.append((self.world.clock_s, self.world.request()))

    @rule(cut_after=st.one_of(st.none(), st.integers(0, 3)))
    def sweep(self, cut_after: int | None) -> None:
        """Done by a node, that may be killed before any deletion: then nobody learns what it did."""
        if not self.asked:
            return
        asked_s, request = self.asked.pop(0)
        self.world.store.deletions = 10**9 if cut_after is None else cut_after
        try:
            self.world.note(self.world.sweep(request, self.world.clock_s - asked_s))
        except Cut:
            self.asked.append((asked_s, request))
        except ChoreError:
            event("refused as too old")
        self.world.store.deletions = 10**9

    @rule(hours=st.sampled_from((0.5, 7.0, 30.0, 80.0)))
    def wait(self, hours: float) -> None:
        """Time passes, in steps that a node's renewal lies between."""
        for _ in range(int(hours // 5) or 1):
            self.world.pass_time(min(hours, 5.0) * HOUR_S)

    @invariant()
    def nothing_that_is_alive_is_missing(self) -> None:
        """What pods and archives are made of is whole."""
        for config in self.world.used | self.world.archived:
            assert self.world.whole(config), config


TestImages = Images.TestCase
TestImages.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two images: one is used, one was given up long ago, but was not looked at yet."""
    world = World(tmp_path)
    for config in ("{}", '{"b":1}'):
        world.take(config)
    world.used.discard('{"b":1}')
    world.pass_time(5 * DAY_S)
    return world


def test_a_dead_image_goes_at_the_second_look_and_its_layers_after_it(world: World) -> None:
    """First its manifest; then the layers that it alone had; the base that it shared stays."""
    assert world.look()["deleted"] == []
    world.pass_time(1.5 * DAY_S)
    assert world.look()["deleted"] == [image_key(world.ids['{"b":1}'])]
    assert world.look()["deleted"] == []
    world.pass_time(1.5 * DAY_S)
    assert len(world.look()["deleted"]) == 2
    assert world.whole("{}")
    assert len(world.store.list("images/")) == 2


def test_an_image_that_is_taken_up_again_between_the_looks_stays(world: World) -> None:
    """Also for a request that was made before: what was renewed is young, whoever thinks it dead."""
    world.look()
    world.pass_time(1.5 * DAY_S)
    request = world.request()
    assert request["doomed"]
    world.take('{"b":1}')
    assert world.sweep(request)["deleted"] == []
    assert world.whole('{"b":1}')


def test_a_sweep_that_is_killed_between_mark_and_deletion_is_simply_done_again(world: World) -> None:
    """Before each deletion: what was to go goes the next time, and nothing else."""
    world.look()
    world.pass_time(1.5 * DAY_S)
    world.store.deletions = 0
    for _ in range(2):
        with pytest.raises(Cut):
            world.look()
    world.store.deletions = 10**9
    world.look()
    assert world.whole("{}")
    assert read_image(world.store, world.ids['{"b":1}']) is None


def test_an_image_that_comes_while_layers_are_cleared_away_keeps_its_layers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest was not looked at: no further layer goes."""
    world.look()
    world.pass_time(1.5 * DAY_S)
    world.look()
    world.look()
    world.pass_time(1.5 * DAY_S)
    removed: list[str] = []
    real = world.store.delete_if_same

    def delete(entry: Any) -> bool:
        removed.append(entry.key)
        gone = real(entry)
        if len(removed) == 1:
            store_image(world.store, '{"new":1}', b"other")
        return gone

    monkeypatch.setattr(world.store, "delete_if_same", delete)
    assert world.look()["deleted"] == removed
    assert len(removed) == 1


@pytest.mark.parametrize("doubt", ["another store", "unreadable manifest", "old request"])
def test_any_doubt_deletes_nothing(world: World, doubt: str) -> None:
    """LAW 9."""
    world.look()
    world.pass_time(1.5 * DAY_S)
    request, age_s = world.request(), 0.0
    assert request["doomed"]
    if doubt == "another store":
        request["store_id"] = "installation-2"
    elif doubt == "old request":
        age_s = REQUEST_AGE_S_MAX + 1
    else:
        (world.root / image_key(world.ids["{}"])).write_bytes(b"{")
    before = set(world.store.list("images/"))
    with pytest.raises(ChoreError):
        world.sweep(request, age_s)
    assert set(world.store.list("images/")) == before


def test_a_dropped_chore_deletes_nothing_more(world: World) -> None:
    """Asked before each deletion."""
    world.look()
    world.pass_time(1.5 * DAY_S)
    chore = Chore(id="c", attempt=1, kind="sweep_images", subject="s", request=world.request())
    dropped = threading.Event()
    dropped.set()
    context = ChoreContext(world.store, chore, Budget(1 << 40), dropped, lambda *_: None)
    with pytest.raises(ChoreDropped):
        sweep_images(context)
    assert read_image(world.store, world.ids['{"b":1}']) is not None


def test_what_archives_need_and_the_store_has_not_is_told(world: World) -> None:
    """Before somebody misses it."""
    request = world.request()
    request["needed"] = [world.ids["{}"], "sha256:" + "0" * 64]
    assert world.sweep(request)["missing"] == ["sha256:" + "0" * 64]


def test_a_renewed_manifest_reads_as_the_same(world: World) -> None:
    """Its bytes differ, so that a deletion on condition of them fails."""
    key = image_key(world.ids["{}"])
    before, manifest = world.store.get(key, 10_000), read_image(world.store, world.ids["{}"])
    assert isinstance(manifest, ImageManifest)
    renew(world.store, manifest)
    assert world.store.get(key, 10_000) != before
    assert read_image(world.store, world.ids["{}"]) == manifest
