"""Deliberate bugs in what is kept, cleared away, and gone back to."""

from tests.mutants.runner import Mutant

_SWEEP = "tests/property/test_sweep_laws.py"
_IMAGES = "tests/property/test_image_sweep_laws.py"
_SWEPT = "tests/integration/test_image_sweeps.py"
_INCOMING = "tests/integration/test_archive_oci_incoming.py"
_KEPT = "tests/property/test_retention_laws.py"
_BACK = "tests/integration/test_generations.py"
_LATE = "test_an_answer_to_an_earlier_giving_out_is_none_to_the_one_that_came_after"
_CHORES = "tests/integration/test_chores.py"

_COMMIT = "tests/integration/test_archive_commit.py"
_WHOLE = "tests/property/test_safe_way.py"

ARCHIVE_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "a store that writes over what is there is trusted not to",
        "LAW 7",
        "node_agent/s3_store.py",
        "        self._looks_first = not conditional_put",
        "        self._looks_first = False",
        ("tests/integration/test_s3_requests.py::test_a_store_that_would_write_over_is_looked_at_first",),
    ),
    Mutant(
        "what tar wrote before it broke off is an archive",
        "LAW 8",
        "node_agent/archive/capture.py",
        "        if not end.seen:",
        "        if False:",
        (f"{_COMMIT}::test_a_stream_that_breaks_off_commits_nothing",),
    ),
    Mutant(
        "what is committed is refused when its source cannot be scanned any more",
        "LAW 10",
        "node_agent/archive/commit.py",
        "        if earlier:  # whatever came of the scan",
        "        if earlier and scan.result():",
        (f"{_COMMIT}::test_what_is_committed_needs_its_source_no_more",),
    ),
    Mutant(
        "what breaks off between two members is a whole tar",
        "LAW 8",
        "node_agent/archive/member_tar.py",
        "        tarinfo=OfWholeTar,",
        "        tarinfo=tarfile.TarInfo,",
        (f"{_WHOLE}::test_a_tar_that_breaks_off_anywhere_is_not_taken_for_a_smaller_one",),
    ),
    Mutant(
        "what an upload under way has written is cleared away",
        "LAW 8",
        "node_agent/sweep.py",
        "    if entry.modified_at > oldest:",
        "    if False:",
        (f"{_SWEEP}::test_what_is_young_is_not_even_a_candidate",),
    ),
    Mutant(
        "what was seen once is cleared away at once",
        "LAW 9",
        "node_agent/sweep.py",
        "for entry in seen.candidates if entry.key in request.doomed]",
        "for entry in seen.candidates]",
        (f"{_SWEEP}::test_what_no_archive_needs_goes_at_the_second_look",),
    ),
    Mutant(
        "another installation's store is cleared in",
        "LAW 9",
        "node_agent/sweep.py",
        "    if there != store_id.encode():",
        "    if False:",
        (f"{_SWEEP}::test_any_doubt_about_what_is_alive_deletes_nothing",),
    ),
    Mutant(
        "an empty list of archives clears all of them away",
        "LAW 9",
        "node_agent/sweep.py",
        "    if going and not request.kept and whole:",
        "    if False:",
        (f"{_SWEEP}::test_any_doubt_about_what_is_alive_deletes_nothing",),
    ),
    Mutant(
        "an archive whose commit was lost is cleared away",
        "LAW 9",
        "node_agent/sweep.py",
        "        if manifest is None or manifest.number > request.newest:",
        "        if manifest is None:",
        (f"{_SWEEP}::test_a_whole_archive_that_the_database_does_not_know_is_kept_and_told",),
    ),
    Mutant(
        "an old request is acted upon",
        "LAW 5",
        "node_agent/sweep.py",
        "began_s > REQUEST_AGE_S_MAX:",
        "began_s > 1e9:",
        (f"{_SWEEP}::test_an_old_request_is_not_acted_upon",),
    ),
    Mutant(
        "an image that was taken up again is cleared away",
        "LAW 8",
        "node_agent/image_sweep.py",
        "    return [entry for entry in (*manifests, *layers) if entry.modified_at <= oldest]",
        "    return [*manifests, *layers]",
        (f"{_IMAGES}::test_an_image_that_is_taken_up_again_between_the_looks_stays",),
    ),
    Mutant(
        "layers of an image that came meanwhile are cleared away",
        "LAW 8",
        "node_agent/image_sweep.py",
        "    return bool(there - seen.manifests.keys())",
        "    return False",
        (f"{_IMAGES}::test_an_image_that_comes_while_layers_are_cleared_away_keeps_its_layers",),
    ),
    Mutant(
        "images are cleared away while the store has archives that nobody knows",
        "LAW 9",
        "state/image_sweeps.py",
        "    return surveyed is not None and doubt is None",
        "    return True",
        (f"{_SWEPT}::test_objects_of_a_pod_that_nobody_knows_are_told_left_and_stop_the_clearing_of_images",),
    ),
    Mutant(
        "the image of an archive that was just retired is dead",
        "LAW 8",
        "state/image_sweeps.py",
        "       AND (a.retired_at IS NULL OR a.retired_at > now() - %(age)s\n",
        "       AND (a.retired_at IS NULL\n",
        (f"{_SWEPT}::test_the_image_of_retired_archives_goes_in_its_time",),
    ),
    Mutant(
        "a stranger's layer may redirect the kernel",
        "LAW 17",
        "node_agent/archive/oci_incoming.py",
        'if key.startswith("SCHILY.xattr.trusted.")}',
        'if key.startswith("SCHILY.xattr.trusted.none")}',
        (f"{_INCOMING}::test_a_strangers_layer_says_nothing_to_the_kernel",),
    ),
    Mutant(
        "what an image replaces is merged with the pod's image",
        "exactness",
        "node_agent/archive/oci_incoming.py",
        "if info.isdir() and (name in layer.opaque or name in layer.deleted):",
        "if False:",
        (f"{_INCOMING}::test_what_was_exported_comes_back_as_it_was",),
    ),
    Mutant(
        "what somebody goes back to is retired",
        "LAW 8",
        "reconciler/retention.py",
        "    stay |= {archive.id for archive in by_age if archive.pinned} | {by_age[0].id}",
        "    stay |= {by_age[0].id}",
        (f"{_KEPT}::test_what_something_is_restored_from_is_kept",),
    ),
    Mutant(
        "a damaged archive counts as one to go back to",
        "LAW 8",
        "reconciler/retention.py",
        "    good = [archive for archive in by_age if not archive.suspect]",
        "    good = list(by_age)",
        (f"{_KEPT}::test_as_many_of_the_newest_as_asked_are_kept",),
    ),
    Mutant(
        "going back before the present is saved",
        "LAW 8",
        "reconciler/restoring.py",
        "    gone = facts.state is Observed.ABSENT and pod.open_action is None",
        "    gone = facts.state is not Observed.RUNNING and pod.open_action is None",
        ("tests/property/test_restoring_laws.py::test_no_lone_pod_goes_back_while_it_has_a_container",),
    ),
    Mutant(
        "older files at the first read that fails",
        "LAW 8",
        "state/generations.py",
        "    return again and _fall_back(",
        "    return _fall_back(",
        (f"{_BACK}::test_a_bit_that_flipped_on_the_way_costs_nothing",),
    ),
    Mutant(
        "a late answer closes the chore that was given out anew",
        "LAW 5",
        "state/chores.py",
        "AND attempt = %(attempt)s\n       AND state = 'given' FOR UPDATE",
        "\n       AND state = 'given' FOR UPDATE",
        (f"{_CHORES}::{_LATE}",),
    ),
    Mutant(
        "an import waits for a node that has gone",
        "LAW 15",
        "api/import_watch.py",
        "        if self.has_begun or now_s - self._left_at_s > TAKE_OVER_S:",
        "        if False:",
        ("tests/unit/api/test_import_watch.py",),
    ),
    Mutant(
        "an import goes on with what another node has not read",
        "LAW 10",
        "api/import_watch.py",
        "self.has_begun and self._reader not in (None, here)",
        "False",
        ("tests/unit/api/test_import_watch.py::test_who_began_to_read_and_left_is_told_at_once",),
    ),
)
