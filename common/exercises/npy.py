"""NumPy's .npy files as ./run reads and writes them (common/npy.h), with the standard library alone."""
import ast
import struct

DESCRS = {"fp32": "<f4", "fp16": "<f2", "bf16": "<u2"}  # bf16 as bit patterns, which NumPy has no name for


def packed(values, dtype):
    if dtype == "bf16":
        return b"".join(struct.pack("<f", x)[2:] for x in values)
    return struct.pack(f"<{len(values)}{'f' if dtype == 'fp32' else 'e'}", *values)


def unpacked(data, descr):
    if descr == DESCRS["bf16"]:
        return [struct.unpack("<f", b"\0\0" + data[i : i + 2])[0] for i in range(0, len(data), 2)]
    size, code = (4, "f") if descr == DESCRS["fp32"] else (2, "e")
    return list(struct.unpack(f"<{len(data) // size}{code}", data))


def npy(descr, shape, data, version=(1, 0), order="False"):
    """The bytes of a file."""
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {tuple(shape)}, }}"
    length_bytes = 2 if version[0] == 1 else 4
    header += " " * (-(8 + length_bytes + len(header) + 1) % 64) + "\n"
    return (b"\x93NUMPY" + bytes(version) + len(header).to_bytes(length_bytes, "little")
            + header.encode("utf-8" if version[0] == 3 else "latin1") + data)


def write_npy(path, shape, values, dtype):
    with open(path, "wb") as f:
        f.write(npy(DESCRS[dtype], shape, packed(values, dtype)))


def read_npy(path):
    """-> (descr, shape, values) of a version 1 file; ValueError where it is none."""
    with open(path, "rb") as f:
        data = f.read()
    try:
        end = 10 + int.from_bytes(data[8:10], "little")
        header = ast.literal_eval(data[10:end].decode("latin1"))
        return header["descr"], header["shape"], unpacked(data[end:], header["descr"])
    except (SyntaxError, TypeError, KeyError, struct.error):
        raise ValueError(f"{path} is no .npy file") from None
