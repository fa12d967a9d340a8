"""Weight files made to be refused, each with the code of the rule it breaks.

Whatever takes a safetensors file (parser, import, upload, mirror) can be held against this list.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

MEGABYTE = 1_000_000
FOUR = b"\0\0\0\0"
_FIELDS = "weights.tensor-fields"


class Case(NamedTuple):
    """A file's name in reports, its bytes, and the code it must be refused with."""

    name: str
    data: bytes
    code: str


def file_of(header: str | bytes | dict[str, Any], data: bytes = b"", *, length: int | None = None):
    """Return a safetensors file of this header; ``length`` lies about the header's length."""
    if isinstance(header, dict):
        header = json.dumps(header)
    raw = header.encode() if isinstance(header, str) else header
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(*shape: int, begin: int = 0, dtype: str = "F32", end: int | None = None) -> dict:
    """Return what a header states about one tensor; the end follows from the shape."""
    size = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "BF16": 2}.get(dtype, 1)
    for dimension in shape:
        size *= dimension
    offsets = [begin, begin + size if end is None else end]
    return {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}


def _framing() -> list[Case]:
    good = file_of({"a": entry(1)}, FOUR)
    return [
        Case("nothing at all", b"", "weights.truncated"),
        Case("half a length", good[:5], "weights.truncated"),
        Case("a length and no header", good[:8], "weights.truncated"),
        Case("a header cut short", good[:20], "weights.truncated"),
        Case("a tensor cut short", good[:-1], "weights.truncated"),
        Case("no tensor bytes", good[:-4], "weights.truncated"),
        Case("one byte too many", good + b"\0", "weights.trailing-bytes"),
        Case("a program behind the last tensor", good + b"\x7fELF" * 99, "weights.trailing-bytes"),
        Case("the longest length", file_of(b"{}", length=2**64 - 1), "weights.header-too-large"),
        Case("a header of 100 MB", file_of(b"{}", length=10**8), "weights.header-too-large"),
        Case(
            "one byte over a megabyte",
            file_of(b"{" + b" " * (MEGABYTE - 1) + b"}"),
            "weights.header-too-large",
        ),
        Case("a length one too large", file_of(b"{}", length=3), "weights.truncated"),
        Case("a length one too small", file_of(b'{"a":{}}', length=7), "weights.not-json"),
        Case("a header of no bytes", file_of(b""), "weights.not-an-object"),
        Case("a pickle", b"\x80\x02}q\x00." + b"\0" * 64, "weights.header-too-large"),
        Case("a zip archive", b"PK\x03\x04" + b"\0" * 64, "weights.header-too-large"),
    ]


def _json() -> list[Case]:
    one = json.dumps(entry(1))
    return [
        Case("not JSON", file_of(b"{nonsense}"), "weights.not-json"),
        Case("a list", file_of(b"[]"), "weights.not-an-object"),
        Case("a string", file_of(b'"a"'), "weights.not-an-object"),
        Case("a space first", file_of(b' {"a":1}'), "weights.not-an-object"),
        Case("a byte order mark", file_of(b'\xef\xbb\xbf{"a":1}'), "weights.not-an-object"),
        Case("UTF-16", file_of('{"a":1}'.encode("utf-16-le")), "weights.not-json"),
        Case("not UTF-8", file_of(b'{"\xff\xfe":1}'), "weights.not-utf8"),
        Case("an overlong slash", file_of(b'{"\xc0\xaf":1}'), "weights.not-utf8"),
        Case("a surrogate in UTF-8", file_of(b'{"\xed\xa0\x80":1}'), "weights.not-utf8"),
        Case("two objects", file_of(b"{}{}"), "weights.not-json"),
        Case("NUL behind the object", file_of(b"{}\0\0"), "weights.not-json"),
        Case("a comma too many", file_of(f'{{"a":{one},}}', FOUR), "weights.not-json"),
        Case("a comment", file_of(f'{{"a":{one}/**/}}', FOUR), "weights.not-json"),
        Case("NaN", file_of('{"a":NaN}'), "weights.not-json"),
        Case("minus Infinity", file_of('{"a":-Infinity}'), "weights.not-json"),
        Case("a line break in a string", file_of('{"a\n":1}'), "weights.not-json"),
        Case("a tensor twice", file_of(f'{{"a":{one},"a":{one}}}', FOUR), "weights.duplicate-key"),
        Case(
            "a tensor twice, once escaped",
            file_of(f'{{"a":{one},"\\u0061":{one}}}', FOUR),
            "weights.duplicate-key",
        ),
        Case(
            "a shape twice",
            file_of('{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', FOUR),
            "weights.duplicate-key",
        ),
        Case(
            "metadata twice",
            file_of(f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{one}}}', FOUR),
            "weights.duplicate-key",
        ),
        Case(
            "a metadata key twice",
            file_of(f'{{"__metadata__":{{"k":"1","k":"2"}},"a":{one}}}', FOUR),
            "weights.duplicate-key",
        ),
        Case("nested 900 deep", file_of('{"a":' + "[" * 900 + "]" * 900 + "}"), _FIELDS),
        Case("nested 60,000 deep", file_of('{"a":' + "[" * 60_000 + "}"), "weights.too-deep"),
        Case(
            "nested as deep as fits", file_of('{"a":' + "[" * 999_000), "weights.too-many-tensors"
        ),
        Case("a number of a megabyte", file_of('{"a":' + "9" * 999_000 + "}"), "weights.number"),
        Case("a fraction of a megabyte", file_of('{"a":0.' + "1" * 999_000 + "}"), _FIELDS),
        Case(
            "a third of a million empty objects",
            file_of('{"a":[' + "{}," * 333_000 + "{}]}"),
            "weights.too-many-tensors",
        ),
    ]


