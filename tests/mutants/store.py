"""The deliberate bugs of what lies between the agent and its store."""

from tests.mutants.runner import Mutant

_RESUME = "tests/integration/test_store_resume.py"
_SEALED = "tests/integration/test_sealed_store.py"
_CONTRACT = "tests/contract/test_store.py"

STORE_MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "another epoch's half upload is gone on with",
        "LAW 5",
        "node_agent/uploads.py",
        r'    return _ATTEMPT.sub(r"\1-*", key, count=1)',
        r'    return _ATTEMPT.sub(r"*-*", key, count=1)',
        (f"{_RESUME}::test_another_epoch_never_goes_on_with_a_half",),
    ),
    Mutant(
        "any part of the same number passes for the one that is wanted",
        "LAW 10",
        "node_agent/s3_target.py",
        "        and sent.tag.strip('\"') == hashlib.md5(part, usedforsecurity=False).hexdigest()",
        "        and sent.tag != hashlib.md5(part, usedforsecurity=False).hexdigest()",
        (f"{_RESUME}::test_parts_that_differ_are_sent_again",),
    ),
    Mutant(
        "an upload that the store has dropped is a missing bucket",
        "LAW 12",
        "node_agent/s3_target.py",
        "        except (NotOffered, UploadGone) as error:",
        "        except NotOffered as error:",
        (f"{_RESUME}::test_an_upload_that_the_store_has_dropped_is_begun_anew",),
    ),
    Mutant(
        "a blob under the key counts as this one, unread",
        "LAW 7",
        "node_agent/store.py",
        "    if read_bytes != size_bytes or running.hexdigest() != sha256:",
        "    if read_bytes != size_bytes:",
        (f"{_CONTRACT}::test_a_blob_is_never_replaced",),
    ),
    Mutant(
        "a cut sealed object passes for a whole one",
        "authenticated encryption",
        "node_agent/sealing.py",
        '        place = struct.pack(">Q?", number, last)\n        try:',
        '        place = struct.pack(">Q?", number, False)\n        try:',
        (f"{_SEALED}::test_sizes_are_those_of_what_is_inside",),
    ),
    Mutant(
        "a sealed object may lie under any name",
        "authenticated encryption",
        "node_agent/sealing.py",
        "info=_INFO + key.encode())",
        "info=_INFO)",
        (f"{_SEALED}::test_swapped_objects_are_refused",),
    ),
    Mutant(
        "a data key may be another user's",
        "authenticated encryption",
        "node_agent/master_keys.py",
        "decrypt(nonce, data, context.encode())",
        'decrypt(nonce, data, b"")',
        (f"{_SEALED}::test_swapped_objects_are_refused",),
    ),
    Mutant(
        "a volume of a pod that is wanted running is saved ahead",
        "warm stop",
        "reconciler/warm.py",
        "        or facts.pod.desired is Desired.RUNNING",
        "        or False",
        ("tests/property/test_plan_warm.py",),
    ),
    Mutant(
        "saving ahead takes all of a node's open actions",
        "LAW 15",
        "reconciler/warm.py",
        "    return node.open_actions < OPEN_ACTIONS_SHARE_MAX * limits.open_actions_per_node_max",
        "    return True",
        ("tests/property/test_plan_warm.py::test_a_busy_node_is_not_asked",),
    ),
    Mutant(
        "an upload goes on though nobody wants it any more",
        "warm stop",
        "node_agent/perform.py",
        "parts.archives.attended(fence.check)",
        "parts.archives",
        ("tests/integration/test_agent_cancel.py",),
    ),
)
