"""Which of these tests are for `make chaos` only: they take minutes each."""

import os

LONG = (
    "test_bad_pods.py",
    "test_chore_crashes.py",
    "test_clocks.py",
    "test_engine_faults.py",
    "test_full_data_directory.py",
    "test_lost_commits.py",
    "test_partitions.py",
    "test_store_faults.py",
    "test_whole_image.py",
)

collect_ignore = [] if os.environ.get("CODEPODS_CHAOS") == "long" else list(LONG)
