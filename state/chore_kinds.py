"""What each kind of chore writes down when it is done or given up.

The one place where kinds are put together.
"""

from collections.abc import Mapping

from state.chores import Applies

APPLIES: Mapping[str, Applies] = {}
