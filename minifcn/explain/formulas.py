"""Plain formulas, as the docstrings of the ops have them, typeset as MathML, which browsers render by themselves.

    x[n,c,h,w]    indices in brackets become subscripts        x_j       so does a letter after an underscore
    sum_{r,s}     a sum, its indices below; max likewise       a / b     a fraction
    d y[i] / d x[i]   a partial derivative                     x^2, A^T  powers

`typeset` looks for such formulas in running text and leaves the words between them alone. The grammar:

    relation   expression ((= | < | <= | > | >=) expression)*
    expression [-] product ((+ | -) product)*
    product    factor ((factor | / factor | mod factor))*          side by side means times
    factor     atom [^ atom]
    atom       number | name[indices] | f(relation, ...) | (relation, ...) | [relation] | |expression| | sum_{names}
"""

from __future__ import annotations

import re
from html import escape

FUNCTIONS = ("exp", "log", "max", "ceil")
OPERATORS = {"sum": "∑", "max": "max"}
GRADIENT = re.compile(r"d([xyzwbalL]|skip)")
VARIABLE = re.compile(rf"([B-HJ-Zb-z]|{GRADIENT.pattern})('s)?")  # in running text; A, I and a are words
SETTINGS = ("stride", "pad", "dilation", "top", "left", "size", "alpha", "beta", "output_padding")
NAMES = ("skip", "weight", "target", *SETTINGS)
RELATIONS = {"=": "=", "<": "&lt;", "<=": "≤", ">": "&gt;", ">=": "≥"}
TOKEN = re.compile(r" {2,}|\s|output_padding|[A-Za-z][A-Za-z0-9]*(?:['-][A-Za-z]+)*|\d+(?:\.\d+)?|<=|>=|.", re.DOTALL)


class _NoFormula(Exception):
    """The text at this place is no formula."""


class _Parser:
    """Recursive descent over the tokens of a text. `is_formula` is set by what no prose contains."""

    def __init__(self, tokens: list[str], position: int) -> None:
        self.tokens, self.position = tokens, position
        self.is_formula = False

    # --- tokens ---

    def peek(self, ahead: int = 0) -> str:
        """The next token but `ahead`, single spaces skipped; a wider gap separates formulas and is a token."""
        i = self.position
        while True:
            while i < len(self.tokens) and self.tokens[i].isspace() and len(self.tokens[i]) == 1:
                i += 1
            if ahead == 0:
                return self.tokens[i] if i < len(self.tokens) else ""
            ahead -= 1
            i += 1

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise _NoFormula
        while self.tokens[self.position].isspace() and len(self.tokens[self.position]) == 1:
            self.position += 1
        self.position += 1
        return token

    # --- grammar; each method returns MathML ---

    def relation(self) -> str:
        parts = [self.expression()]
        while self.peek() in RELATIONS:
            self.is_formula = True
            parts.append(f"<mo>{RELATIONS[self.take()]}</mo>")
            before = self.position
            try:
                parts.append(self.expression())
            except _NoFormula:  # words follow: "dx[i] = sum over the windows"
                self.position = before
                break
        return "".join(parts)

    def expression(self) -> str:
        parts = []
        if self.peek() == "-":
            self.take()
            parts.append("<mo>−</mo>")
        parts.append(self.product())
        while self.peek() in ("+", "-"):
            before = self.position
            sign = self.take()
            try:
                parts += ["<mo>+</mo>" if sign == "+" else "<mo>−</mo>", self.product()]
            except _NoFormula:
                self.position = before
                break
            self.is_formula = True
        return "".join(parts)

    def product(self) -> str:
        factors = [self.factor()]
        while True:
            before = self.position
            try:
                if self.peek() == "/":
                    self.take()
                    bottom = self.product_of_sum() if self.at_operator() else [self.factor()]
                    factors = [f"<mfrac>{_row(_bare(factors))}{_row(_bare(bottom))}</mfrac>"]
                    self.is_formula = True
                elif self.peek() == "mod":
                    self.take()
                    factors += ["<mo lspace='0.3em' rspace='0.3em'>mod</mo>", self.factor()]
                    self.is_formula = True
                else:
                    factors.append(self.factor())
            except _NoFormula:
                self.position = before
                return _spaced(factors)

    def product_of_sum(self) -> list[str]:
        """A sum sign and all it sums."""
        parts = [self.factor()]
        while True:
            before = self.position
            try:
                parts.append(self.factor())
            except _NoFormula:
                self.position = before
                return parts

    def factor(self) -> str:
        base = self.atom()
        if self.peek() != "^":
            return base
        self.take()
        self.is_formula = True
        if self.peek() == "(":
            self.take()
            power = self.expression()
            self.take(")")
        else:
            power = self.atom()
        return f"<msup>{_row([base])}{_row([power])}</msup>"

    def at_operator(self) -> bool:
        return self.peek() in OPERATORS

    def atom(self) -> str:
        token = self.peek()
        if re.fullmatch(r"\d+(\.\d+)?", token):
            return f"<mn>{self.take()}</mn>"
        if token == "d" and self.peek(1)[:1].isalpha():
            return self.derivative()
        if token in OPERATORS and self.peek(1) != "(":
            return self.operator()
        if token in FUNCTIONS:
            return self.function()
        if token == "(":
            return self.group("(", ")")
        if token == "[":
            return self.group("[", "]")
        if token == "E" and self.peek(1) == "[":  # expectation
            return f"<mrow><mi>{self.take()}</mi>{self.group('[', ']')}</mrow>"
        if token == "|":
            self.take()
            inner = self.expression()
            self.take("|")
            self.is_formula = True
            return f"<mrow><mo>|</mo>{inner}<mo>|</mo></mrow>"
        return self.name()

    def derivative(self) -> str:
        self.take("d")
        top = self.name()
        self.take("/")
        self.take("d")
        bottom = self.name()
        self.is_formula = True
        return f"<mfrac><mrow><mo>∂</mo>{top}</mrow><mrow><mo>∂</mo>{bottom}</mrow></mfrac>"

    def operator(self) -> str:
        """sum, sum_j, sum_{r,s}, max_{r,s}: the indices go below. A bare one needs something to sum."""
        name = self.take()
        sign = f"<mo class='{name}' movablelimits='false' largeop='false'>{OPERATORS[name]}</mo>"
        if self.peek() != "_":
            before = self.position
            self.factor()
            self.position = before
            self.is_formula = True
            return sign
        self.take()
        if self.peek() == "{":
            self.take()
            below = self.list("}")
        else:
            below = f"<mi>{self.take()}</mi>"
        self.is_formula = True
        return f"<munder>{sign}<mrow>{below}</mrow></munder>"

    def function(self) -> str:
        name = self.take()
        if self.peek() == "(":
            return f"<mrow>{_letters(name)}{self.group('(', ')')}</mrow>"
        argument = self.factor()
        self.is_formula = True
        return f"<mrow>{_letters(name)}<mspace width='0.2em'/>{argument}</mrow>"

    def group(self, opening: str, closing: str) -> str:
        self.take(opening)
        inner = self.list(closing)
        self.is_formula = True
        return f"<mrow><mo>{opening}</mo>{inner}<mo>{closing}</mo></mrow>"

    def list(self, closing: str) -> str:
        """Relations with commas between them, up to `closing`."""
        parts = [self.relation()]
        while self.peek() == ",":
            self.take()
            parts.append(self.relation())
        self.take(closing)
        return "<mo>,</mo>".join(parts)

    def name(self) -> str:
        token = self.take()
        gradient = GRADIENT.fullmatch(token)
        if gradient:
            letters = _letters(gradient[1])
            base = f"<mrow><mi>d</mi>{letters}</mrow>"
        elif token in NAMES or (len(token) == 1 and token.isalpha()):
            base = _letters(token)
        else:
            raise _NoFormula
        follows = self.tokens[self.position] if self.position < len(self.tokens) else ""
        if follows == "[":
            self.take("[")
            index = self.list("]")
        elif follows == "_":
            self.take("_")
            index = self.name()
        elif token in ("a", "I", "weight", "target"):  # words, unless they have an index
            raise _NoFormula
        else:
            return base
        self.is_formula = True
        return f"<msub>{base}<mrow>{index}</mrow></msub>"


