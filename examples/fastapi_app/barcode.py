"""EAN-13 bar codes.  Source: GS1 General Specifications §5.2.1."""

_LEFT_ODD = (
    "0001101", "0011001", "0010011", "0111101", "0100011",
    "0110001", "0101111", "0111011", "0110111", "0001011",
)  # fmt: skip
_RIGHT = tuple(code.translate(str.maketrans("01", "10")) for code in _LEFT_ODD)
_LEFT_EVEN = tuple(code[::-1] for code in _RIGHT)

# The first digit has no bars of its own: it says which of the next six are written "even" (1).
_PARITIES = (
    "000000", "001011", "001101", "001110", "010011",
    "011001", "011100", "010101", "010110", "011010",
)  # fmt: skip

IN_STORE_PREFIX = 20  # GS1 leaves 20-29 to shops for their own numbers


def in_store_code(number: int) -> str:
    """The 13 digits for a shop's own product number, check digit last."""
    digits = f"{IN_STORE_PREFIX}{number:010d}"
    weighted = sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(digits))
    return f"{digits}{-weighted % 10}"


def modules(code: str) -> str:
    """The 95 stripes of a 13-digit code, `1` for a dark one."""
    first, *digits = (int(digit) for digit in code)
    left = "".join(
        (_LEFT_ODD, _LEFT_EVEN)[parity == "1"][digit]
        for parity, digit in zip(_PARITIES[first], digits[:6], strict=True)
    )
    right = "".join(_RIGHT[digit] for digit in digits[6:])
    return f"101{left}01010{right}101"


def svg(code: str) -> str:
    """A picture of the code, quiet zones included."""
    bars = "".join(f"M{x + 11} 0v40h1V0z" for x, dark in enumerate(modules(code)) if dark == "1")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 117 52" width="351" height="156">'
        f'<rect width="117" height="52" fill="#fff"/><path d="{bars}"/>'
        f'<text x="58.5" y="50" font-size="9" font-family="monospace" text-anchor="middle">{code}'
        "</text></svg>\n"
    )
