"""MurmurHash3 x64 128 by Austin Appleby, written after his published C++ with whole numbers of Python."""

MASK = 2**64 - 1


def rotate(word, n):
    """Return a 64-bit word rotated left."""
    return (word << n | word >> (64 - n)) & MASK


def finish(word):
    """Return a word whose every bit depends on all bits."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        word = (word ^ word >> 33) * factor & MASK
    return word ^ word >> 33


def murmur3(data):
    """Return the two words of the digest of some bytes, seed 0."""
    c, e, a, b = 0x87C37B91114253D5, 0x4CF5AD432745937F, 0, 0
    tail = len(data) // 16 * 16
    for i in range(0, tail, 16):
        first, second = (int.from_bytes(data[k : k + 8], "little") for k in (i, i + 8))
        a ^= rotate(first * c & MASK, 31) * e & MASK
        a = ((rotate(a, 27) + b) * 5 + 0x52DCE729) & MASK
        b ^= rotate(second * e & MASK, 33) * c & MASK
        b = ((rotate(b, 31) + a) * 5 + 0x38495AB5) & MASK
    first, second = (int.from_bytes(data[k : k + 8], "little") for k in (tail, tail + 8))
    b ^= rotate(second * e & MASK, 33) * c & MASK
    a ^= rotate(first * c & MASK, 31) * e & MASK
    a, b = a ^ len(data), b ^ len(data)
    a = (a + b) & MASK
    b = (b + a) & MASK
    a, b = finish(a), finish(b)
    a = (a + b) & MASK
    return a, (b + a) & MASK
