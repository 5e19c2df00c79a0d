"""The exporter as `serve` starts it: it gives way before it imports what takes long, as the server starts beside it."""

from router.exporter.priority import yield_processor

if __name__ == "__main__":
    yield_processor()
    from router.exporter.shipping import main

    raise SystemExit(main(attached=True))
