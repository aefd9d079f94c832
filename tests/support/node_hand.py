"""A node's voice by hand: what an agent would report, sent in through the functions that the gateway uses."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from psycopg.types.json import Jsonb

from state import leader, nodes, outbox, pods, reports
from state.database import Database
from state.model import Failure, Limits, Observed, Verb
from state.plan import Place, Plan
from state.rows import failure_to_json
from state.wire import NodeFacts, PodReport, Report, SyncRequest

SECRET = "5" * 64
UPSTREAM = "127.0.0.1:20101"


@dataclass
class NodeHand:
    """Places users on one node, and reports their pods as somebody says."""

    db: Database
    node_id: str
    sequence: int = 0
    seen: dict[str, PodReport] = field(default_factory=dict)

    @classmethod
    def join(cls, db: Database, node_id: str) -> "NodeHand":
        """A new node, heard from once."""
        nodes.register(db, node_id, f"token-of-{node_id}")
        hand = cls(db, node_id)
        hand.send()
        return hand

    def send(self) -> None:
        """One sync with all that was seen."""
        self.sequence += 1
        facts = NodeFacts(
            address="127.0.0.1",
            cpu_millis=4000,
            memory_mib=8192,
            engine_version="28",
            api_version="1.48",
            storage_driver="overlay2",
            runtime="runc",
            agent_version="0",
        )
        request = SyncRequest(
            node_id=self.node_id,
            boot_id="boot-1",
            sequence=self.sequence,
            facts=facts,
            report=Report(pods=tuple(self.seen.values())),
        )
        reports.ingest(self.db, request, limits=Limits(), jitter=lambda: 0.0)

    def place(self, pod_id: str) -> None:
        """Place the pod's user here, at the first epoch."""
        lead = leader.try_lead(self.db, "node-hand", timedelta(seconds=30))
        assert lead is not None
        place = Place(self.workspace_of(pod_id), self.node_id, 0, "by hand")
        outbox.record(self.db, Plan(places=(place,)), lead, datetime.now(UTC))

    def workspace_of(self, pod_id: str) -> str:
        """The pod's workspace."""
        with self.db.transaction() as conn:
            row = conn.execute("SELECT workspace_id FROM pod WHERE id = %s", (pod_id,)).fetchone()
        assert row is not None
        return str(row["workspace_id"])

    def report(self, pod_id: str, state: Observed, upstream: str = UPSTREAM) -> None:
        """Say that the pod is so."""
        status = pods.get_pod(self.db, pod_id)
        assert status is not None
        running = state is Observed.RUNNING
        self.seen[pod_id] = PodReport(
            pod_id=pod_id,
            workspace_id=self.workspace_of(pod_id),
            user_id=status.user_id,
            epoch=1,
            generation=status.generation,
            state=state,
            container_id="c" * 64,
            image_id="sha256:" + "1" * 64,
            upstream=upstream if running else None,
            session_secret=SECRET if running else None,
        )
        self.send()

    def gone(self, pod_id: str) -> None:
        """Say that the pod is not there."""
        self.seen.pop(pod_id, None)
        self.send()

    def fail(self, pod_id: str, *, permanent: bool, count: int = 1) -> None:
        """Write down a failure of the pod's present generation, and ring the bell, as a failed step does."""
        status = pods.get_pod(self.db, pod_id)
        assert status is not None
        failure = Failure(
            verb=Verb.CREATE_POD,
            code="no_such_image",
            message="There is no image named nowhere/none. Push it, or change the pod's image.",
            count=count,
            generation=status.generation,
            permanent=permanent,
            failed_at=datetime.now(UTC),
            retry_at=datetime.now(UTC) + timedelta(minutes=10),
        )
        with self.db.transaction() as conn:
            conn.execute(
                "UPDATE pod SET failure = %s WHERE id = %s", (Jsonb(failure_to_json(failure)), pod_id)
            )
            conn.execute("NOTIFY codepods_observed")
