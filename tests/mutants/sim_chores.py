"""Deliberate bugs in chores, for the simulation: see sim.py."""

from tests.mutants.runner import Mutant

_SWEEP = "node_agent/sweep.py"


def _bug(name: str, law: str, file: str, old: str, new: str, *also: tuple[str, str, str]) -> Mutant:
    return Mutant(name, law, file, old, new, (), also)


CHORE_MUTANTS: tuple[Mutant, ...] = (
    _bug(
        "of a kept archive only the manifest is alive",
        "LAW 9",
        _SWEEP,
        "    return {kept.key, *(blob.key for blob in manifest.blobs)}\n",
        "    return {kept.key}\n",
    ),
    _bug(
        "an archive that nobody needs goes by halves, and looks whole",
        "LAW 9",
        _SWEEP,
        "    doomed = _without_named(context.store, seen, doomed)\n",
        "",
    ),
    _bug(
        "an archive that the database does not know yet is cleared away",
        "LAW 9",
        _SWEEP,
        "        if manifest is None or manifest.number > request.newest:",
        "        if manifest is None:",
    ),
    _bug(
        # Two lines at once: what is seen for the first time stays, too, however old it is.
        "what was written a moment ago is cleared away at first sight",
        "LAW 9",
        _SWEEP,
        "    if entry.modified_at > oldest:",
        "    if False:",
        (
            _SWEEP,
            "    doomed = [entry for entry in seen.candidates if entry.key in request.doomed]\n",
            "    doomed = seen.candidates\n",
        ),
    ),
    _bug(
        "a checkpoint is never saved anew when its pod has stopped",
        "LAW 8",
        "reconciler/classify.py",
        "        return pod.archive.fingerprint == pod.observed.fingerprint",
        "        return pod.archive.fingerprint[:8] == pod.observed.fingerprint[:8]",
    ),
    _bug(
        "a scrub that finds damage says nothing",
        "LAW 9",
        "node_agent/scrub.py",
        "    if wrong:\n        raise _corrupt(wrong)\n",
        "",
    ),
    _bug(
        "what a node that is back still has is dropped in silence",
        "LAW 8",
        "node_agent/copies.py",
        "        if not self._live and not container.quiet:",
        "        if not self._live:",
    ),
    _bug(
        "nobody looks again for what a sweep kept only for now",
        "LAW 9",
        "tests/sim/care_done.py",
        'young or request["soon_over"]',
        "young",
    ),
)
