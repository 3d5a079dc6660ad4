#!/usr/bin/env python3
"""Reads a ripcord backup (format 1) without ripcord, by docs/archive-format.md alone.

    read-archive.py KEYFILE BACKUP_FOLDER [-o DUMP] [--no-rows]

Checks every frame, every index and, unless told not to, every row digest; prints what it found as
JSON. With -o, the dump is written for pg_restore, put together where it has several streams (`-` is
standard output, and the JSON then goes to standard error). Needs the packages `cryptography` and
`zstandard`.
"""
import argparse, hashlib, json, pathlib, struct, sys
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
import uuid
import zstandard

FRAME, DATA, INDEX, MANIFEST, MASK = 1 << 20, 0, 2, 4, (1 << 64) - 1
MAX_SEALED = FRAME + FRAME // 256 + 16


def hkdf(secret, info, length=32, salt=None):
    return HKDF(hashes.SHA256(), length, salt, info.encode()).derive(secret)


def siphash128(key, data):
    """SipHash-1-3 with 128 bits of output, as a number."""
    k0, k1 = struct.unpack("<QQ", key)
    a, b = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE
    c, d = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573

    def round_(a, b, c, d):
        a = (a + b) & MASK; b = (b << 13 | b >> 51) & MASK ^ a; a = (a << 32 | a >> 32) & MASK
        c = (c + d) & MASK; d = (d << 16 | d >> 48) & MASK ^ c
        a = (a + d) & MASK; d = (d << 21 | d >> 43) & MASK ^ a
        c = (c + b) & MASK; b = (b << 17 | b >> 47) & MASK ^ c; c = (c << 32 | c >> 32) & MASK
        return a, b, c, d

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        a, b, c, d = round_(a, b, c, d ^ word)
        a ^= word
    c ^= 0xEE
    low = high = 0
    for _ in range(3):
        a, b, c, d = round_(a, b, c, d)
    low, b = a ^ b ^ c ^ d, b ^ 0xDD
    for _ in range(3):
        a, b, c, d = round_(a, b, c, d)
    return low | (a ^ b ^ c ^ d) << 64


def frames(file, section, subkey, salt, lineage, backup, stream, extra=b""):
    """The plaintext of each frame of a section, and the length that it takes in the file."""
    cipher, counter, last = AESGCM(hkdf(subkey, "ripcord/1/salted", salt=salt)), 0, False
    while not last:
        header = file.read(17)
        assert len(header) == 17, f"cut off before or in the header of frame {counter}"
        length, kind, number, mark = struct.unpack("<IBI8s", header)
        assert mark == salt[:8], f"frame {counter} belongs to another stream"
        assert kind <= MANIFEST + 1, f"frame {counter} has the unknown kind {kind}"
        assert kind & ~1 == section, f"the last frame is missing: another section begins at frame {counter}"
        assert number == counter, f"frame {number} stands at the place of frame {counter}"
        assert 16 < length <= MAX_SEALED, f"frame {counter} has an impossible length"
        last = bool(kind & 1)
        bound = struct.pack("<I16s16sIBI", 1, lineage, backup, stream, kind, counter) + extra
        nonce = struct.pack("<III", stream, counter, last)
        stored = file.read(length)
        assert len(stored) == length, f"cut off within frame {counter}"
        try:
            compressed = cipher.decrypt(nonce, stored, bound)
        except InvalidTag:
            raise AssertionError(f"frame {counter} is not authentic") from None
        plain = zstandard.ZstdDecompressor().decompress(compressed, max_output_size=FRAME)
        assert 0 < len(plain) <= FRAME and (last or len(plain) == FRAME), f"frame {counter} has an odd size"
        yield plain, 17 + length
        counter += 1


def read_part(file, path):
    """A length, and as many bytes; nothing is allocated for more than the file has."""
    length = file.read(4)
    assert len(length) == 4, "the manifest is cut off"
    (length,) = struct.unpack("<I", length)
    assert length <= path.stat().st_size - file.tell(), "the manifest is cut off"
    return file.read(length)


def read_json(text, what):
    try:
        return json.loads(text)
    except ValueError:
        raise AssertionError(f"the {what} of the manifest is not readable") from None


