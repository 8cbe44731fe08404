"""How long tests wait for what must come: generous, because machines of a build farm are slow and starved.

What must not live here: waits for what must not come.
"""

from __future__ import annotations

import os

#: Seconds. A run that expects failures (``make quirks``) cannot wait that long for each.
PATIENCE = float(os.environ.get("RAGATE_TEST_PATIENCE", "60"))
