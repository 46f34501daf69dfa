"""What a chat template does with a message's content."""

from collections.abc import Callable

from jinja2 import nodes

_SAME_LIST = {"list", "reverse", "select", "reject", "selectattr", "rejectattr", "sort", "default", "d"}


def loops_over_content(template: nodes.Template) -> bool:
    """True when a loop runs over a message's content, under whatever name: it expects parts then."""
    is_content = _finds_content(template)
    return any(_any_branch(loop.iter, is_content) for loop in template.find_all(nodes.For))


def looks_for_none(template: nodes.Template) -> bool:
    """True when a message's content is tested for being none: a message without any is told apart then."""
    is_content = _finds_content(template)
    tests = [test.node for test in template.find_all(nodes.Test) if test.name == "none"]
    compared = [
        compare.expr
        for compare in template.find_all(nodes.Compare)
        if any(isinstance(op.expr, nodes.Const) and op.expr.value is None for op in compare.ops)
    ]
    return any(is_content(node) for node in [*tests, *compared])


def _finds_content(template: nodes.Template) -> Callable[[nodes.Node], bool]:
    """Tells whether an expression is a message's content."""
    loops = list(template.find_all(nodes.For))
    messages = _aliases(template, {"messages"}, _is_named)
    over_messages = [loop for loop in loops if _any_branch(loop.iter, lambda node: _is_named(node, messages))]
    each = messages | {loop.target.name for loop in over_messages if isinstance(loop.target, nodes.Name)}

    def is_content(node: nodes.Node, names: set[str]) -> bool:
        return _is_named(node, names) or _is_content_of(node, each)

    contents = _aliases(template, set(), is_content)
    return lambda node: is_content(node, contents)


def _aliases(
    template: nodes.Template, names: set[str], is_such: Callable[[nodes.Node, set[str]], bool]
) -> set[str]:
    """`names`, and every name that is set to such an expression."""
    assigns = [
        (a.target.name, a.node) for a in template.find_all(nodes.Assign) if isinstance(a.target, nodes.Name)
    ]
    known = set(names)

    def is_known(node: nodes.Node) -> bool:
        return is_such(node, known)

    for _ in assigns:  # an alias of an alias needs a further round
        known.update([name for name, node in assigns if _any_branch(node, is_known)])
    return known


def _any_branch(node: nodes.Node, is_such: Callable[[nodes.Node], bool]) -> bool:
    """Look through what leaves a list the same list: filters, slices, `a if b else c`, `a + b`."""
    match node:
        case nodes.Filter(node=nodes.Node() as inner, name=name) if name in _SAME_LIST:
            return _any_branch(inner, is_such)
        case nodes.Getitem(node=inner, arg=nodes.Slice()):
            return _any_branch(inner, is_such)
        case nodes.CondExpr(expr1=first, expr2=second):
            return _any_branch(first, is_such) or (second is not None and _any_branch(second, is_such))
        case nodes.Add(left=left, right=right):
            return _any_branch(left, is_such) or _any_branch(right, is_such)
        case _:
            return is_such(node)


def _is_named(node: nodes.Node, names: set[str]) -> bool:
    return isinstance(node, nodes.Name) and node.name in names


def _is_content_of(node: nodes.Node, messages: set[str]) -> bool:
    match node:
        case (
            nodes.Getattr(node=owner, attr="content")
            | nodes.Getitem(node=owner, arg=nodes.Const(value="content"))
        ):
            while isinstance(owner, nodes.Getitem):  # messages[0].content
                owner = owner.node
            return _is_named(owner, messages)
        case _:
            return False
