"""Notes, checkpoints and proofs are written as foreign tools write them, and read strictly."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.ledger import notes

# The example that Go's golang.org/x/mod/sumdb/note documents and tests itself with.
GO_SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_SIGNED = (
    "\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
GO_NOTE = f"{GO_TEXT}\n{GO_SIGNED}"
# The same note signed by a second key, whose line a verifier of the first must pass over.
GO_SECOND = (
    "\u2014 EnochRoot "
    "rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)

# Fixed, since parameters made from it must be the same in every process that runs the tests.
SKEY = "PRIVATE+KEY+log.example/one+be6ef7a5+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
VKEY = notes.vkey_of(SKEY)
ROOT = bytes(range(32))
CHECKPOINT = notes.Checkpoint("log.example/one", 7, ROOT)
NOTE = notes.sign(CHECKPOINT.body(), SKEY)
PROOF = notes.write_proof(3, [bytes(32), ROOT], NOTE)

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- keys and notes -----------------------------------------------------------------------------


def test_the_documented_example_of_go_is_reproduced_byte_for_byte():
    assert notes.vkey_of(GO_SKEY) == GO_VKEY
    assert notes.key_name(GO_VKEY) == "PeterNeumann"
    assert notes.sign(GO_TEXT, GO_SKEY) == GO_NOTE
    assert notes.verify(GO_NOTE, GO_VKEY) == GO_TEXT


@pytest.mark.parametrize("note", [GO_NOTE + GO_SECOND, f"{GO_TEXT}\n{GO_SECOND}{GO_SIGNED}"])
def test_signatures_of_other_keys_are_passed_over(note):
    assert notes.verify(note, GO_VKEY) == GO_TEXT
    assert {s.name for s in notes.parse_note(note).signatures} == {"PeterNeumann", "EnochRoot"}


@given(st.lists(texts, min_size=1, max_size=5))
def test_what_is_signed_verifies_and_comes_back_whole(lines):
    text = "\n".join(lines) + "\n"
    assert notes.verify(notes.sign(text, SKEY), VKEY) == text


def test_a_text_may_hold_empty_lines_and_even_a_signature_of_its_own():
    text = f"first\n\n\n{NOTE}"
    assert notes.verify(notes.sign(text, SKEY), VKEY) == text


@given(st.integers(0, 8 * len(NOTE.encode()) - 1))
def test_a_note_with_any_one_bit_flipped_is_refused(bit):
    bent = bytearray(NOTE.encode())
    bent[bit // 8] ^= 1 << bit % 8
    with pytest.raises(notes.NoteRefused):
        notes.open_checkpoint(bent.decode(errors="surrogateescape"), VKEY)


def test_every_one_bit_flip_in_every_character_is_refused():
    refused = 0
    for at, character in enumerate(NOTE):
        for bit in range(7):
            bent = NOTE[:at] + chr(ord(character) ^ 1 << bit) + NOTE[at + 1 :]
            with pytest.raises(notes.NoteRefused):
                notes.open_checkpoint(bent, VKEY)
            refused += 1
    assert refused == 7 * len(NOTE)


@pytest.mark.parametrize("cut", range(1, len(NOTE)))
def test_a_note_cut_short_is_refused(cut):
    with pytest.raises(notes.NoteRefused):
        notes.verify(NOTE[:cut], VKEY)


def test_another_key_of_the_same_name_has_not_signed():
    _, other = notes.generate_key("log.example/one")
    with pytest.raises(notes.NoteRefused, match="not signed by"):
        notes.verify(NOTE, other)


def test_a_false_signature_beside_a_true_one_of_the_same_key_refuses_the_note():
    line = NOTE.split("\n")[-2]
    name, blob = line.split(" ")[1:]
    false = base64.b64decode(blob)[:4] + bytes(64)
    with pytest.raises(notes.NoteRefused, match="does not hold"):
        notes.verify(f"{NOTE}\u2014 {name} {b64(false)}\n", VKEY)


@pytest.mark.parametrize(
    "line",
    [
        "\n",
        "garbage\n",
        "- dash AAAAAAA=\n",
        "\u2014 name\n",
        "\u2014  AAAAAAA=\n",
        "\u2014 na+me AAAAAAA=\n",
        "\u2014 na\u00a0me AAAAAAA=\n",
        "\u2014 name AAAA\n",
        "\u2014 name AAAAAA==\n",
        "\u2014 name AAAAAAB=\n",
        "\u2014 name AAAAAAA\n",
        "\u2014 name AAAAAAA= \n",
        "\u2014 name AAAAAAA=",
        "\u2014 name AAAAAAA=\r\n",
        "\u2014 name AAAAAAA=\n" * 100,
        "\u2014 name " + "A" * 1_000_000 + "\n",
    ],
)
def test_a_malformed_line_after_a_true_signature_refuses_the_note(line):
    assert notes.verify(NOTE, VKEY) == CHECKPOINT.body()
    with pytest.raises(notes.NoteRefused):
        notes.verify(NOTE + line, VKEY)


def test_sixteen_signatures_are_accepted_as_the_specification_demands():
    note = NOTE
    for n in range(15):
        other, _ = notes.generate_key(f"witness.example/{n}")
        note += notes.sign(CHECKPOINT.body(), other).split("\n\n")[1]
    assert notes.open_checkpoint(note, VKEY) == CHECKPOINT


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u2003b", "a\nb", "a\tb", "a\x01b", "\ud800"])
def test_a_name_that_cannot_be_a_key_name_is_refused(name):
    with pytest.raises(notes.NoteRefused):
        notes.generate_key(name)


@pytest.mark.parametrize("text", ["", "no newline", "tab\there\n", "return\r\n", "\ud800\n"])
def test_a_text_that_cannot_be_a_note_is_not_signed(text):
    with pytest.raises(notes.NoteRefused):
        notes.sign(text, SKEY)


@given(st.integers(0, 8 * len(VKEY) - 1))
def test_a_verifier_key_with_any_one_bit_flipped_verifies_nothing(bit):
    bent = bytearray(VKEY.encode())
    bent[bit // 8] ^= 1 << bit % 8
    with pytest.raises(notes.NoteRefused):
        notes.verify(NOTE, bent.decode(errors="surrogateescape"))


@pytest.mark.parametrize(
    "key",
    [
        "",
        "name",
        "name+00000000",
        "name+00000000+AAAA",
        "name+00000000+" + b64(b"\x01" + ROOT),
        "name+00000000+" + b64(b"\x04" + ROOT),
        VKEY.replace("+", " "),
        VKEY + "\n",
        VKEY.upper(),
        SKEY,
    ],
)
def test_what_is_no_verifier_key_is_refused(key):
    with pytest.raises(notes.NoteRefused):
        notes.verify(NOTE, key)
    with pytest.raises(notes.NoteRefused):
        notes.key_name(key)


@pytest.mark.parametrize(
    "key",
    [
        "",
        VKEY,
        "PRIVATE+KEY+name+00000000+" + b64(b"\x01" + ROOT),
        "PRIVATE+KEY+name+00000000+" + b64(b"\x02" + ROOT),
        SKEY.replace("PRIVATE", "PUBLIC"),
        SKEY[:-4],
        SKEY + "\n",
        SKEY.replace("log.example/one", "log.example/two"),
    ],
)
def test_what_is_no_private_key_is_refused(key):
    with pytest.raises(notes.NoteRefused):
        notes.vkey_of(key)


# --- checkpoints --------------------------------------------------------------------------------


@given(texts.filter(bool), st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_comes_back_as_it_was_written(origin, size, root):
    checkpoint = notes.Checkpoint(origin, size, root)
    assert notes.parse_checkpoint(checkpoint.body()) == checkpoint


def test_extension_lines_are_allowed_and_ignored():
    assert notes.parse_checkpoint(CHECKPOINT.body() + "extension\n") == CHECKPOINT


@pytest.mark.parametrize(
    "size", ["", "-1", "+1", "01", "00", "1.0", "1e3", " 1", "1 ", "0x1", "1_0", "\u0661"]
)
def test_a_size_has_one_spelling(size):
    with pytest.raises(notes.NoteRefused):
        notes.parse_checkpoint(f"o\n{size}\n{b64(ROOT)}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n\n",
        f"o\n7\n{b64(ROOT)}",
        f"\n7\n{b64(ROOT)}\n",
        "o\n7\n\n",
        f"o\n{2**63}\n{b64(ROOT)}\n",
        f"o\n{'9' * 5000}\n{b64(ROOT)}\n",
        f"o\n7\n{b64(ROOT[:31])}\n",
        f"o\n7\n{b64(ROOT)[:-1]}\n",
        f"o\n7\n{b64(ROOT)}\n\n",
        f"o\n7\n{b64(ROOT)}\n\nextension\n",
        f"o\r\n7\r\n{b64(ROOT)}\r\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text):
    with pytest.raises(notes.NoteRefused):
        notes.parse_checkpoint(text)


def test_a_checkpoint_of_another_log_is_refused_even_when_our_key_signed_it():
    other = notes.Checkpoint("log.example/two", 7, ROOT)
    with pytest.raises(notes.NoteRefused, match=r"log\.example/two"):
        notes.open_checkpoint(notes.sign(other.body(), SKEY), VKEY)


# --- proofs -------------------------------------------------------------------------------------


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.none() | st.binary(max_size=50),
)
def test_a_proof_comes_back_as_it_was_written(idx, hashes, extra):
    text = notes.write_proof(idx, hashes, NOTE, extra=extra)
    assert notes.parse_proof(text) == (idx, hashes, NOTE)


def test_a_proof_is_spelled_as_the_specification_spells_it():
    lines = PROOF.split("\n")
    assert lines[:5] == ["c2sp.org/tlog-proof@v1", "index 3", b64(bytes(32)), b64(ROOT), ""]
    assert "\n".join(lines[5:]) == NOTE
    assert notes.write_proof(0, [], NOTE, extra=b"x").split("\n")[1:3] == ["extra eA==", "index 0"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        NOTE,
        PROOF.replace("@v1", "@v2"),
        PROOF.replace("\n", "\r\n"),
        PROOF.replace("index 3", "index 03"),
        PROOF.replace("index 3", "index -3"),
        PROOF.replace("index 3", "index"),
        PROOF.replace("index 3", f"index {2**63}"),
        PROOF.replace("index 3\n", ""),
        PROOF.replace("index 3", "index 3\nindex 3"),
        PROOF.replace("index 3", "index 3\nextra AA=="),
        PROOF.replace("index 3", "extra A\nindex 3"),
        PROOF.replace("index 3", "extra AA==\nextra AA==\nindex 3"),
        PROOF.replace(b64(ROOT), b64(ROOT[:31])),
        PROOF.replace(b64(ROOT), b64(ROOT) + b64(ROOT), 1),
        PROOF.replace(b64(ROOT), b64(ROOT)[:-2] + "9=", 1),
        notes.write_proof(3, [ROOT] * 64, NOTE),
        PROOF.split("\n\n")[0],
    ],
)
def test_what_is_no_proof_is_refused(text):
    with pytest.raises(notes.NoteRefused):
        notes.parse_proof(text)


# --- hostile input ------------------------------------------------------------------------------


@given(st.text(st.characters(), max_size=200), st.integers(0, len(PROOF)), st.integers(0, 60))
def test_hostile_text_is_refused_and_never_crashes(noise, at, length):
    for base in (PROOF, NOTE, CHECKPOINT.body(), VKEY, SKEY, ""):
        text = base[:at] + noise + base[at + length :]
        for read in (
            notes.parse_note,
            notes.parse_checkpoint,
            notes.parse_proof,
            notes.vkey_of,
            notes.key_name,
            lambda t: notes.verify(t, VKEY),
            lambda t: notes.verify(NOTE, t),
            lambda t: notes.sign(t, SKEY),
        ):
            with suppress(notes.NoteRefused):  # any other exception fails the test
                read(text)
