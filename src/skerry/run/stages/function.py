"""Function: a user's own Python as a stage, ``use: module:function``."""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import threading
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import msgspec

from skerry.spec.errors import DependencyError, SpecError, StageError
from skerry.spec.ports import Context, Options
from skerry.spec.record import HELD, Emission, Merged, Outcome, Record
from skerry.spec.units import decode_unit
from skerry.spec.words import did_you_mean

MAX_EMITTED = 100_000
"""Records that one call may return: an endless generator is a mistake and would fill the memory."""
_importing = threading.Lock()


class FunctionOptions(Options, frozen=True, kw_only=True):
    """Which function, and what it is given.

    Parameters
    ----------
    use:
        ``module:name``; the module is looked for in the folder of the pipeline file first. The name is a function, or
        a class with ``process`` and, if it likes, ``open``, ``close`` and ``Options``.
    with_:
        Keyword arguments of the function, or the options of the class (``with:`` in the file).
    """

    shorthand: ClassVar[str] = "use"

    use: str
    with_: dict[str, Any] = msgspec.field(default_factory=dict, name="with")

    def __post_init__(self) -> None:
        module, _, name = self.use.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
            raise ValueError(f"module:function, not {self.use!r}")


class FunctionStage:
    """Call a user's function with each record.

    It takes the fields (a dict), or the whole record where its parameter is annotated ``Record``. It returns a dict
    (the fields from now on; the one it was given, if it changed it in place), ``None`` to stop the record, or a list or
    iterator of dicts for several records. Whatever it raises is the record's failure.
    """

    Options: ClassVar[type[FunctionOptions]] = FunctionOptions

    def __init__(self, options: FunctionOptions) -> None:
        self._options = options
        self._call: Callable[[Any], Any] | None = None
        self._takes_record = False
        self._close: Callable[[], object] | None = None

    def open(self, context: Context) -> None:
        """Import the module and get the function ready.

        Raises
        ------
        SpecError
            There is no such module or function, it cannot be called, or it does not take these options.
        DependencyError
            The module itself imports something that is not installed.
        """
        self.close()
        found = _find(self._options.use, context.home)
        where = f"use: {self._options.use}"
        if inspect.isclass(found):
            call = self._open_class(found, context, where)
        elif callable(found):
            call = _bound(found, self._options.with_, where)
        else:
            raise SpecError(f"{found!r:.60} cannot be called", where=where, expected="a function or a class")
        _refuse_async(call, where)
        self._takes_record = _takes_record(call)
        self._call = call

    def process(self, record: Record) -> Outcome:
        """Return what the function makes of the record; raises what it raises, and ``StageError`` for other types."""
        if self._call is None:
            raise StageError(f"use: {self._options.use} is not open")
        answer = self._call(record if self._takes_record else record.fields)
        if answer is record.fields:
            return record
        return _outcome(record, answer, self._options.use)

    def close(self) -> None:
        """Call ``close`` of a class, once."""
        close, self._close, self._call = self._close, None, None
        if close is not None:
            close()

    def _open_class(self, kind: type[Any], context: Context, where: str) -> Callable[[Any], Any]:
        """Make and open an object of a user's class; return its ``process``."""
        if not callable(getattr(kind, "process", None)):
            raise SpecError(f"class {kind.__name__} has no method process", where=where)
        made = _make(kind, self._options.with_, where)
        opened = getattr(made, "open", None)
        if opened is not None:
            opened(context) if inspect.signature(opened).parameters else opened()
        self._close = getattr(made, "close", None)
        process: Callable[[Any], Any] = made.process
        return process


def _find(use: str, home: Path) -> Any:
    """Import ``module`` of ``module:name`` and return ``name`` of it."""
    module_name, _, name = use.partition(":")
    found: Any = _import(module_name, home, use)
    for part in name.split("."):
        if not hasattr(found, part):
            public = [word for word in vars(found) if not word.startswith("_")]
            raise SpecError(
                f"{module_name} has no {name!r}",
                where=f"use: {use}",
                expected=f"one of {', '.join(public[:20])}" if public else "a function",
                hint=did_you_mean(part, public),
            )
        found = getattr(found, part)
    return found


