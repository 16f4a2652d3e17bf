"""Written arithmetic column by column, shared by sums and products.

Every column is one fact of a fixed form followed by the result so far:

    47+85: 7+5+0=12>2 4+8+1=13>132      a+b+carry = two digits: the next carry, then the digit
    52-47: 2-7-0=5b1>5 5-4-1=0b0>05     a-b-borrow = digit, b and the borrow taken from the left
    47*80: 7*8+0=56>60 4*8+5=37>3760    a*b+carry = two digits, as in a sum

Operands are zero-padded to equal width so that a column is always found at the same place.
"""

from __future__ import annotations


def pad(left: str, right: str) -> tuple[str, str]:
    """Both numbers zero-padded to the width of the longer one."""
    width = max(len(left), len(right))
    return left.zfill(width), right.zfill(width)


def add(left: str, right: str) -> tuple[str, str]:
    """The line of an addition and its result, as wide as the operands plus a carry if there is one.

    The two numbers are decimal digits, leading zeros allowed.
    """
    left, right = pad(left, right)
    facts, carry, result = [], 0, ""
    for index in reversed(range(len(left))):
        total = int(left[index]) + int(right[index]) + carry
        fact = f"{left[index]}+{right[index]}+{carry}={total:02d}"
        carry, result = total // 10, f"{total % 10}{result}"
        if index == 0 and carry:
            result = f"{carry}{result}"
        facts.append(f"{fact}>{result}")
    return f"{left}+{right}: {' '.join(facts)}", result


def subtract(left: str, right: str) -> tuple[str, str]:
    """The line of a subtraction and its result in the width of the operands; left >= right."""
    assert int(left) >= int(right)
    left, right = pad(left, right)
    facts, borrow, result = [], 0, ""
    for index in reversed(range(len(left))):
        digit = int(left[index]) - int(right[index]) - borrow
        taken = int(digit < 0)
        digit += 10 * taken
        fact = f"{left[index]}-{right[index]}-{borrow}={digit}b{taken}"
        borrow, result = taken, f"{digit}{result}"
        facts.append(f"{fact}>{result}")
    return f"{left}-{right}: {' '.join(facts)}", result


def times_digit(number: str, digit: int, zeros: int) -> tuple[str, str]:
    """The line of `number * digit * 10**zeros` and its result, one digit wider than the number."""
    facts, carry, result = [], 0, "0" * zeros
    for index in reversed(range(len(number))):
        total = int(number[index]) * digit + carry
        fact = f"{number[index]}*{digit}+{carry}={total:02d}"
        carry, result = total // 10, f"{total % 10}{result}"
        if index == 0:
            result = f"{carry}{result}"
        facts.append(f"{fact}>{result}")
    return f"{number}*{digit}{'0' * zeros}: {' '.join(facts)}", result


def strip(result: str) -> str:
    """The visible last step: `=7` after `007`, nothing where there is no leading zero."""
    plain = str(int(result))
    return "" if plain == result else f"={plain}"
