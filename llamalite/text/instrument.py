"""The pass over a template's syntax tree that puts charges where work repeats or values are walked.

A charge is a filter whose name no template can write. Bodies of loops, macros and blocks begin with
one that costs as much as the body has nodes, so code that runs often pays each time; code that runs
once is bounded by the length of the template. Knows no prices of values. Imports jinja2 and
`llamalite.text.meter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from jinja2 import TemplateAssertionError, nodes
from jinja2.visitor import NodeTransformer

from llamalite.text.meter import NODE, STEP, OverBudget, check_integer

# Names with a space can't be written as a filter. `map` could name them: then they charge, no more.
TICK = "charge tick"
WEIGHED = "charge weight"
SEARCHED = "charge search"
PRINTED = "charge text"
SLICED = "charge slice"

MAX_NODES = 10_000
"""Several times what the longest templates have; compiling this many takes about a second."""

_BODIES = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)


def instrument(tree: nodes.Template) -> None:
    """Put charges into a parsed template.

    Raises:
        OverBudget: the template is too large.
        TemplateAssertionError: it wants to load other templates.
    """
    for n_nodes, _ in enumerate(tree.find_all(nodes.Node)):
        if n_nodes > MAX_NODES:
            raise OverBudget(f"it has more than {MAX_NODES} parts")
    _Charges().visit(tree)


class _Charges(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        if node.test is not None:  # it runs for the items that are left out, too
            node.test = nodes.And(_tick(node, []), node.test, lineno=node.lineno)
        node.body.insert(0, _statement(_tick(node, node.body)))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        self.generic_visit(node)
        node.body.insert(0, _statement(_tick(node, node.body)))
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:
        self.generic_visit(node)
        node.body.insert(0, _statement(_tick(node, node.body)))
        return node

    def visit_Block(self, node: nodes.Block) -> nodes.Block:
        self.generic_visit(node)
        if node.scoped:  # each would copy all names in scope into the generated code
            raise TemplateAssertionError("scoped blocks are not allowed", node.lineno)
        node.body.insert(0, _statement(_tick(node, node.body)))
        return node

    def visit_Include(self, node: nodes.Node) -> NoReturn:
        raise TemplateAssertionError("a chat template can't load other templates", node.lineno)

    visit_Import = visit_FromImport = visit_Extends = visit_Include

    def visit_Const(self, node: nodes.Const) -> nodes.Const:
        check_integer(node.value)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Dict:
        self.generic_visit(node)
        for pair in node.items:
            pair.key = _wrapped(pair.key, WEIGHED)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        first = node.ops[0]
        searches = any(operand.op in ("in", "notin") for operand in node.ops)
        constant = isinstance(node.expr, nodes.Const) or isinstance(first.expr, nodes.Const)
        if len(node.ops) == 1 and constant and not searches:
            return node  # costs no more than the constant is long
        node.expr = _wrapped(node.expr, WEIGHED)
        for operand in node.ops:
            charge = SEARCHED if operand.op in ("in", "notin") else WEIGHED
            operand.expr = _wrapped(operand.expr, charge)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Concat:
        self.generic_visit(node)
        node.nodes = [_wrapped(item, PRINTED) for item in node.nodes]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        # NOTE: Python warns of a slice of a literal number in the code that Jinja generates.
        node.node = _charge(node.node, WEIGHED) if isinstance(node.node, nodes.Const) else node.node
        return _wrapped(node, SLICED)


def _tick(owner: nodes.Node, body: Sequence[nodes.Node]) -> nodes.Filter:
    units = nodes.Const(STEP + NODE * _size(body), lineno=owner.lineno)
    return _charge(units, TICK)


def _size(body: Sequence[nodes.Node]) -> int:
    """Count nodes, leaving out bodies that are charged by themselves."""
    n_nodes, rest = 0, list(body)
    while rest:
        node = rest.pop()
        n_nodes += 1
        rest.extend(node.iter_child_nodes(exclude=("body",) if isinstance(node, _BODIES) else None))
    return n_nodes


def _wrapped(node: nodes.Expr, name: str) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _charge(node, name)


def _charge(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _statement(expression: nodes.Expr) -> nodes.ExprStmt:
    return nodes.ExprStmt(expression, lineno=expression.lineno)
