"""What each kind of chore writes down when it is done or given up.

The one place where kinds are put together.
"""

from collections.abc import Mapping

from state.chores import Applies, nothing_to_do
from state.compactions import COMPACT, COMPACT_APPLIES
from state.copies import COPY_APPLIES
from state.image_sweeps import SURVEY, SURVEY_APPLIES, SWEEP_IMAGES, SWEEP_IMAGES_APPLIES
from state.scrubs import SCRUB, SCRUB_APPLIES
from state.streams import EXPORT, IMPORT, IMPORT_APPLIES, IMPORT_IMAGE, IMPORT_IMAGE_APPLIES
from state.sweeps import SWEEP, SWEEP_APPLIES, TIDY, TIDY_APPLIES

APPLIES: Mapping[str, Applies] = {
    COMPACT: COMPACT_APPLIES,
    SCRUB: SCRUB_APPLIES,
    SWEEP: SWEEP_APPLIES,
    SWEEP_IMAGES: SWEEP_IMAGES_APPLIES,
    SURVEY: SURVEY_APPLIES,
    TIDY: TIDY_APPLIES,
    **COPY_APPLIES,
    # Whoever asked is told at once; nobody else has to look.
    EXPORT: Applies(failed=nothing_to_do),
    IMPORT: IMPORT_APPLIES,
    IMPORT_IMAGE: IMPORT_IMAGE_APPLIES,
}
