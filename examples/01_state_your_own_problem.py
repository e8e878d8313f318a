"""A problem of one's own, from statement to comparison: harvesting foxes so that foxes and rabbits stop oscillating.

Lotka–Volterra with a harvest rate u on the predators: r' = r − r f, f' = −f + r f − u f. The equilibrium without harvest is (1, 1).
"""

import argparse

import casadi as ca

import optctl

harvest = optctl.Problem(
    name="harvest",
    state={"rabbits": "1", "foxes": "1"},
    control={"harvest": "1/s"},
    params={"growth": 1.0, "predation": 1.0},
    dynamics=lambda x, u, p: [
        p.growth * x[0] - p.predation * x[0] * x[1],
        p.predation * x[0] * x[1] - x[1] - u[0] * x[1],
    ],
    stage_cost=lambda x, u, p: (x[0] - 1) ** 2 + (x[1] - 1) ** 2 + u[0] ** 2,
    control_bounds={"harvest": (0.0, 1.0)},
    observation=lambda x, p: [ca.log(x[0]), ca.log(x[1])],
    initial_state=optctl.Uniform(low=[0.5, 0.5], high=[2.0, 2.0]),
    dt=0.1,
    steps=150,
    horizon="infinite",
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="training budget of each agent")
    parser.add_argument("--out", default="out/harvest", help="folder for the report")
    options = parser.parse_args()

    env = optctl.make_vec(harvest, num_envs=1024)  # torch in, torch out
    obs, info = env.reset(seed=0)
    print(f"{env.num_envs} environments, observation {tuple(obs.shape)}")

    best = optctl.solve(harvest, x0=[2.0, 0.5])  # trajectory, costates, certificate
    print(best)

    agent = optctl.train("sac", harvest, warm_start=True, budget_seconds=options.seconds)
    report = optctl.compare(harvest, ["optimal", "zero", agent], num_starts=64)
    print(report)
    report.save(options.out)