def _letters(name: str) -> str:
    return f"<mi>{escape(name)}</mi>" if len(name) == 1 else f"<mi class='word'>{escape(name)}</mi>"


def _row(parts: list[str]) -> str:
    return f"<mrow>{''.join(parts)}</mrow>"


def _bare(parts: list[str]) -> list[str]:
    """Without the parentheses around all of it: a fraction's line holds it together."""
    if len(parts) == 1 and parts[0].startswith("<mrow><mo>(</mo>") and parts[0].endswith("<mo>)</mo></mrow>"):
        return [parts[0][len("<mrow><mo>(</mo>") : -len("<mo>)</mo></mrow>")]]
    return parts


def _spaced(factors: list[str]) -> str:
    """Factors side by side, a thin space between them."""
    return "<mspace width='0.17em'/>".join(factors)


def formula_at(tokens: list[str], position: int) -> tuple[str, int] | None:
    """The formula that begins at token `position`, as MathML, and the position after it; None if none does."""
    parser = _Parser(tokens, position)
    try:
        inner = parser.relation()
    except _NoFormula:
        return None
    return (inner, parser.position) if parser.is_formula else None


def typeset(text: str) -> str:
    """`text` as HTML: every formula in it as MathML, `quoted` names as code."""
    pieces = text.split("`")
    return "".join(f"<code>{escape(piece)}</code>" if i % 2 else _typeset(piece) for i, piece in enumerate(pieces))


def _typeset(text: str) -> str:
    tokens = TOKEN.findall(re.sub(r"\b([A-Z\d]+) x ([A-Z\d]+)\b", r"\1 × \2", text))
    parts, position = [], 0
    while position < len(tokens):
        token = tokens[position]
        found = None if token.isspace() else formula_at(tokens, position)
        if found:
            inner, position = found
            parts.append(f"<math displaystyle='true'><mrow>{inner}</mrow></math>")
            continue
        position += 1
        if token.isspace():
            parts.append(" " if len(token) == 1 else "<span class='gap'> </span>")
        elif VARIABLE.fullmatch(token):
            letter, _, rest = token.partition("'")
            parts.append(f"<i>{letter}</i>" + ("’" + rest if rest else ""))
        elif token == "-" and position < len(tokens) and tokens[position].isdecimal():
            parts.append("−")
        else:
            parts.append(escape(token))
    return "".join(parts)


def is_display(text: str) -> bool:
    """Whether a paragraph begins with an equation."""
    found = formula_at(TOKEN.findall(text), 0)
    return found is not None and "<mo>=</mo>" in found[0]