def _import(name: str, home: Path, use: str) -> ModuleType:
    """Import a module, looked for in ``home`` first; ``sys.path`` is as it was afterwards."""
    with _importing:
        folder = str(home.resolve())
        _forget_other_home(name, folder)
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                here = [path.stem for path in home.glob("*.py")]
                raise SpecError(
                    f"there is no module {name!r} in {home} or among the installed ones",
                    where=f"use: {use}",
                    hint=did_you_mean(name, here),
                ) from error
            raise DependencyError(
                f"module {name!r} imports {error.name!r}, which is not installed", where=f"use: {use}"
            ) from error
        except ImportError as error:
            raise DependencyError(f"module {name!r} cannot be imported: {error}", where=f"use: {use}") from error
        except SyntaxError as error:
            raise SpecError(
                f"module {name!r} is not Python: {error}", where=f"{error.filename}:{error.lineno}"
            ) from error
        except Exception as error:  # a user's module may raise whatever it likes
            raise SpecError(
                f"module {name!r} failed while it was imported: {type(error).__name__}: {error}", where=f"use: {use}"
            ) from error
        finally:
            sys.path.remove(folder)


def _forget_other_home(name: str, folder: str) -> None:
    """Drop a module of the same name that came from elsewhere, so that two pipelines do not share one by accident."""
    top = name.partition(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(top, [folder])
    known = sys.modules.get(top)
    if spec is None or spec.origin is None or known is None or getattr(known, "__file__", None) == spec.origin:
        return
    for loaded in [word for word in sys.modules if word == top or word.startswith(top + ".")]:
        del sys.modules[loaded]


def _make(kind: type[Any], given: Mapping[str, Any], where: str) -> Any:
    """Make an object of a user's class with its options, decoded where it declares a struct for them."""
    declared = getattr(kind, "Options", None)
    try:
        if inspect.isclass(declared) and issubclass(declared, msgspec.Struct):
            return kind(msgspec.convert(dict(given), declared, dec_hook=decode_unit))
        return kind(**given)
    except (msgspec.ValidationError, TypeError) as error:
        raise SpecError(f"{kind.__name__} does not take these options: {error}", where=f"{where}: with") from error


def _bound(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> Callable[[Any], Any]:
    """Return ``function`` with its keyword arguments; raises ``SpecError`` where it does not take them."""
    bound = functools.partial(function, **given) if given else function
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a built-in one that does not say what it takes
        return bound
    try:
        signature.bind({}, **given)
    except TypeError as error:
        raise SpecError(
            f"the function cannot be called with the fields{' and ' + ', '.join(given) if given else ''}: {error}",
            where=f"{where}: with" if given else where,
            expected=f"one argument for the fields; it is {function.__name__}{signature}",
        ) from error
    return bound


def _refuse_async(call: Callable[[Any], Any], where: str) -> None:
    plain = call.func if isinstance(call, functools.partial) else call
    if inspect.iscoroutinefunction(plain) or inspect.isasyncgenfunction(plain):
        raise SpecError(
            "an async function cannot be a stage: a stage is called in a thread, without an event loop",
            where=where,
            hint="write it as a plain function; `workers: 8` runs eight calls at a time",
        )


def _takes_record(call: Callable[[Any], Any]) -> bool:
    """Tell whether the first parameter is annotated as a record."""
    plain = call.func if isinstance(call, functools.partial) else call
    try:
        first = next(iter(inspect.signature(plain).parameters.values()))
    except (StopIteration, TypeError, ValueError):
        return False
    try:
        annotation = typing.get_type_hints(plain).get(first.name, first.annotation)
    except (NameError, TypeError, AttributeError):  # an annotation that only a type checker can resolve
        annotation = first.annotation
    return annotation is Record or (isinstance(annotation, str) and annotation.split(".")[-1] == "Record")


def _outcome(record: Record, answer: Any, use: str) -> Outcome:
    """Turn what a function returned into an outcome."""
    if answer is None or answer is HELD or isinstance(answer, Record | Merged):
        return answer
    if isinstance(answer, dict):
        return record.with_fields(answer)
    if isinstance(answer, list | tuple | Iterator):
        several: list[Emission] = []
        for one in answer:
            several.append(_one(record, one, use))
            if len(several) > MAX_EMITTED:
                raise StageError(f"use: {use} returned more than {MAX_EMITTED} records for one", where=use)
        return several or None
    raise StageError(
        f"use: {use} returned {answer!r:.60} ({type(answer).__name__})",
        expected="a dict of fields, None, or a list or iterator of dicts",
    )


def _one(record: Record, answer: Any, use: str) -> Emission:
    if isinstance(answer, Record | Merged):
        return answer
    if isinstance(answer, dict):
        return record.with_fields(answer)
    raise StageError(f"use: {use} returned {answer!r:.60} among several", expected="dicts of fields")
