#!/bin/sh
# Prints every working CPython >= 3.11 of this machine, one path for each minor version, oldest first.
{
  for minor in 11 12 13 14 15 16; do
    command -v "python3.$minor"
    ls "$HOME"/.pyenv/versions/3."$minor".*/bin/python "$HOME"/.local/share/uv/python/cpython-3."$minor".*/bin/python 2>/dev/null
  done
  command -v python3
  command -v python
} | {
  seen=""
  while IFS= read -r candidate; do
    minor=$("$candidate" -c 'import sys, venv, ensurepip; v = sys.version_info; print(v[1] if v[0] == 3 and v[1] >= 11 else "")' 2>/dev/null </dev/null)
    [ -n "$minor" ] || continue
    case " $seen " in *" $minor "*) continue ;; esac
    seen="$seen $minor"
    echo "$minor $candidate"
  done
} | sort -n | cut -d' ' -f2-
