// CUDA's vector types. A value of 4, 8 or 16 bytes is copied through one word of its size: on a GPU it is one access,
// and so the watched build must see one (g++ copies a plain struct of four floats as four).
#pragma once

#define EMU_INLINE inline __attribute__((always_inline))

namespace flash::emu {

// Words of the sizes a thread can load or store at once; they may alias anything.
using Word4 __attribute__((may_alias)) = unsigned;
using Word8 __attribute__((may_alias)) = unsigned long long;
using Word16 __attribute__((may_alias, vector_size(16))) = float;

}  // namespace flash::emu

// The copy through one word. (The default constructors below are constexpr: arrays in shared memory, thread_local here,
// must need no code at their first use.)
#define EMU_COPY_AS_WORD(Type, Word)                                                                              \
  EMU_INLINE Type(const Type& other) { *reinterpret_cast<Word*>(this) = *reinterpret_cast<const Word*>(&other); } \
  EMU_INLINE Type& operator=(const Type& other) {                                                                 \
    *reinterpret_cast<Word*>(this) = *reinterpret_cast<const Word*>(&other);                                      \
    return *this;                                                                                                 \
  }

#define EMU_VECTOR2(Type, Element, Word)                  \
  struct alignas(sizeof(Word)) Type {                     \
    Element x, y;                                         \
    EMU_INLINE constexpr Type() : x(), y() {}             \
    EMU_COPY_AS_WORD(Type, Word)                          \
    EMU_INLINE Type(Element x, Element y) : x(x), y(y) {} \
  };                                                      \
  EMU_INLINE Type make_##Type(Element x, Element y) { return Type(x, y); }

#define EMU_VECTOR4(Type, Element, Word)                                                    \
  struct alignas(sizeof(Word)) Type {                                                       \
    Element x, y, z, w;                                                                     \
    EMU_INLINE constexpr Type() : x(), y(), z(), w() {}                                     \
    EMU_COPY_AS_WORD(Type, Word)                                                            \
    EMU_INLINE Type(Element x, Element y, Element z, Element w) : x(x), y(y), z(z), w(w) {} \
  };                                                                                        \
  EMU_INLINE Type make_##Type(Element x, Element y, Element z, Element w) { return Type(x, y, z, w); }

// Twelve bytes are three accesses on a GPU as well.
#define EMU_VECTOR3(Type, Element) \
  struct Type {                    \
    Element x, y, z;               \
  };                               \
  EMU_INLINE Type make_##Type(Element x, Element y, Element z) { return Type{x, y, z}; }

EMU_VECTOR2(float2, float, flash::emu::Word8)
EMU_VECTOR2(int2, int, flash::emu::Word8)
EMU_VECTOR2(uint2, unsigned, flash::emu::Word8)
EMU_VECTOR2(short2, short, flash::emu::Word4)
EMU_VECTOR2(ushort2, unsigned short, flash::emu::Word4)
EMU_VECTOR2(double2, double, flash::emu::Word16)
EMU_VECTOR2(longlong2, long long, flash::emu::Word16)
EMU_VECTOR2(ulonglong2, unsigned long long, flash::emu::Word16)
EMU_VECTOR3(float3, float)
EMU_VECTOR3(int3, int)
EMU_VECTOR3(uint3, unsigned)
EMU_VECTOR4(float4, float, flash::emu::Word16)
EMU_VECTOR4(int4, int, flash::emu::Word16)
EMU_VECTOR4(uint4, unsigned, flash::emu::Word16)
EMU_VECTOR4(short4, short, flash::emu::Word8)
EMU_VECTOR4(ushort4, unsigned short, flash::emu::Word8)
EMU_VECTOR4(uchar4, unsigned char, flash::emu::Word4)

struct dim3 {
  unsigned x, y, z;
  EMU_INLINE constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  EMU_INLINE dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
