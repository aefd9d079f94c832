"""Agents as actors: production's, with ports of the simulation.

Production's threads become greenlets here, one loop each; what they do in a turn is production's own code.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

from node_agent.agent import Agent
from node_agent.archives import Archives
from node_agent.fencer import LOOK_EVERY_S
from node_agent.gateway_client import GatewayError
from node_agent.images import Images
from node_agent.parts import Parts, ProgressNote, no_note
from node_agent.runtime import NetworkPlan
from node_agent.settings import Settings
from node_agent.ways import Ways
from node_agent.workqueue import Work
from state.chore_wire import ChoreHandle
from state.lease import Refusal
from state.reports import Ingested
from state.wire import Action, StepDone, StepFailed, SyncReply, SyncRequest
from tests.sim.chores import Caretaker
from tests.sim.docker import SimDocker
from tests.sim.host import (
    SimBoots,
    SimEvent,
    SimFencer,
    SimFences,
    SimFirewall,
    SimGhosts,
    SimHost,
    SimJournal,
    SimLock,
)
from tests.sim.ingest import Ingest
from tests.sim.scheduler import Process, Scheduler
from tests.sim.store import SimStore

T = TypeVar("T")
WORKERS = 2
POLL_S = 10.0
REST_S = 1.0
SURVEY_S = 1.0
SAFETY_POLL_S = 1.0
# Twice as long as production's: half as many steps.
PRESENCE_EVERY_S = 4.0


def _named(reply: SyncReply) -> str:
    """Of the chores in it, for the trace."""
    return "".join(f" {chore.kind} {chore.id[-4:]}/{chore.attempt}" for chore in reply.chores.given)


def _lost(message: str) -> GatewayError:
    return GatewayError(message, retry_soon=True)


def _not_believed(refusal: Refusal) -> GatewayError:
    """As the gateway says it, and the client hears it."""
    other = refusal.other_machine and not refusal.silent
    after = refusal.boot_id if refusal.silent else ""
    plain = not other and not after
    return GatewayError("not believed", retry_soon=True, overtaken=plain, after=after, other_machine=other)


class SimGateway:
    """The way to the gateway and back, which may lose, delay and repeat what is on it."""

    def __init__(self, docker: SimDocker, ingest: Ingest, process: Process) -> None:
        self._node_id = docker.node_id
        self._scheduler = docker.scheduler
        self._ingest = ingest
        self._process = process
        self._docker = docker
        self.cut_until_s = 0.0
        self.deaf_until_s = 0.0
        self.tells_of_presence = False
        self._asked_at_s = -SAFETY_POLL_S
        # All that this process was ever given.
        self.given: list[Action] = []
        # The agent's ear, for what is delivered again.
        self.take: Callable[[SyncReply], None] = lambda _reply: None

    def send_stream(self, chore: ChoreHandle, chunks: Iterator[bytes]) -> None:
        """See Gateway; nobody downloads anything here."""

    def read_stream(self, chore: ChoreHandle) -> AbstractContextManager[Iterator[bytes]]:
        """See Gateway; nobody imports anything here."""
        return nullcontext(iter(()))

    def sync(self, request: SyncRequest) -> SyncReply:
        """See Gateway."""
        scheduler = self._scheduler
        self._ingest.looked(request, self._docker.looked_s.get(scheduler.me.name, -1.0))

        def up() -> Any:
            if scheduler.now_s < self.cut_until_s:
                raise _lost("the network is cut")
            if self._ingest.has("db_down") or self._ingest.has("db_empty"):
                raise _lost("the gateway has no database, or one that knows no node")
            taken = self._ingest.ingest(request)
            if self._process.dead:
                self._go_on_alone(request, taken)
            if scheduler.now_s < self.deaf_until_s:
                raise _lost("the reply is lost")
            return taken

        detail = f"#{request.sequence} results={len(request.results)}"
        ingested = scheduler.call(
            "net.sync", up, _lost, detail=detail, duplicate=lambda after_s: self._again(request, after_s)
        )
        if (refusal := ingested.refusal) is not None:
            raise _not_believed(refusal)
        if request.presence is not None and any(pod.keep for pod in request.presence.pods):
            scheduler.call("db.answer", lambda: self._ingest.answer(request), _lost)
        kept = self._chores_in(request)
        look_at: frozenset[str] = frozenset()
        if not ingested.accepted:
            self._wait(request, told=bool(kept))
            if request.wait_s and self._must_look():
                look_at, self._asked_at_s = self._ingest.looks_asked(self._node_id), scheduler.now_s
        reply = scheduler.call("db.news", lambda: self._ingest.news(request, ingested.accepted), _lost)
        reply = self._beside(request, kept, look_at, reply)
        self.given += reply.actions
        return scheduler.call(
            "net.actions" if reply.actions or reply.chores.given else "net.reply",
            lambda: reply,
            _lost,
            detail=f"actions={len(reply.actions)}{_named(reply)}",
            duplicate=lambda after_s: self._told_again(reply, after_s),
        )

    def _chores_in(self, request: SyncRequest) -> tuple[ChoreHandle, ...]:
        """What became of chores: a transaction of its own, after the report's."""
        if not (request.chores.results or request.chores.progress):
            return ()
        said = len(request.chores.results)
        return self._scheduler.call(
            "chore.in", lambda: self._ingest.chores_in(request), _lost, detail=f"results={said}"
        )

    def _beside(
        self,
        request: SyncRequest,
        kept: tuple[ChoreHandle, ...],
        look_at: frozenset[str],
        reply: SyncReply,
    ) -> SyncReply:
        """The reply with what is told of chores and of editors, each by a transaction of its own."""
        scheduler, more = self._scheduler, dict[str, Any]()
        if request.chores.kinds:
            more["chores"] = scheduler.call(
                "chore.out", lambda: self._ingest.chore_news(request, kept), _lost
            )
        if self.tells_of_presence:
            more["presence"] = scheduler.call(
                "db.presence", lambda: self._ingest.presence_down(self._node_id, look_at), _lost
            )
        return reply.model_copy(update=more) if more else reply

    def _wait(self, request: SyncRequest, *, told: bool) -> None:
        """For news, as long as the node would; not at all if there is something to be told already."""
        ingest, deaf = self._ingest, self._ingest.has("db_deaf")
        wait_s = min(request.wait_s, SAFETY_POLL_S) if deaf else request.wait_s
        if told or (request.chores.kinds and ingest.is_behind(request)):
            wait_s = 0.0

        def ready() -> bool:
            return not deaf and (ingest.has_news(request) or ingest.has_chores(request) or self._must_look())

        self._scheduler.wait_for(ready, wait_s)

    def _go_on_alone(self, request: SyncRequest, taken: Ingested) -> None:
        """A message is answered whole, also where nobody hears the answer."""
        if taken.refusal is None and request.chores.kinds:
            kept = self._ingest.chores_in(request)
            self._ingest.chore_news(request, kept)

    def _must_look(self) -> bool:
        """Nodes that are asked to look are woken once a second at most."""
        if not self.tells_of_presence or self._scheduler.now_s < self._asked_at_s + SAFETY_POLL_S:
            return False
        return bool(self._ingest.looks_asked(self._node_id))

    def _again(self, request: SyncRequest, after_s: float | None) -> None:
        """The same message arrives once more, later."""

        def arrive() -> None:
            self._scheduler.sleep(after_s or self._scheduler.random.uniform(0.01, 20))
            self._scheduler.call(
                "net.duplicate", lambda: self._go_on_alone(request, self._ingest.ingest(request)), _lost
            )

        self._scheduler.spawn(Process("network"), "network", arrive)

    def _told_again(self, reply: SyncReply, after_s: float | None) -> None:
        """The same actions are delivered once more, perhaps long after they were done."""

        def arrive() -> None:
            self._scheduler.sleep(after_s or self._scheduler.random.uniform(0.01, 150))
            told = [action.id for action in reply.actions]
            self._scheduler.tell(f"{self._node_id} is told again: {told}{_named(reply)}")
            self.take(reply)

        self._scheduler.spawn(self._process, f"{self._process.name}/{self._process.birth}/late", arrive)


