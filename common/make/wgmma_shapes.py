#!/usr/bin/env python3
"""Writes common/kernel/ptx/wgmma_shapes.cuh: wgmma.mma_async for each shape. Only the lists of operands differ.

    python3 common/make/wgmma_shapes.py > common/kernel/ptx/wgmma_shapes.cuh
"""
SHAPES = [64, 80, 96, 128, 160, 176, 192, 256]
TYPES = [("__nv_bfloat16", "bf16"), ("__half", "f16")]


def wrapped(pieces, indent, width=116):
    lines, line = [], indent
    for piece in pieces:
        if len(line) + len(piece) > width:
            lines.append(line.rstrip())
            line = indent
        line += piece
    return "\n".join(lines + [line.rstrip()])


def quoted(pieces, indent, width=104):
    """String literals, one a line."""
    lines, line = [], ""
    for piece in pieces:
        if len(line) + len(piece) > width:
            lines.append(line)
            line = ""
        line += piece
    return "\n".join(f'{indent}"{line}"' for line in lines + [line])


def instruction(n, element, name, from_registers):
    count = n // 2
    if from_registers:
        a, b = "{" + ", ".join(f"%{count + i}" for i in range(4)) + "}", count + 4
        inputs = '"r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kTransB)'
        transposes = f"%{b + 2}"
    else:
        a, b = f"%{count}", count + 1
        inputs = '"l"(a), "l"(b), "r"(accumulate), "n"(kTransA), "n"(kTransB)'
        transposes = f"%{b + 2}, %{b + 3}"
    text = [f"{{.reg .pred p; setp.ne.b32 p, %{b + 1}, 0; ", f"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{name}.{name} {{"]
    text += [f"%{i}, " for i in range(count - 1)] + [f"%{count - 1}}}, ", f"{a}, %{b}, p, 1, 1, {transposes};}}"]
    outputs = [f'"+f"(d[{i}])' + (", " if i + 1 < count else "") for i in range(count)]
    head = ("template <int kTransB>\n  static __device__ __forceinline__ void rs(float (&d)[%d], const uint32_t (&a)[4], "
            "uint64_t b, int accumulate)" if from_registers else
            "template <int kTransA, int kTransB>\n  static __device__ __forceinline__ void ss(float (&d)[%d], uint64_t a, "
            "uint64_t b, int accumulate)") % count
    return f"""  {head} {{
    PTX_SM90A(asm volatile(
{quoted(text, '        ')}
        :
{wrapped(outputs, '        ')}
        : {inputs}));
  }}"""


print("""// Written by common/make/wgmma_shapes.py.
// clang-format off
#pragma once

namespace {
""")
for element, name in TYPES:
    for n in SHAPES:
        print(f"template <>\nstruct Wgmma<{n}, {element}> {{\n{instruction(n, element, name, False)}\n"
              f"{instruction(n, element, name, True)}\n}};\n")
print("}  // namespace")
