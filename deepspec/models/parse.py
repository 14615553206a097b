"""From text to an expression: ``tbabs*(powerlaw+bbody)``, XSPEC's ``tbabs(po+bb)``, ``zashift*tbabs*mekal``.

Grammar: ``sum = product {"+" product}``, ``product = factor {["*"] factor}``,
``factor = name ["{" file "}"] | "(" sum ")"``. A star may be left out before a bracket, as in XSPEC.
A convolution acts on everything to its right within its product.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from deepspec.errors import UserError
from deepspec.models import COMPONENTS
from deepspec.models.algebra import Convolved, Leaf, Node, Product, Sum
from deepspec.models.base import Component, Kind
from deepspec.registry import nearest

#: What XSPEC users type; any other unambiguous beginning of a native name works too.
ABBREVIATIONS = {
    "po": "powerlaw",
    "pow": "powerlaw",
    "zpo": "zpowerlw",
    "zpow": "zpowerlw",
    "peg": "pegpwrlw",
    "cut": "cutoffpl",
    "zcut": "zcutoffpl",
    "bkn": "bknpower",
    "bb": "bbody",
    "zbb": "zbbody",
    "disk": "diskbb",
    "dbb": "diskbb",
    "br": "bremss",
    "brem": "bremss",
    "brems": "bremss",
    "zbr": "zbremss",
    "ga": "gaussian",
    "gau": "gaussian",
    "gauss": "gaussian",
    "zga": "zgauss",
    "me": "mekal",
    "meka": "mekal",
    "tb": "tbabs",
    "ztb": "ztbabs",
    "ph": "phabs",
    "pha": "phabs",
    "zph": "zphabs",
    "pc": "pcfabs",
    "zpc": "zpcfabs",
    "co": "constant",
    "const": "constant",
    "cons": "constant",
    "hi": "highecut",
    "exp": "expabs",
    "cf": "cflux",
}
TABLE_MODELS = {"atable": Kind.ADDITIVE, "mtable": Kind.MULTIPLICATIVE, "etable": Kind.MULTIPLICATIVE}
_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_.]*)(?:\{(?P<file>[^}]*)\})?|(?P<mark>[-+*()/^]))")


def component_named(name: str, file: str | None = None) -> Component:
    """The component a user means by `name`: native first, then XSPEC's library, ``xs_name`` the library's only.

    Raises
    ------
    UserError
        Unknown or ambiguous name, or a table model without its file.
    """
    lower = name.lower()
    if lower in TABLE_MODELS:
        if not file:
            raise UserError(f"{lower} needs a file", remedy=f"write {lower}{{model.fits}}")
        from deepspec.models.table_model import load_table_model

        return load_table_model(file, lower)
    if file is not None:
        if lower in COMPONENTS and COMPONENTS[lower].takes_file:
            if not file.strip():
                raise UserError(f"the braces after {lower} are empty", remedy=f"write {lower}{{NAME}} or {lower} alone")
            return COMPONENTS[lower](file.strip())
        raise UserError(f"'{name}' takes no file in braces", remedy="only atable, mtable, etable and deepspec do")
    if lower.startswith("xs_"):
        return _from_xspec(name[3:])
    if lower in COMPONENTS:
        return COMPONENTS[lower]()
    if lower in ABBREVIATIONS:
        return COMPONENTS[ABBREVIATIONS[lower]]()
    component = _from_xspec(name, optional=True)
    if component is not None:
        return component
    begins = [known for known in COMPONENTS if known.startswith(lower)]
    if len(begins) == 1:
        return COMPONENTS[begins[0]]()
    if begins:
        raise UserError(f"'{name}' may mean {' or '.join(sorted(begins))}", remedy="write more of the name")
    raise UserError(f"unknown component '{name}'", remedy=_suggest(name))


def _suggest(name: str) -> str:
    close = nearest(name, [*COMPONENTS, *_xspec_names()])
    return f"nearest names: {', '.join(close)}" if close else "`deepspec models` lists all components"


def _xspec_names() -> list[str]:
    from deepspec.models import xspec

    return list(xspec.xspec_models()) if xspec.available()[0] else []


def _from_xspec(name: str, optional: bool = False) -> Component | None:
    from deepspec.models import xspec

    if optional and name.lower() not in {known.lower() for known in _xspec_names()}:
        return None
    return xspec.xspec_component(name)


@dataclass
class _Token:
    text: str
    file: str | None
    position: int

    @property
    def is_name(self) -> bool:
        return self.text[0].isalpha() or self.text[0] == "_"


def _tokens(text: str) -> list[_Token]:
    found, position = [], 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if not match:
            wrong = stripped[position:].lstrip()[:1]
            raise UserError(
                f"'{wrong}' at character {stripped.index(wrong, position) + 1} has no meaning here", source=text
            )
        if match["mark"] in ("-", "/", "^"):
            raise UserError(f"'{match['mark']}' is not an operation between components", text, "use + and * only")
        found.append(_Token(match["name"] or match["mark"], match["file"], match.end()))
        position = match.end()
    return found


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str):
        self.text, self.tokens, self.index = text, _tokens(text), 0
        self.labels: Counter[str] = Counter()

    def fail(self, problem: str, remedy: str | None = None):
        raise UserError(problem, source=f"model '{self.text.strip()}'", remedy=remedy)

    def peek(self) -> str | None:
        return self.tokens[self.index].text if self.index < len(self.tokens) else None

    def parse(self) -> Node:
        if not self.tokens:
            raise UserError("the model is empty", remedy="try tbabs*powerlaw")
        node = self.sum()
        if self.peek() == ")":
            self.fail("a closing bracket has no opening one", "count the brackets")
        if self.peek() is not None:
            self.fail(f"'{self.peek()}' was not expected", "use + and * between components")
        if isinstance(node, Leaf) and node.kind is Kind.CONVOLUTION:
            self.fail(f"{node.label} has nothing to act on", f"write {node.label}*powerlaw, for instance")
        return node

    def sum(self) -> Node:
        node = self.product()
        while self.peek() == "+":
            self.index += 1
            node = Sum(self.whole(node), self.whole(self.product()))
        return node

    def whole(self, node: Node) -> Node:
        if isinstance(node, Leaf) and node.kind is Kind.CONVOLUTION:
            self.fail(f"{node.label} has nothing to act on", f"write {node.label}*powerlaw, for instance")
        return node

    def product(self) -> Node:
        factors = [self.factor()]
        while self.peek() == "*" or (self.peek() == "(" and self.tokens[self.index - 1].is_name):
            self.index += self.peek() == "*"
            factors.append(self.factor())
        node = factors.pop()
        for factor in reversed(factors):
            if isinstance(factor, Leaf) and factor.kind is Kind.CONVOLUTION:
                node = Convolved(factor, self.whole(node))
            else:
                node = Product(factor, self.whole(node))
        return node

    def factor(self) -> Node:
        token = self.peek()
        if token is None:
            self.fail("the expression ends too early", "a component is missing at the end")
        self.index += 1
        if token == "(":
            node = self.sum()
            if self.peek() != ")":
                self.fail("an opening bracket is never closed", "count the brackets")
            self.index += 1
            return node
        if not self.tokens[self.index - 1].is_name:
            self.fail(f"a component is missing before '{token}'")
        return self.leaf(self.tokens[self.index - 1])

    def leaf(self, token: _Token) -> Leaf:
        component = component_named(token.text, token.file)
        self.labels[component.name] += 1
        count = self.labels[component.name]
        return Leaf(component.name if count == 1 else f"{component.name}_{count}", component)


def parse_expression(text: str) -> Node:
    """The expression that `text` describes.

    Parameters
    ----------
    text : str
        Such as ``tbabs*(powerlaw+bbody)``; repeated components are labelled ``powerlaw``, ``powerlaw_2``.

    Raises
    ------
    UserError
        Unknown component, unbalanced bracket, or kinds that cannot be combined.
    """
    try:
        return _Parser(text).parse()
    except UserError as error:
        if error.source is None:
            raise UserError(error.problem, f"model '{text.strip()}'", error.remedy) from None
        raise
