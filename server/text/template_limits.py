"""What keeps a chat template from computing for ever: the time is checked in every turn of a loop and every call."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import unwrap
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from jinja2 import Environment, TemplateError, nodes, pass_context
from jinja2.ext import Extension
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import _PassArg

from server.text.errors import TextError
from server.text.template_sizes import (
    MAX_REPEATED,
    check_filter,
    check_method,
    check_percent,
    check_size,
    check_written,
)

CLOCK = "_clock"  # what a template is given beside its own names


class TooSlow(TextError):
    """The time was over before the template was."""


class Clock:
    """The time of one rendering."""

    __slots__ = ("_deadline", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds

    def tick(self) -> None:
        """Raises TooSlow."""
        if time.monotonic() > self._deadline:
            raise TooSlow(
                f"messages: the chat takes longer than {self._seconds:g} s to render", field="messages"
            )


def clock_of(context: Context) -> Clock:
    clock = context.parent[CLOCK]
    if not isinstance(clock, Clock):
        raise TemplateError(f"{CLOCK} is no name for a template's own value")
    return clock


class Ticks(Extension):
    """What `add_ticks` puts into a template. Templates cannot name it, nor put another clock in its place."""

    @pass_context
    def tick(self, context: Context) -> str:
        clock_of(context).tick()
        return ""

    def joined(self, *parts: object) -> str:
        """What `~` makes."""
        check_written("~", *parts)
        texts = [str(part) for part in parts]
        check_size("~", sum(map(len, texts)))
        return "".join(texts)


def add_ticks(template: nodes.Template, environment: Environment) -> nodes.Template:
    """The tree itself, with a tick at the head of every body that may run again and again."""
    for body in list(template.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
        assert isinstance(body, nodes.For | nodes.Macro | nodes.CallBlock)
        body.body.insert(0, nodes.ExprStmt(_call("tick", [], body.lineno), lineno=body.lineno))
    for loop in list(template.find_all(nodes.For)):
        if loop.test is not None:  # it runs for what the loop leaves out, too
            is_early = nodes.Not(_call("tick", [], loop.lineno), lineno=loop.lineno)
            loop.test = nodes.And(is_early, loop.test, lineno=loop.lineno)
    for concat in list(template.find_all(nodes.Concat)):
        concat.nodes = [_call("joined", concat.nodes, concat.lineno)]
    template.set_environment(environment)
    return template


def _call(name: str, arguments: list[nodes.Expr], lineno: int) -> nodes.Call:
    method = nodes.ExtensionAttribute(Ticks.identifier, name, lineno=lineno)
    return nodes.Call(method, arguments, [], None, None, lineno=lineno)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, which also keeps one operation from taking all time and memory."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def limit(self) -> None:
        """To be called once, when all filters are there."""
        self.finalize = _written
        self.filters = {name: _limited(name, function) for name, function in self.filters.items()}
        del self.globals["lipsum"]  # as many words as one likes

    def call(self, context: Context, function: Any, *args: Any, **options: Any) -> Any:
        clock_of(context).tick()
        method = unwrap(function) if isinstance(function, FunctionType) else function  # `format` is wrapped
        if isinstance(method, BuiltinMethodType | MethodType):
            check_method(method.__name__, method.__self__, (*args, *options.values()))
        return super().call(context, function, *args, **options)

    def call_test(
        self,
        name: str,
        value: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        context: Context | None = None,
        eval_ctx: EvalContext | None = None,
    ) -> Any:
        """For each of the items that a filter looks at."""
        if context is not None:
            clock_of(context).tick()
        return super().call_test(name, value, args, kwargs, context, eval_ctx)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        match operator, left, right:
            case "+", str() | list() | tuple(), str() | list() | tuple():
                check_size("+", len(left) + len(right))
            case "*", str() | bytes() | list() | tuple(), int():
                check_size("*", len(left) * right, MAX_REPEATED)
            case "*", int(), str() | bytes() | list() | tuple():
                check_size("*", left * len(right), MAX_REPEATED)
            case "*", int(), int():
                check_size("*", left.bit_length() + right.bit_length(), MAX_REPEATED)
            case "**", int(), int():
                check_size("**", left.bit_length() * right, MAX_REPEATED)
            case "%", str(), _:
                check_percent(left, right)
        return super().call_binop(context, operator, left, right)


def _written(value: object) -> object:
    """What is put out."""
    check_written("a value", value)
    return value


def _limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter with a tick before it, and its sizes checked. One that wants the context is not computed before there is one."""
    wanted = _PassArg.from_obj(function)

    @pass_context
    def limited(context: Context, value: object = "", *args: Any, **options: Any) -> Any:
        clock = clock_of(context)
        clock.tick()
        value = _ticking(clock, value) if isinstance(value, Iterator) else value
        check_filter(name, value, (*args, *options.values()))
        match wanted:
            case None:
                return function(value, *args, **options)
            case _PassArg.context:
                return function(context, value, *args, **options)
            case _PassArg.eval_context:
                return function(context.eval_ctx, value, *args, **options)
            case _PassArg.environment:
                return function(context.environment, value, *args, **options)

    return limited


def _ticking(clock: Clock, items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        clock.tick()
        yield item
