"""A schedule in words that real agents, a real engine and a real reconciler understand."""

from tests.sim.realwards import deeds_of
from tests.sim.schedule import ANY_ACTOR, Fault, Schedule


def test_faults_of_calls_become_failpoints_and_what_cannot_be_done_is_said() -> None:
    """The call that a fault met in the simulation is named; nothing is dropped in silence."""
    schedule = Schedule(
        seed=1,
        steps=600,
        faults=(
            Fault(0, "p-0-0", 0, "wish:running"),
            Fault(0, ANY_ACTOR, 2, "crash_after", "docker.create"),
            Fault(0, ANY_ACTOR, 1, "delay", "store.put_manifest", 5.0),
            Fault(20, "node-1", 0, "disk_lost"),
            Fault(200, "p-0-0", 0, "wish:archived"),
            Fault(200, ANY_ACTOR, 1, "pause", "store.commit", 30.0),
        ),
    )

    deeds, left_out = deeds_of(schedule)

    done = [(deed.what, deed.detail) for deed in deeds]
    assert done == [
        ("failpoint", "runtime.create.after:1=crash"),
        ("wish", "running"),
        ("failpoint", "store.writer.commit.before:1=stop"),
        ("wish", "archived"),
    ]
    assert [line.split(":")[1].split()[0] for line in left_out] == ["delay", "disk_lost"]
