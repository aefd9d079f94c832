"""The agent's deliberate bugs."""

from tests.mutants.runner import Mutant

_STEPS = "tests/property/test_agent_steps.py"
_SAFE_WAY = "tests/property/test_safe_way.py"
_LAWS = "tests/integration/test_agent_laws.py"
_CYCLE = "tests/integration/test_agent_cycle.py"
_CRASHES = "tests/integration/test_agent_crashes.py"
_REPORTING = "tests/unit/node_agent/test_reporting.py"
_FIREWALL = "tests/unit/node_agent/test_firewall.py"

AGENT_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "the epoch is not compared",
        "LAW 5",
        "node_agent/steps.py",
        "    if action.epoch < highest_epoch:",
        "    if False:",
        (f"{_STEPS}::test_nothing_of_an_earlier_placement_is_done",),
    ),
    Mutant(
        "a removal follows a link of the image",
        "LAW 8",
        "node_agent/archive/safe_restore.py",
        "            known[path] = is_real(above) and _asked(path, is_folder)",
        "            known[path] = True",
        (f"{_SAFE_WAY}::test_nothing_is_removed_through_a_link",),
    ),
    Mutant(
        "a removal reaches into what is mounted",
        "LAW 8",
        "node_agent/archive/safe_restore.py",
        "    return Removals(tuple(path for path in found if path not in above_mounts))",
        "    return Removals(tuple(found))",
        (f"{_SAFE_WAY}::test_nothing_is_removed_at_or_above_a_mount",),
    ),
    Mutant(
        "the workspace is read as a part of the pod",
        "LAW 7",
        "node_agent/archive/safe_capture.py",
        "        is_whole = change.kind is ChangeKind.ADDED and path not in above",
        "        is_whole = change.kind is ChangeKind.ADDED",
        (f"{_SAFE_WAY}::test_nothing_mounted_is_ever_read",),
    ),
    Mutant(
        "a kept layer's digest is not looked at",
        "LAW 7",
        "node_agent/archive/image_store.py",
        '    if size_bytes != layer.tar_bytes or f"sha256:{running.hexdigest()}" != layer.diff_id:',
        "    if size_bytes < 0:",
        ("tests/integration/test_images_kept.py::test_what_was_changed_in_the_store_is_noticed",),
    ),
    Mutant(
        "an opaque folder of an image export lets the image's own shine through",
        "LAW 7",
        "node_agent/archive/oci.py",
        '    opaque = info.pax_headers.get(OPAQUE) == "y"',
        "    opaque = False",
        ("tests/integration/test_archive_oci.py::test_the_engine_loads_a_pod_as_an_image",),
    ),
    Mutant(
        "epochs are not written down",
        "LAW 5",
        "node_agent/journal.py",
        "                self._write(after)",
        "                pass",
        (f"{_LAWS}::test_epochs_are_remembered_across_a_restart",),
    ),
    Mutant(
        "a running container is saved",
        "LAW 7",
        "node_agent/steps.py",
        "    if not container.quiet:",
        "    if False:",
        (f"{_STEPS}::test_what_lives_is_neither_saved_nor_removed",),
    ),
    Mutant(
        "a container goes though it ran again since it was saved",
        "LAW 8",
        "node_agent/removal.py",
        "    if proof.fingerprint != fingerprint:",
        "    if False:",
        (f"{_LAWS}::test_a_container_that_ran_again_since_it_was_saved_is_kept",),
    ),
    Mutant(
        "a container goes without a look into the store",
        "LAW 8",
        "node_agent/archives.py",
        "            manifest = check_archive(self._store, proof.manifest_key, proof.manifest_digest)",
        "            return",
        (f"{_LAWS}::test_a_container_is_kept_when_its_archive_is_not_whole_in_the_store",),
    ),
    Mutant(
        "any pod's archive is a proof",
        "LAW 8",
        "node_agent/archives.py",
        "    if (manifest.kind, manifest.target_id) != (_kind(action), action.target):",
        "    if False:",
        (f"{_LAWS}::test_another_pods_archive_is_no_proof",),
    ),
    Mutant(
        "a volume nobody vouches for is made anew",
        "LAW 9",
        "node_agent/host.py",
        "            return VolumeState.HALF if empty else VolumeState.STRANGE",
        "            return VolumeState.HALF",
        (f"{_LAWS}::test_a_volume_with_files_and_no_marker_is_left_alone",),
    ),
    Mutant(
        "a report is cut where it is too long",
        "LAW 9",
        "node_agent/reporting.py",
        "    if found > PODS_PER_REPORT_MAX:",
        "    if False:",
        (f"{_REPORTING}::test_a_report_that_would_be_cut_is_not_made",),
    ),
    Mutant(
        "a half-made container is taken for the pod",
        "LAW 10",
        "node_agent/look.py",
        "    whole = [found for found in mine if not labels.is_partial(found.name)]",
        "    whole = mine",
        (f"{_LAWS}::test_a_half_made_container_is_not_the_pod",),
    ),
    Mutant(
        "a half-filled volume is taken for whole",
        "LAW 10",
        "node_agent/perform.py",
        "            host.mark(volume, VolumeState.HALF)",
        "            host.mark(volume, VolumeState.WHOLE)",
        (_CRASHES,),
    ),
    Mutant(
        "the engine restarts pods",
        "LAW 14",
        "node_agent/docker_runtime.py",
        'restart_policy={"Name": "no"}',
        'restart_policy={"Name": "always"}',
        (f"{_CYCLE}::test_a_pod_has_its_limits_and_is_never_started_by_the_engine",),
    ),
    Mutant(
        "more uploads at a time than allowed",
        "LAW 15",
        "node_agent/workqueue.py",
        "                return sum(other.step.verb in verbs for other in begun) < at_once_max",
        "                return True",
        ("tests/unit/node_agent/test_workqueue.py::test_uploads_and_starts_wait_for_their_lane",),
    ),
    Mutant(
        "pods reach each other and the metadata address",
        "LAW 17",
        "node_agent/firewall.py",
        '        onward += [f"-d {network} -j DROP" for network in (LINK_LOCAL, *self.blocked)]',
        "        onward = onward[:1]",
        (_FIREWALL,),
    ),
)
