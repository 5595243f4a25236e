"""How often tests repeat what they look for the rare in.

`PERF_TEST_MORE=10` makes them ten times as long: for a change of what they are about, or a night.
"""

import os

MORE = int(os.environ.get("PERF_TEST_MORE", "1"))
