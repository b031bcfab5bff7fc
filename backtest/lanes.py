"""Tuples from and to flat arrays: what makes a scalar function of tuples run on many lanes at once."""

from numba.core import cgutils, types
from numba.extending import intrinsic


@intrinsic
def lift(typingctx, array, start, stride, like):
    """Return ``array[start + i * stride]`` for i = 0, 1, ... as a tuple of the same length as ``like``.

    A tuple lives in registers, so a function of tuples is inlined and vectorised like handwritten code.
    """
    if not isinstance(like, types.BaseTuple):
        return None
    signature = types.UniTuple(types.float64, like.count)(array, start, stride, like)

    def codegen(context, builder, signature, arguments):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        position, values = arguments[1], []
        for _ in range(signature.return_type.count):
            values.append(builder.load(builder.gep(data, [position])))
            position = builder.add(position, arguments[2])
        return context.make_tuple(builder, signature.return_type, values)

    return signature, codegen


@intrinsic
def lower(typingctx, array, start, stride, values):
    """Write a tuple to ``array[start + i * stride]``; the inverse of :func:`lift`."""
    if not isinstance(values, types.BaseTuple):
        return None
    signature = types.void(array, start, stride, values)

    def codegen(context, builder, signature, arguments):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        position = arguments[1]
        for i in range(signature.args[3].count):
            builder.store(builder.extract_value(arguments[3], i), builder.gep(data, [position]))
            position = builder.add(position, arguments[2])
        return context.get_dummy_value()

    return signature, codegen
