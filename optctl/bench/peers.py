"""The peers, measured in an interpreter of their own: `python peers.py sac SEED STEPS` or `python peers.py envs NUM_ENVS`.

Imports nothing of optctl, so that any interpreter that has the peer can run it. Prints one JSON line per figure.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np

warnings.filterwarnings("ignore")


def midpoint_return(act) -> float:
    """Mean return of a deterministic policy on Pendulum-v1 over the 80 × 25 midpoint starts, by Gymnasium's equations."""
    theta = (np.arange(80) + 0.5) / 80 * 2 * np.pi - np.pi
    omega = (np.arange(25) + 0.5) / 25 * 2 - 1
    theta, omega = (a.ravel() for a in np.meshgrid(theta, omega, indexing="ij"))
    total = np.zeros_like(theta)
    for _ in range(200):
        obs = np.stack([np.cos(theta), np.sin(theta), omega], -1).astype(np.float32)
        torque = np.clip(act(obs)[:, 0], -2, 2)
        total -= ((theta + np.pi) % (2 * np.pi) - np.pi) ** 2 + 0.1 * omega**2 + 0.001 * torque**2
        omega = np.clip(omega + (15 * np.sin(theta) + 3 * torque) * 0.05, -8, 8)
        theta = theta + omega * 0.05
    return float(total.mean())


def sac(seed: int, steps: int) -> None:
    """Stable-Baselines3's SAC on Pendulum-v1, evaluated every 1,000 steps; the evaluation's time is not counted."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback

    class Log(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.evaluating = time.perf_counter(), 0.0

        def _on_step(self) -> bool:
            if self.num_timesteps % 1000 == 0:
                before = time.perf_counter()
                value = midpoint_return(lambda obs: self.model.predict(obs, deterministic=True)[0])
                self.evaluating += time.perf_counter() - before
                seconds = time.perf_counter() - self.start - self.evaluating
                figure = {"steps": self.num_timesteps, "return": value, "seconds": seconds}
                print(json.dumps({"peer": "Stable-Baselines3 SAC", "seed": seed} | figure), flush=True)
            return True

    SAC("MlpPolicy", "Pendulum-v1", learning_rate=1e-3, seed=seed).learn(steps, callback=Log())


def _steps_per_second(call: Callable[[], object], steps: int, seconds: float) -> float:
    call()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        call()
        calls += 1
    return calls * steps / (time.perf_counter() - start)


def _gymnasium(num_envs: int, seconds: float) -> dict[str, float]:
    import gymnasium

    env = gymnasium.make_vec("Pendulum-v1", num_envs=num_envs, vectorization_mode="sync")
    env.reset(seed=0)
    action = np.zeros((num_envs, 1), np.float32)
    return {"gymnasium, synchronous vector": _steps_per_second(lambda: env.step(action), num_envs, seconds)}


def _envpool(num_envs: int, seconds: float) -> dict[str, float]:
    import envpool

    env = envpool.make_gymnasium("Pendulum-v1", num_envs=num_envs)
    env.reset()
    action = np.zeros((num_envs, 1), np.float32)
    return {"EnvPool": _steps_per_second(lambda: env.step(action), num_envs, seconds)}


def _gymnax(num_envs: int, seconds: float, length: int = 100) -> dict[str, float]:
    """A jitted step, and a jitted scan of `length` steps with fresh uniform random actions."""
    import gymnax
    import jax
    import jax.numpy as jnp

    env, params = gymnax.make("Pendulum-v1")
    keys = jax.random.split(jax.random.key(0), num_envs)
    _, state = jax.vmap(env.reset, in_axes=(0, None))(keys, params)
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))
    action = jnp.zeros((num_envs, 1))

    @jax.jit
    def one(state):
        return step(keys, state, action, params)

    @jax.jit
    def scan(state, key):
        def body(carry, key):
            random = jax.random.uniform(key, (num_envs, 1), minval=-2.0, maxval=2.0)
            out = step(keys, carry, random, params)
            return out[1], out[2].sum()

        return jax.lax.scan(body, state, jax.random.split(key, length))

    key = jax.random.key(1)
    return {
        "gymnax, jitted step": _steps_per_second(lambda: jax.block_until_ready(one(state)), num_envs, seconds),
        f"gymnax, jitted scan of {length}": _steps_per_second(
            lambda: jax.block_until_ready(scan(state, key)), num_envs * length, seconds
        ),
    }


def envs(num_envs: int, seconds: float = 1.5) -> None:
    """Pendulum-v1 of every peer that is installed, in Python environments at most 1,024 of them."""
    for peer, largest in ((_gymnasium, 1024), (_envpool, 1024), (_gymnax, num_envs)):
        size = min(num_envs, largest)
        try:
            rates = peer(size, seconds)
        except ImportError as error:
            print(f"not installed: {error.name}", file=sys.stderr)
            continue
        for name, rate in rates.items():
            print(json.dumps({"peer": name, "num_envs": size, "steps_per_second": rate}), flush=True)


def quantum(members: int, times: int, repeats: int = 7) -> None:
    """dynamiqs' documented example: sesolve of H = σ_x + w σ_z for many w, as it comes."""
    import dynamiqs as dq
    import jax
    import jax.numpy as jnp

    dq.set_progress_meter(False)
    w, save = np.linspace(0, 10, members), np.linspace(0, 1, times)
    hamiltonian, start = dq.sigmax() + jnp.asarray(w)[:, None, None] * dq.sigmaz(), dq.basis(2, 0)

    def run() -> np.ndarray:
        return np.asarray(jax.block_until_ready(dq.sesolve(hamiltonian, start, jnp.asarray(save)).states.to_jax()))

    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        states = run()
        seconds.append(time.perf_counter() - begin)
    omega = np.sqrt(1 + w**2)[:, None]
    sine = np.sin(omega * save) / omega
    exact = np.stack([np.cos(omega * save) - 1j * w[:, None] * sine, -1j * sine], axis=-1)
    figure = {
        "first_seconds": seconds[0],
        "seconds": float(np.median(seconds[1:])),
        "error": float(np.abs(states[..., 0] - exact).max()),
    }
    print(json.dumps({"peer": f"dynamiqs {dq.__version__}"} | figure))


if __name__ == "__main__":
    peers: dict[str, Callable[..., None]] = {"sac": sac, "quantum": quantum, "envs": envs}
    peers[sys.argv[1]](*map(int, sys.argv[2:]))