def _counts() -> list[Case]:
    many = {f"t{n}": entry(1, begin=4 * n) for n in range(5_001)}
    crowd = {f"k{n}": "" for n in range(14_000)}
    return [
        Case("no tensors", file_of(b"{}"), "weights.no-tensors"),
        Case("metadata alone", file_of({"__metadata__": {"format": "pt"}}), "weights.no-tensors"),
        Case("5,001 tensors", file_of(many, FOUR * 5_001), "weights.too-many-tensors"),
        Case("100,000 keys", _keys(100_000), "weights.too-many-tensors"),
        *(
            Case(f"metadata: {name}", file_of({"__metadata__": value, "a": entry(1)}, FOUR), code)
            for name, value, code in (
                ("a list", ["pt"], "weights.metadata"),
                ("null", None, "weights.metadata"),
                ("a number inside", {"epoch": 3}, "weights.metadata"),
                ("null inside", {"epoch": None}, "weights.metadata"),
                ("an object inside", {"config": {}}, "weights.metadata"),
                ("half a surrogate pair", {"a": "\ud800"}, "weights.metadata"),
                ("half a pair as key", {"\udfff": "a"}, "weights.metadata"),
                ("one byte over 64 KiB", {"k": "x" * 65_536}, "weights.metadata-too-large"),
                ("64 Ki characters of 4 bytes", {"k": "🙂" * 17_000}, "weights.metadata-too-large"),
                ("14,000 keys", crowd, "weights.metadata-too-large"),
            )
        ),
    ]


def _keys(count: int) -> bytes:
    return file_of("{" + ",".join(f'"{n}":1' for n in range(count)) + "}")


def _names() -> list[Case]:
    names = {
        "no name": "",
        "a path upwards": "../../etc/passwd",
        "an absolute path": "/etc/passwd",
        "a Windows path": "C:\\boot.ini",
        "NUL": "a\0b",
        "markup": "<script>alert(1)</script>",
        "a line break at the end": "wte.weight\n",
        "a terminal escape": "\x1b[2Jwte",
        "a space": "wte weight",
        "201 letters": "a" * 201,
        "a megabyte of letters": "a" * 900_000,
        "a letter of another script": "wte.wеight",  # Cyrillic е
        "a right-to-left mark": "wte\u202eweight",
        "full-width digits": "h.１.weight",
        "half a surrogate pair": "\ud800",
        "a quote": 'a"b',
        "a colon": "a:b",
    }
    return [
        Case(f"called: {name}", file_of({text: entry(1)}, FOUR), "weights.tensor-name")
        for name, text in names.items()
    ]