def read_manifest(path, master):
    with open(path, "rb") as file:
        assert file.read(8) == b"ripcman\n", "not a manifest"
        format_ = int.from_bytes(file.read(4), "little")
        assert format_ == 1, f"format {format_}"
        clear_json = read_part(file, path)
        clear, wraps = read_json(clear_json, "clear part"), read_json(read_part(file, path), "list of wrapped keys")
        assert clear["format"] == 1 and clear["kind"] == "dump", "a format or a kind that this reader does not know"
        lineage, backup = uuid.UUID(clear["lineage"]).bytes, uuid.UUID(clear["backup"]).bytes
        key_id = hkdf(master, "ripcord/1/key-id", 8).hex()
        wrap = next((wrap for wrap in wraps if wrap["key_id"] == key_id), None)
        assert wrap, f"the key {key_id} is not among {[wrap['key_id'] for wrap in wraps]}"
        try:
            data_key = AESGCM(hkdf(master, "ripcord/1/wrap")).decrypt(
                bytes.fromhex(wrap["nonce"]), bytes.fromhex(wrap["sealed"]), struct.pack("<I", 1) + backup + key_id.encode())
        except (InvalidTag, ValueError):
            raise AssertionError(f"the data key does not open with key {key_id}") from None
        salt, extra = file.read(32), hashlib.sha256(clear_json).digest()
        parts = frames(file, MANIFEST, hkdf(data_key, "ripcord/1/manifest"), salt, lineage, backup, 0, extra)
        sealed = json.loads(b"".join(plain for plain, _ in parts))
        assert file.read(1) == b"", "something follows the manifest"
    for field in ("lineage", "backup", "created_at"):
        assert clear[field] == sealed[field], f"clear and sealed part disagree on {field}"
    return clear, sealed, data_key, lineage, backup


def read_stream(path, record, data_key, lineage, backup):
    with open(path, "rb") as file:
        header = file.read(84)
        assert len(header) == 84, f"the header is cut off after {len(header)} bytes"
        expected = struct.pack("<8sI16s16sII", b"ripcord\n", 1, lineage, backup, record["number"], FRAME)
        assert header[:52] == expected, "the header is not the one of this stream"
        bind = header[52:], lineage, backup, record["number"]
        data = list(frames(file, DATA, hkdf(data_key, "ripcord/1/frames"), *bind))
        index = json.loads(b"".join(plain for plain, _ in frames(file, INDEX, hkdf(data_key, "ripcord/1/index"), *bind)))
        assert file.read(1) == b"", "something follows the index"
    dump = b"".join(plain for plain, _ in data)
    assert index == record["index"], "the index is not the manifest's"
    assert index["frames"] == [length for _, length in data] and index["raw_bytes"] == len(dump), "the index is wrong"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"], "the stored bytes are others"
    return dump, index


def read_int(dump, at):
    """An integer of the dump: sign, four bytes. And where it ends."""
    (value,) = struct.unpack_from("<I", dump, at + 1)
    return (-value if dump[at] else value), at + 5


def read_chunks(dump, at):
    chunks = []
    while True:
        length, at = read_int(dump, at)
        if length == 0:
            return b"".join(chunks), at
        chunks.append(dump[at:at + length])
        at += length


def digest_block(dump, block, key):
    hashed, (number, at) = [], read_int(dump, block["start"] + 1)
    assert number == block["dump_id"] and dump[block["start"]] == (3 if block["large_objects"] else 1), "another block"
    if block["large_objects"]:
        while True:
            oid, at = read_int(dump, at)
            if oid == 0:
                break
            content, at = read_chunks(dump, at)
            hashed.append(siphash128(key, struct.pack("<Q", oid & 0xFFFFFFFF) + content))
    else:
        text, at = read_chunks(dump, at)
        rows, closing = text[:block["data_bytes"]], text[block["data_bytes"]:]
        assert closing.startswith(b"\\.\n") and not closing[3:].strip(b"\n"), "the rows do not end with \\."
        hashed = [siphash128(key, row) for row in rows.split(b"\n")[:-1]]
    assert at == block["end"], "the block ends elsewhere"
    return {"rows": len(hashed), "sum": f"{sum(hashed) % (1 << 128):032x}"}


def read_string(dump, at):
    length, at = read_int(dump, at)
    return (None, at) if length < 0 else (dump[at:at + length], at + length)


def write_int(value):
    return struct.pack("<BI", value < 0, abs(value))


