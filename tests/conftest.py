"""What every test finds."""

from __future__ import annotations

import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, and their children with
# them; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)