def _entries() -> list[Case]:
    plain = entry(1)
    without = [{k: v for k, v in plain.items() if k != left} for left in plain]
    odd: list[tuple[str, Any, str]] = [
        ("null", None, _FIELDS),
        ("a list", [], _FIELDS),
        ("a number", 7, _FIELDS),
        ("empty", {}, _FIELDS),
        ("no dtype", without[0], _FIELDS),
        ("no shape", without[1], _FIELDS),
        ("no offsets", without[2], _FIELDS),
        ("a field more", plain | {"code": "x"}, _FIELDS),
        ("F64", entry(1, dtype="F64"), "weights.dtype"),
        ("I64", entry(1, dtype="I64"), "weights.dtype"),
        ("F8_E4M3", entry(4, dtype="F8_E4M3"), "weights.dtype"),
        ("U8 that is no mask", entry(4, dtype="U8"), "weights.dtype"),
        ("a dtype in small letters", plain | {"dtype": "f32"}, "weights.dtype"),
        ("a dtype that is null", plain | {"dtype": None}, "weights.dtype"),
        ("a dtype that is a list", plain | {"dtype": ["F32"]}, "weights.dtype"),
        ("half a pair as dtype", plain | {"dtype": "\ud800"}, "weights.dtype"),
        ("a negative dimension", plain | {"shape": [-1, -1]}, "weights.shape"),
        ("true as a dimension", plain | {"shape": [True]}, "weights.shape"),
        ("1.0 as a dimension", plain | {"shape": [1.0]}, "weights.shape"),
        ("'1' as a dimension", plain | {"shape": ["1"]}, "weights.shape"),
        ("a dimension of 2**64", plain | {"shape": [2**64]}, "weights.shape"),
        ("a dimension of 4,000 digits", plain | {"shape": [10**4000]}, "weights.shape"),
        ("a shape that is a number", plain | {"shape": 1}, "weights.shape"),
        ("nine dimensions", plain | {"shape": [1] * 9}, "weights.shape"),
        ("a product that overflows", plain | {"shape": [2**33, 2**33]}, "weights.size-mismatch"),
        ("a product that wraps to 1", plain | {"shape": [2**32 + 1] * 2}, "weights.size-mismatch"),
        ("no elements", entry(0), "weights.zero-size"),
        ("no elements in a large shape", entry(2**40, 0), "weights.zero-size"),
        ("one offset", plain | {"data_offsets": [0]}, "weights.offsets"),
        ("three offsets", plain | {"data_offsets": [0, 4, 8]}, "weights.offsets"),
        ("offsets in an object", plain | {"data_offsets": {"0": 4}}, "weights.offsets"),
        ("a negative offset", plain | {"data_offsets": [-4, 0]}, "weights.offsets"),
        ("true as an offset", plain | {"data_offsets": [False, 4]}, "weights.offsets"),
        ("4.0 as an offset", plain | {"data_offsets": [0, 4.0]}, "weights.offsets"),
        ("an offset of 2**63", plain | {"data_offsets": [0, 2**63]}, "weights.offsets"),
        (
            "a huge fraction as an offset",
            plain | {"data_offsets": [0, float("1e308")]},
            "weights.offsets",
        ),
        ("offsets backwards", plain | {"data_offsets": [4, 0]}, "weights.size-mismatch"),
        ("a size that is not the shape's", entry(1, end=3), "weights.size-mismatch"),
        ("bytes beyond the file", entry(2**40), "weights.truncated"),
    ]
    return [Case(f"a tensor: {n}", file_of({"a": e}, FOUR), code) for n, e, code in odd]


def _layouts() -> list[Case]:
    layouts: list[tuple[str, dict[str, Any], int, str]] = [
        ("a hole before the first", {"a": entry(1, begin=4)}, 8, "weights.hole"),
        ("a hole between", {"a": entry(1), "b": entry(1, begin=8)}, 12, "weights.hole"),
        ("a hole of one byte", {"a": entry(1), "b": entry(1, begin=5)}, 9, "weights.hole"),
        ("the same bytes twice", {"a": entry(1), "b": entry(1)}, 4, "weights.overlap"),
        ("an overlap", {"a": entry(2), "b": entry(1, begin=4)}, 8, "weights.overlap"),
        ("one inside another", {"a": entry(4), "b": entry(1, begin=4)}, 16, "weights.overlap"),
        (
            "an overlap hidden by order",
            {"b": entry(1, begin=3), "a": entry(1)},
            7,
            "weights.overlap",
        ),
    ]
    return [
        Case(f"a layout: {name}", file_of(header, b"\0" * size), code)
        for name, header, size, code in layouts
    ]


def hostile_safetensors() -> list[Case]:
    """Return every case; names are unique."""
    return [*_framing(), *_json(), *_counts(), *_names(), *_entries(), *_layouts()]