def read_contents(dump):
    """Where the number of entries stands, and the entries: the bytes before and behind the dependencies, and
    what is needed to know what they are."""
    minor, offset_bytes, at = dump[6], dump[9], 11
    at += 5 if minor == 14 else 1
    at += 7 * 5
    for _ in range(3):
        _, at = read_string(dump, at)
    count_at, entries = at, []
    count, at = read_int(dump, at)
    for _ in range(count):
        number, after_number = read_int(dump, at)
        _, at = read_int(dump, after_number)
        _, at = read_string(dump, at)
        _, at = read_string(dump, at)
        tag, at = read_string(dump, at)
        kind, at = read_string(dump, at)
        section, at = read_int(dump, at)
        for _ in range(3):
            _, at = read_string(dump, at)
        schema, at = read_string(dump, at)
        for _ in range(2):
            _, at = read_string(dump, at)
        at += 5 if minor >= 16 else 0
        for _ in range(2):
            _, at = read_string(dump, at)
        front, begin, dependency = dump[after_number:at], at, b""
        while dependency is not None:
            dependency, at = read_string(dump, at)
        entries.append({"id": number, "name": (schema, tag), "kind": kind, "section": section, "front": front,
                        "dependencies": dump[begin:at], "back": dump[at:at + 1 + offset_bytes]})
        at += 1 + offset_bytes
    return count_at, entries


def put_together(streams):
    """The one dump that the streams are parts of; a single one stays as it is."""
    (first, index), others = streams[0], streams[1:]
    if not others:
        return first
    count_at, entries = read_contents(first)
    blocks = {block["dump_id"]: first[block["start"]:block["end"]] for block in index["blocks"]}
    tables = {entry["name"]: entry["id"] for entry in entries if entry["kind"] == b"TABLE"}
    rows = [at for at, entry in enumerate(entries) if entry["kind"] == b"TABLE DATA"]
    later = [at for at, entry in enumerate(entries) if entry["section"] in (3, 4)]
    place = rows[-1] + 1 if rows else later[0] if later else len(entries)
    taken, number, added = {entries[at]["name"] for at in rows}, max(entry["id"] for entry in entries), []
    for dump, index in others:
        of = {block["dump_id"]: dump[block["start"]:block["end"]] for block in index["blocks"]}
        for entry in read_contents(dump)[1]:
            if entry["kind"] != b"TABLE DATA":
                continue
            assert entry["name"] not in taken, f"two streams hold the rows of {entry['name']}"
            taken.add(entry["name"])
            number, digits = number + 1, str(tables[entry["name"]]).encode()
            blocks[number] = of[entry["id"]]
            added.append({**entry, "id": number, "dependencies": write_int(len(digits)) + digits + write_int(-1)})
    entries[place:place] = added
    parts = [first[:count_at], write_int(len(entries))]
    for entry in entries:
        parts += [write_int(entry["id"]), entry["front"], entry["dependencies"], entry["back"]]
    for entry in entries:
        if entry["id"] in blocks:
            block = blocks[entry["id"]]
            parts += [block[:1], write_int(entry["id"]), block[6:]]
    return b"".join(parts)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("keyfile", type=pathlib.Path)
    options.add_argument("folder", type=pathlib.Path)
    options.add_argument("-o", "--output", help="where the dump goes")
    options.add_argument("--no-rows", action="store_true", help="leave the row digests unchecked (they are slow in Python)")
    given = options.parse_args()
    master = bytes.fromhex(given.keyfile.read_text().strip())
    clear, sealed, data_key, lineage, backup = read_manifest(given.folder / "manifest", master)
    report = {"clear": clear, "sealed": {key: sealed[key] for key in (
        "server_version", "tool_version", "fingerprint", "large_objects", "sequences", "tags")}, "streams": []}
    streams = []
    for record in sealed["streams"]:
        path = given.folder / f"{record['number']}.rip"
        dump, index = read_stream(path, record, data_key, lineage, backup)
        if given.output:
            streams.append((dump, index))
        if not given.no_rows:
            for block in index["blocks"]:
                found = digest_block(dump, block, hkdf(data_key, "ripcord/1/digest", 16))
                assert found == block["digest"], f"the rows of {block['table']} are others: {found}"
        report["streams"].append({
            "number": record["number"], "dump_sha256": hashlib.sha256(dump).hexdigest(), "raw_bytes": len(dump),
            "rows_checked": not given.no_rows,
            "blocks": [{key: block[key] for key in ("namespace", "table", "digest")} for block in index["blocks"]]})
    if given.output:
        whole = put_together(streams)
        sys.stdout.buffer.write(whole) if given.output == "-" else pathlib.Path(given.output).write_bytes(whole)
    print(json.dumps(report, indent=2), file=sys.stderr if given.output == "-" else sys.stdout)


def run():
    try:
        main()
    except AssertionError as error:
        sys.exit(f"error: {error}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        sys.exit(f"error: a field of the manifest is missing or is something else: {error!r}")


if __name__ == "__main__":
    run()
