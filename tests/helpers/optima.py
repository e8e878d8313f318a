"""The statements of `optctl bench optima`, for the tests of the solvers; each is made once, and keeps what is built for it."""

import functools

from optctl.bench import known_optima

for _name, _statement in vars(known_optima).items():
    if getattr(_statement, "__module__", None) == known_optima.__name__ and not _name.startswith("_"):
        globals()[_name] = functools.cache(_statement)
