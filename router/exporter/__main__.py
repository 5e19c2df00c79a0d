"""Runs the exporter as a child of `serve`. It lowers its priority before the slow imports.

Ctrl-C in a terminal reaches all processes. This one ignores it: `serve` finishes its requests first, then ends it.
"""

import signal

from router.exporter.priority import lower_priority

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lower_priority()
    from router.exporter.shipping import main

    raise SystemExit(main(attached=True))
