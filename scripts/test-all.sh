#!/bin/sh
# Runs the suite on every Python found, each in a virtual environment of its own; fails if any fails.
set -u
tested=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
failed=""
for python in $(sh scripts/find-pythons.sh); do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [ "$version" = "$tested" ] && continue # `make test` has just run on it
  echo "== Python $version"
  venv=".venv-$version"
  { [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"; } &&
    "$venv/bin/python" -m pip --disable-pip-version-check -q install --upgrade pip &&
    "$venv/bin/python" -m pip --disable-pip-version-check -q install -e ".[test,bench]" &&
    "$venv/bin/python" -m pytest || failed="$failed $version"
done
[ -z "$failed" ] || { echo "failed on Python:$failed"; exit 1; }
