"""Hypothesis profiles: `dev` by default, `ci` where CI=true; MINIFCN_HYPOTHESIS_PROFILE chooses another one."""

import os

from hypothesis import settings

settings.register_profile("dev", deadline=None, print_blob=True, max_examples=30)
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True, database=None)
settings.register_profile("deep", parent=settings.get_profile("dev"), max_examples=2000)
settings.load_profile(
    os.environ.get("MINIFCN_HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "dev")
)