class WatchedExecutor:
    """Production's executor, and marks for what became of its actions."""

    def __init__(
        self, inner: Any, process: Process, history: dict[str, set[int]], marks: Counter[str]
    ) -> None:
        self._inner = inner
        self._process = process
        self._history = history
        self._marks = marks

    def execute(
        self, action: Action, taken_back: Any = None, note: ProgressNote = no_note
    ) -> StepDone | StepFailed:
        """See Executor."""
        boots = self._history.setdefault(action.id, set())
        repeated = bool(boots - {self._process.birth})
        boots.add(self._process.birth)
        self._marks["resumed_after_crash"] += repeated
        self._marks["archive_repeated"] += repeated and action.step.verb.startswith("archive")
        result: StepDone | StepFailed = self._inner.execute(action, taken_back, note)
        if isinstance(result, StepFailed):
            self._marks[f"code:{result.code}"] += 1
            self._marks["stale_epoch_refused"] += result.code == "stale_epoch"
            self._marks["proof_void"] += result.code == "proof_void"
        return result


class AgentActor:
    """One agent process on a node: the poll, the reporter, the surveyor and the workers."""

    def __init__(
        self,
        docker: SimDocker,
        store: SimStore,
        ingest: Ingest,
        process: Process,
        history: dict[str, set[int]],
        marks: Counter[str],
    ) -> None:
        scheduler = self._scheduler = docker.scheduler
        self.process = process
        self.gateway = SimGateway(docker, ingest, process)
        parts = Parts(
            settings=_SETTINGS[docker.node_id],
            runtime=docker,
            host=cast("Any", SimHost(docker)),
            journal=SimJournal(docker),
            archives=Archives(store),
            firewall=cast("Any", SimFirewall()),
            ghosts=cast("Any", SimGhosts()),
            network=NetworkPlan("net", "br", 1500),
            fences=SimFences(docker),
            images=Images(docker, store),
            ways=Ways(docker, "fast", Path("/sim/scratch")),
            ide_answers=docker.answers,
        )
        self.parts = parts
        agent = self._agent = Agent(parts, self.gateway, SimBoots(docker, process.birth))
        self.gateway.take = agent._take
        agent._sending = cast("Any", SimLock(scheduler))
        agent._watch._looking = cast("Any", SimLock(scheduler))
        agent._executor = cast("Any", WatchedExecutor(agent._executor, process, history, marks))
        self._fencer = SimFencer(docker, parts, agent.report_soon)
        agent._fencer = self._fencer
        self._marks = marks
        self.caretaker = Caretaker(agent.chores, process, scheduler)
        # Nothing is outdated before the first placement is given up.
        scheduler.spawn(
            process,
            f"{process.name}/{process.birth}/fence",
            self._fence,
            lambda: (
                bool(docker.fences or ingest.given_up() or self._fencer.shut_out_s())
                and self._fencer.must_look()
            ),
        )
        loops: list[tuple[str, Callable[[], None]]] = [
            ("poll", self._poll),
            ("report", self._report),
            ("survey", self._survey),
        ]
        loops += [(f"work-{n}", self._work) for n in range(WORKERS)]
        for name, loop in loops:
            scheduler.spawn(process, f"{process.name}/{process.birth}/{name}", loop)

    @property
    def boot_id(self) -> str:
        """Of the run that it is in."""
        return self._agent._boot_id

    def begin_presence(self) -> None:
        """From now on it looks who is in its pods."""
        self.gateway.tells_of_presence = True
        process = self.process
        self._scheduler.spawn(process, f"{process.name}/{process.birth}/presence", self._look)

    def _look(self) -> None:
        """The loop of `PresenceWatch.run`."""
        while True:
            self._scheduler.sleep(self.parts.settings.presence_every_s)
            if self._agent._watch.look():
                self._agent.report_soon()

    def _poll(self) -> None:
        while True:
            self._agent._adopt()
            if self._agent._sync(POLL_S) is not None:
                self._scheduler.sleep(REST_S)

    def _report(self) -> None:
        wanted = self._agent._report_wanted
        while True:
            self._scheduler.wait_for(wanted.is_set)
            wanted.clear()
            if self._agent._sync(0.0) is not None:
                wanted.set()
                self._scheduler.sleep(REST_S)

    def _fence(self) -> None:
        while True:
            self._marks["fenced"] += self._fencer.look()
            self._scheduler.sleep(LOOK_EVERY_S)
            self._scheduler.wait_for(self._fencer.must_look)

    def _survey(self) -> None:
        news = self._agent._surveyor._news
        while True:
            self._scheduler.wait_for(news.is_set)
            news.clear()
            if self._agent._surveyor.survey():
                self._scheduler.sleep(SURVEY_S)
                news.set()

    def _work(self) -> None:
        queue = self._agent._queue
        while True:
            self._scheduler.wait_for(lambda: any(map(queue.may_run, queue.in_hand())))
            work = queue.take()
            assert work is not None
            _with_virtual_wait(work, self._scheduler)
            self._agent._do(work)


def _with_virtual_wait(work: Work, scheduler: Scheduler) -> None:
    event = SimEvent(scheduler)
    if work.taken_back.is_set():
        event.set()
    work.taken_back = event


_SETTINGS = {
    node_id: Settings(
        node_id=node_id,
        accept_unsandboxed=True,
        workers_max=WORKERS,
        data_dir=Path("/sim/data"),
        sync_wait_s=0.0,
        presence_every_s=PRESENCE_EVERY_S,
        cpu_millis=8000,
        memory_mib=16384,
    )
    for node_id in ("node-0", "node-1", "node-2")
}
