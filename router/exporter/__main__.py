"""Runs the exporter as a child of `serve`. It lowers its priority before the slow imports."""

from router.exporter.priority import lower_priority

if __name__ == "__main__":
    lower_priority()
    from router.exporter.shipping import main

    raise SystemExit(main(attached=True))
