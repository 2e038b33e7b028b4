"""`--where 'batch_size<=32 and norm!=none'`: a filter over rows, parsed by hand, never by eval."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

from groupnorm_bench.errors import CompareError, nearest

Lookup = Callable[[str], Any]
"""Gives a row's value of a name."""
Predicate = Callable[[Lookup], bool]

MAX_LENGTH = 10_000
MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.:/@-]))
    | (?P<text>'[^']*'|"[^"]*")
    | (?P<symbol><=|>=|==|!=|=|<|>|\(|\)|\[|\]|,)
    | (?P<word>[\w.][\w.:/@-]*)
    )""",
    re.VERBOSE,
)
_HINT = "write it as in 'batch_size<=32 and norm!=none'"


def parse_where(expression: str, names: Collection[str]) -> Predicate:
    """Return the test that `expression` asks of a row.

    Comparisons (`== != < <= > >= in not in`) of a name with a number, a word, quoted text or a
    list `(2, 4)`, joined by `and`, `or`, `not` and parentheses. `none` equals a missing value.

    Args:
        expression: the text.
        names: what may stand on the left of a comparison.

    Raises:
        CompareError: the text is not such an expression, or a name in it is unknown.
    """
    return _Parser(expression, names).parse()


class _Parser:
    def __init__(self, expression: str, names: Collection[str]) -> None:
        if len(expression) > MAX_LENGTH:
            raise CompareError(f"where has {len(expression):,} characters; shorten it")
        self.expression = expression
        self.names = names
        self.tokens = self._tokens()
        self.at = 0
        self.depth = 0

    def _tokens(self) -> list[tuple[str, str]]:
        tokens, at = [], 0
        text = self.expression.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._wrong(f"at {text[at : at + 20]!r}")
            kind = str(match.lastgroup)
            tokens.append((kind, match.group(kind)))
            at = match.end()
        return tokens

    def _wrong(self, what: str) -> CompareError:
        return CompareError(f"where={self.expression[:200]!r} is not clear {what}; {_HINT}")

    def _peek(self) -> str:
        if self.at >= len(self.tokens):
            return ""
        kind, text = self.tokens[self.at]
        return text if kind in ("word", "symbol") else ""

    def _take(self) -> tuple[str, str]:
        if self.at >= len(self.tokens):
            raise self._wrong("at its end")
        self.at += 1
        return self.tokens[self.at - 1]

    def parse(self) -> Predicate:
        test = self._any_of()
        if self.at < len(self.tokens):
            raise self._wrong(f"at {self.tokens[self.at][1]!r}")
        return test

    def _any_of(self) -> Predicate:
        tests = [self._all_of()]
        while self._peek() == "or":
            self._take()
            tests.append(self._all_of())
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def _all_of(self) -> Predicate:
        tests = [self._one()]
        while self._peek() == "and":
            self._take()
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _one(self) -> Predicate:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise CompareError(f"where is nested over {MAX_DEPTH} deep; shorten it")
        try:
            if self._peek() == "not":
                self._take()
                inner = self._one()
                return lambda row: not inner(row)
            if self._peek() == "(":
                self._take()
                test = self._any_of()
                self._expect(")")
                return test
            return self._comparison()
        finally:
            self.depth -= 1

    def _expect(self, symbol: str) -> None:
        kind, text = self._take()
        if (kind, text) != ("symbol", symbol):
            raise self._wrong(f"at {text!r}, where {symbol!r} should stand")

    def _comparison(self) -> Predicate:
        kind, name = self._take()
        if kind != "word":
            raise self._wrong(f"at {name!r}, where a name should stand")
        if name not in self.names:
            raise CompareError(f"where has the unknown name {name!r}{nearest(name, self.names)}")
        operator = self._operator()
        if operator in ("in", "not in"):
            values = self._list()
            if operator == "in":
                return lambda row: any(_equal(row(name), value) for value in values)
            return lambda row: not any(_equal(row(name), value) for value in values)
        value = self._value()
        if operator in _ORDER:
            if not isinstance(value, float):
                raise CompareError(f"where: {name} {operator} {value!r} needs a number there")
            holds = _ORDER[operator]
            return lambda row: _is_number(row(name)) and holds(float(row(name)), value)
        wanted = operator != "!="
        return lambda row: _equal(row(name), value) is wanted

    def _operator(self) -> str:
        kind, text = self._take()
        if (kind, text) == ("word", "not") and self._peek() == "in":
            self._take()
            return "not in"
        if (kind, text) == ("word", "in"):
            return "in"
        if kind == "symbol" and (text in _ORDER or text in ("=", "==", "!=")):
            return text
        raise self._wrong(f"at {text!r}, where a comparison should stand")

    def _list(self) -> list[float | str]:
        opening = self._take()[1]
        closing = {"(": ")", "[": "]"}.get(opening)
        if closing is None:
            raise self._wrong(f"at {opening!r}, where a list like (2, 4) should stand")
        values = [self._value()]
        while self._peek() == ",":
            self._take()
            values.append(self._value())
        self._expect(closing)
        return values

    def _value(self) -> float | str:
        kind, text = self._take()
        if kind == "number":
            return float(text)
        if kind == "text":
            return text[1:-1]
        if kind == "word" and text not in ("and", "or", "not", "in"):
            return text
        raise self._wrong(f"at {text!r}, where a value should stand")


_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(value: Any, wanted: float | str) -> bool:
    if isinstance(wanted, float):
        return _is_number(value) and float(value) == wanted
    if value is None or isinstance(value, bool):
        return str(value).lower() == wanted.lower()
    return str(value) == wanted
