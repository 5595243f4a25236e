"""What is not installed is not offered; what is too old is as good as not installed."""

import subprocess
import sys
from types import ModuleType

import pytest

from perf_middleware.compression.drivers.available import (
    available_codecs,
    available_decoding_codecs,
)
from perf_middleware.compression.drivers.brotli import BrotliCodec
from perf_middleware.compression.drivers.gzip import GzipCodec
from perf_middleware.compression.drivers.zstd import _LIBRARY


def names(codecs):
    return [codec.name for codec in codecs]


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        pytest.param([], ["zstd", "br", "gzip"], id="all there"),
        pytest.param(["brotli"], ["zstd", "gzip"], id="no brotli"),
        pytest.param([_LIBRARY], ["br", "gzip"], id="no zstd"),
        pytest.param(["isal.isal_zlib", "zlib_ng.zlib_ng"], ["zstd", "br", "gzip"], id="zlib"),
        pytest.param(
            ["brotli", _LIBRARY, "isal.isal_zlib", "zlib_ng.zlib_ng"], ["gzip"], id="none of them"
        ),
    ],
)
def test_what_is_missing_is_not_offered(monkeypatch, missing, left):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises ImportError
    assert names(available_codecs()) == left
    assert names(available_decoding_codecs()) == [*left, "deflate"]


def test_only_what_is_named_is_offered_and_imported(monkeypatch):
    assert names(available_codecs(["gzip", "zstd"])) == ["gzip", "zstd"]
    assert names(available_decoding_codecs(["deflate", "br"])) == ["deflate", "br"]

    def imported(name):
        raise AssertionError(name)

    monkeypatch.setattr("perf_middleware.compression.drivers.brotli.import_module", imported)
    assert names(available_codecs(["zstd", "gzip"])) == ["zstd", "gzip"]


@pytest.mark.parametrize("name", ["deflate", "brotli", "identity", "GZIP"])
def test_what_is_no_coding_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' is no coding: zstd, br, gzip"):
        available_codecs(["gzip", name])


def test_a_brotli_that_cannot_limit_its_output_is_not_offered(monkeypatch):
    old = ModuleType("brotli")
    old.Decompressor = type("Decompressor", (), {})
    monkeypatch.setitem(sys.modules, "brotli", old)
    with pytest.raises(ImportError, match=r"before 1\.2"):
        BrotliCodec()
    assert names(available_codecs()) == ["zstd", "gzip"]


def test_gzip_without_its_libraries_is_that_of_python(monkeypatch):
    for name in ("isal.isal_zlib", "zlib_ng.zlib_ng"):
        monkeypatch.setitem(sys.modules, name, None)
    codec = GzipCodec()
    assert [codec._engine(level)[0].__name__ for level in (1, 6)] == ["zlib", "zlib"]


def test_gzip_takes_the_library_that_is_best_at_a_level(monkeypatch):
    def chosen(codec):
        engines = {level: codec._engine(level) for level in (1, 2, 5, 8, 9)}
        return {level: (library.__name__, own) for level, (library, own) in engines.items()}

    ng = {2: ("zlib_ng.zlib_ng", 2), 5: ("zlib_ng.zlib_ng", 5), 8: ("zlib_ng.zlib_ng", 8),
          9: ("zlib_ng.zlib_ng", 8)}  # fmt: skip
    assert chosen(GzipCodec()) == {1: ("isal.isal_zlib", 2), **ng}
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    assert chosen(GzipCodec()) == {1: ("zlib_ng.zlib_ng", 2), **ng}


LIBRARIES = {"brotli", "_brotli", "isal", "zlib_ng", "backports", "compression"}


def test_importing_the_drivers_imports_no_library():
    code = (
        "import sys, perf_middleware, perf_middleware.compression.drivers.available\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) & LIBRARIES == set()
