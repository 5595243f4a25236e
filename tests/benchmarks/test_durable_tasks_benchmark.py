"""The benchmark of durable tasks: each row is measured to the end of what it accepted."""

from benchmarks.durable_tasks import AT_ONCE, main


def test_each_row_is_measured(capsys, tmp_path):
    main(["--calls", "4", "--folder", str(tmp_path)])
    _, *rows = capsys.readouterr().out.splitlines()
    assert [int(row.split()[0]) for row in rows] == list(AT_ONCE)
