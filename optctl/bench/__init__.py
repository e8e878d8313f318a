"""`optctl bench NAME`: the commands behind every performance figure. Each prints the machine, the figures and, where a peer is
installed, the ratio to it in the same run; `--out FOLDER` also writes FOLDER/NAME.json, from which docs/results.md is made
(with `--device cuda`: FOLDER/NAME-cuda.json).

A peer that lives in another environment is found through `--peer-python PATH`.
"""

BENCHES = {
    "envs": "optctl.bench.envs:envs",
    "solvers": "optctl.bench.solvers:solvers",
    "updates": "optctl.bench.updates:updates",
    "lqr": "optctl.bench.learning:lqr",
    "sac": "optctl.bench.learning:sac",
    "warm": "optctl.bench.learning:warm",
    "ablation": "optctl.bench.learning:ablation",
    "optima": "optctl.bench.optima:optima",
    "grape": "optctl.bench.grape:bench_grape",
    "hjb": "optctl.bench.hjb:hjb",
    "thermodynamics": "optctl.bench.thermodynamics:thermodynamics",
    "quantum": "optctl.bench.quantum:quantum",
    "shooting": "optctl.bench.shooting:shooting",
    "cases": "optctl.bench.cases.run:cases",
    "fuzz": "optctl.bench.fuzz:fuzz",
    "equal": "optctl.bench.equality:equal",
    "threads": "optctl.bench.threads:threads",
}
"""Name → module:function. A benchmark is loaded when it is asked for."""
