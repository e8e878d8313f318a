"""What the threads of a process share: objects that are built once, and solvers with a state.

CasADi and Warp let go of Python's lock while they work, and a solver object (IPOPT's memory, its limits, a kernel that is being
compiled) serves one caller at a time. So threads take turns: one solve or one build at a time in a process, in any number of threads.
Each gets the answer that it would get alone, and waits for it outside its own time limit. To solve side by side use processes;
stepping environments and evaluating what is built need no turn.

A fork waits for its turn too: a child never inherits a solver in the midst of its work.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

TURN = threading.RLock()
"""Held by the thread whose turn it is."""

os.register_at_fork(before=TURN.acquire, after_in_parent=TURN.release, after_in_child=TURN.release)

_MISSING: Any = object()


def in_turn(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The function, called by one thread at a time among all functions so marked; it may call others of them."""

    @functools.wraps(function)
    def call(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        with TURN:
            return function(*arguments, **options)

    return call


def kept(build: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """`build(owner, *key)`, called once for each owner and key. The result is kept with the owner (in its `__dict__`), lives as long,
    and may refer to it; every thread gets the same one."""

    @functools.wraps(build)
    def get(*arguments: _Arguments.args, **none: _Arguments.kwargs) -> _Result:
        owner, *key = arguments
        store, place = owner.__dict__.setdefault("_kept", {}), (build, *key)
        found = store.get(place, _MISSING)
        if found is _MISSING:
            with TURN:
                found = store.get(place, _MISSING)
                if found is _MISSING:
                    found = store[place] = build(*arguments, **none)
        return found

    return get


if TYPE_CHECKING:
    once = cached_property
else:

    class once(cached_property):
        """`functools.cached_property`, computed by one thread for all of them."""

        def __get__(self, instance, owner=None):
            with TURN:
                return super().__get__(instance, owner)
