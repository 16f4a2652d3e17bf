"""Prime factors by trial division.

    What are the prime factors of 90?
    90/2=45r0>2
    45/2=22r1 45/3=15r0>2*3
    15/3=5r0>2*3*3
    5>2*3*3*5

A line ends where a prime divides, with all primes found so far; the next line goes on with the
quotient, from the same prime. The last line is what no smaller prime divides.
"""

from __future__ import annotations

import math
import random
import re

from ingle.tasks.base import MAX_TRACE, Problem, Verdict, right, tidy, wrong
from ingle.tasks.phrasing import phrase

NAME = "prime_factorization"
TITLE = "Prime factors"
LEVELS = (1, 2, 3)
HARDER = (4, 5)
EXAMPLES = ("What are the prime factors of 90?", "factor 84")

BARE = ("factor {n}", "factorize {n}", "prime factors of {n}", "{n} prime factors")
TEMPLATES = (
    "What are the prime factors of {n}?",
    "Find the prime factors of {n}.",
    "Factor {n}.",
    "Factor {n} into primes.",
    "Write {n} as a product of primes.",
    "Factorize {n}.",
    "Find the prime factorization of {n}.",
    "What is the prime factorization of {n}?",
    "Please factor {n}.",
    "Can you factor {n} into primes?",
)
PHRASES = BARE + TEMPLATES
_LIMITS = {1: 100, 2: 300, 3: 600, 4: 1000, 5: 4000}


def generate(rng: random.Random, level: int) -> Problem:
    """Numbers up to 100, 300 or 600 (harder: 1000, 4000), most of them with small factors."""
    limit = _LIMITS[level]
    while True:
        number = rng.randint(2, limit)
        if rng.random() < 0.6:
            number = rng.randint(1, 12) * rng.choice((2, 3, 5, 7, 11)) * rng.randint(1, 30)
        if 2 <= number <= limit and (level in HARDER or len(solve(number)) <= MAX_TRACE):
            break
    primes = factors(number)
    return Problem(
        task=NAME,
        level=level,
        question=phrase(rng, TEMPLATES, BARE, n=number),
        trace=solve(number),
        answer=" * ".join(map(str, primes)),
        key=f"{NAME}:{number}",
        gold={"factors": primes},
    )


def factors(number: int) -> tuple[int, ...]:
    """The prime factors in ascending order, repeated ones repeated."""
    found, prime = [], 2
    while prime * prime <= number:
        while number % prime == 0:
            found.append(prime)
            number //= prime
        prime += 1
    return (*found, number) if number > 1 else tuple(found)


def solve(number: int) -> str:
    """The trial divisions by the primes whose square is at most the number left."""
    lines: list[str] = []
    facts: list[str] = []
    found: list[int] = []
    prime = 2
    while prime * prime <= number:
        quotient, rest = divmod(number, prime)
        facts.append(f"{number}/{prime}={quotient}r{rest}")
        if rest:
            prime = _next_prime(prime)
            continue
        found.append(prime)
        lines.append(f"{' '.join(facts)}>{'*'.join(map(str, found))}")
        facts, number = [], quotient
    last = f"{' '.join((*facts, str(number)))}>{'*'.join(map(str, (*found, number)))}"
    return "\n".join((*lines, last))


def check(problem: Problem) -> str | None:
    """The factors multiplied; None where there is only one."""
    first, *rest = problem.gold["factors"]
    facts, product = [], first
    for factor in rest:
        facts.append(f"{product}*{factor}={product * factor}")
        product *= factor
    return " ".join(facts) or None


def verify(problem: Problem, text: str) -> Verdict:
    """Accept the primes in any order, separated by *, x, a multiplication sign or commas."""
    answer = tidy(text).rpartition("=")[2].strip("[]() ").replace("\u00d7", "*").replace("x", "*")
    if not re.fullmatch(r"[0-9]+(?:[*,\s]+[0-9]+)*", answer):
        return wrong("The answer is not a product of numbers.")
    found = sorted(int(item) for item in re.findall(r"[0-9]+", answer))
    wanted = list(problem.gold["factors"])
    if found == wanted:
        return right()
    if math.prod(found) == math.prod(wanted):
        return wrong("The product is right, but not all factors are prime.")
    return wrong("These are not the prime factors.")


def _next_prime(prime: int) -> int:
    candidate = prime + 1
    while any(candidate % n == 0 for n in range(2, math.isqrt(candidate) + 1)):
        candidate += 1
    return candidate
