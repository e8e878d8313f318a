"""Multilayer perceptrons whose parameters are one flat tensor, and the actor and critic made of them.

The networks of control problems are small, and the time of an update at 64 units goes mostly into starting operations. Hence:

* the parameters of an ensemble are one tensor `flat` (members, parameters): Adam, Polyak averaging and copying are one operation
  each; weights and biases are views into it;
* all members run in one batched product (`baddbmm`);
* a layer works feature first, (members, features, batch): the narrow last layer is then a product with a long row, eight times as
  fast on a CPU as with a tall column. Callers see batch first; the transposition is a view;
* every network has two faces. Called, it is an ordinary differentiable function of its input and `flat`, to any order, for losses
  such as costate regression that differentiate through dQ/dx. `forward` and `backward` are the same function and its gradient
  written out, twice as fast as autograd at this size, which is what the agents' own losses use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from optctl.learning.ops.gaussian import tanh_gaussian_gradient, tanh_gaussian_sample

ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    # name: (function, (gradient of the output, input) -> gradient of the input)
    "relu": (torch.relu, lambda grad, z: torch.ops.aten.threshold_backward(grad, z, 0)),
    "silu": (torch.nn.functional.silu, torch.ops.aten.silu_backward),
    "tanh": (torch.tanh, lambda grad, z: torch.ops.aten.tanh_backward(grad, torch.tanh(z))),
}


class Tape(NamedTuple):
    """What the gradients of an `MLP` need of its `forward`."""

    inputs: list[Tensor]  # of each layer, (members, in, batch)
    hidden: list[Tensor]  # before each activation, (members, out, batch)
    inverse_std: list[Tensor]  # of each layer norm, (members, 1, batch)


class MLP:
    """`members` perceptrons of the same shape: linear, activation, …, linear.

    sizes: widths (in, hidden…, out). layer_norm: normalise each hidden layer before its activation, without learnt scale, as
    (z - mean) / sqrt(variance + 1e-5). Weights and biases start as U(-1, 1) / sqrt(fan in), the last layer times `last_scale`.

    `flat` (members, parameters) holds everything, per member W1, b1, W2, b2, …, each W row-major (out, in); `values` is the same
    storage without gradient, to read, copy and write: `mlp.values.copy_(other.values)`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        generator: torch.Generator,
        members: int = 1,
        activation: str = "relu",
        layer_norm: bool = False,
        last_scale: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.sizes, self.members, self.layer_norm = tuple(sizes), members, layer_norm
        self.activation, self.activation_backward = ACTIVATIONS[activation]
        self.shapes = list(pairwise(self.sizes))  # (in, out) of each layer
        count = sum((fan_in + 1) * fan_out for fan_in, fan_out in self.shapes)
        uniform = torch.rand(members, count, device=generator.device, dtype=dtype, generator=generator)
        self.values = (2 * uniform - 1).to(device)
        self.flat = self.values.detach().requires_grad_()
        self.gradient = torch.zeros_like(self.values)  # where `backward` writes
        self.weights, self.biases = self.split(self.values)
        self.weight_gradients, self.bias_gradients = self.split(self.gradient)
        for (fan_in, _), weight, bias in zip(self.shapes, self.weights, self.biases, strict=True):
            weight.div_(math.sqrt(fan_in))
            bias.div_(math.sqrt(fan_in))
        self.weights[-1].mul_(last_scale)
        self.biases[-1].mul_(last_scale)

    def split(self, flat: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Views of a flat tensor: weights (members, out, in) and biases (members, out, 1) of each layer."""
        weights, biases, start = [], [], 0
        for fan_in, fan_out in self.shapes:
            weights.append(flat[:, start : start + fan_in * fan_out].unflatten(1, (fan_out, fan_in)))
            start += fan_in * fan_out
            biases.append(flat[:, start : start + fan_out].unsqueeze(-1))
            start += fan_out
        return weights, biases

    def __call__(self, x: Tensor, flat: Tensor | None = None) -> Tensor:
        """(in, batch), for every member, or (members, in, batch) -> (members, out, batch), differentiable in x and `flat`.

        flat: parameters to use instead of the network's own.
        """
        weights, biases = self.split(self.flat if flat is None else flat)
        x = x.expand(self.members, *x.shape[-2:])
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = torch.baddbmm(bias, weight, x)
            if self.layer_norm:
                x, _ = _layer_norm(x)
            x = self.activation(x)
        return torch.baddbmm(biases[-1], weights[-1], x)

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[Tensor, Tape]:
        """The same values, and the tape for the two gradients below."""
        tape = Tape([x.expand(self.members, *x.shape[-2:])], [], [])
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = torch.baddbmm(bias, weight, tape.inputs[-1])
            if self.layer_norm:
                z, inverse_std = _layer_norm(z)
                tape.inverse_std.append(inverse_std)
            tape.hidden.append(z)
            tape.inputs.append(self.activation(z))
        return torch.baddbmm(self.biases[-1], self.weights[-1], tape.inputs[-1]), tape

    @torch.no_grad()
    def backward(self, tape: Tape, grad: Tensor) -> Tensor:
        """dL/dflat from dL/dy, `grad` (members, out, batch): the network's own buffer, overwritten by the next call.

        Where `grad` has fewer columns than the forward pass had, it is the gradient of the first ones and the rest have none.
        """
        columns = grad.shape[-1]
        for layer in reversed(range(len(self.shapes))):
            torch.bmm(grad, tape.inputs[layer][..., :columns].mT, out=self.weight_gradients[layer])
            torch.sum(grad, -1, keepdim=True, out=self.bias_gradients[layer])
            if layer > 0:
                grad = self._through_hidden(tape, layer, grad)
        return self.gradient

    @torch.no_grad()
    def input_gradient(self, tape: Tape, grad: Tensor) -> Tensor:
        """dL/dx, (members, in, batch), from dL/dy."""
        for layer in reversed(range(1, len(self.shapes))):
            grad = self._through_hidden(tape, layer, grad)
        return torch.bmm(self.weights[0].mT, grad)

    def _through_hidden(self, tape: Tape, layer: int, grad: Tensor) -> Tensor:
        """dL/d(output of linear `layer` - 1) from dL/d(output of linear `layer`)."""
        z = tape.hidden[layer - 1][..., : grad.shape[-1]]
        grad = self.activation_backward(torch.bmm(self.weights[layer].mT, grad), z)
        if self.layer_norm:
            grad = grad - grad.mean(1, keepdim=True) - z * (grad * z).mean(1, keepdim=True)
            grad = grad * tape.inverse_std[layer - 1][..., : grad.shape[-1]]
        return grad


def _layer_norm(z: Tensor) -> tuple[Tensor, Tensor]:
    """(z - mean) / sqrt(variance + 1e-5) over the features, and 1 / sqrt(variance + 1e-5)."""
    variance, mean = torch.var_mean(z, 1, correction=0, keepdim=True)
    inverse_std = torch.rsqrt(variance + 1e-5)
    return (z - mean) * inverse_std, inverse_std


class ActorTape(NamedTuple):
    """What `Actor.backward` needs of a `forward`; feature first."""

    mlp: Tape
    noise: Tensor
    raw_log_std: Tensor  # before it is clamped
    log_std: Tensor
    action: Tensor  # tanh(u)


class Actor:
    """Squashed-Gaussian policy: observation -> mean and log standard deviation of u, a = clamp(stretch tanh(u), -1, 1).

    The log standard deviation is clamped to `log_std_range`. Source: Haarnoja et al. 2018, arXiv 1812.05905, appendix C. tanh only
    approaches its bounds, where bang-bang optima live: a `stretch` a little above 1 reaches them. Gradients pass the clamp
    unchanged, and the density leaves the constant -log(stretch) out. `options` go to the `MLP`.
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        *,
        hidden: Sequence[int] = (64, 64),
        log_std_range: tuple[float, float] = (-5.0, 2.0),
        stretch: float = 1.0,
        **options,
    ):
        self.action_dim, self.log_std_range, self.stretch = action_dim, log_std_range, stretch
        self.mlp = MLP((obs_dim, *hidden, 2 * action_dim), **options)

    def __call__(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, obs_dim) -> mean and log standard deviation of u before the tanh, each (batch, action_dim). Differentiable."""
        mean, log_std = self.mlp(obs.mT)[0].split(self.action_dim)
        return mean.mT, log_std.clamp(*self.log_std_range).mT

    def policy(self, obs: Tensor) -> Tensor:
        """(batch, obs_dim) -> clamp(stretch tanh(mean)), (batch, action_dim), differentiable."""
        return self.bounded(self(obs)[0].tanh())

    @torch.no_grad()
    def imitation(self, out: Tensor, action: Tensor, log_std: float) -> tuple[Tensor, Tensor]:
        """Error a(μ) − a* (action_dim, batch) for raw outputs `out`, and batch times the slopes of the loss in `out`.

        The loss is mean |a(μ) − a*|² + 0.01 mean (log σ − log_std)².
        """
        mean, own_log_std = out.chunk(2)
        squashed = mean.tanh()
        error = self.bounded(squashed) - action
        return error, torch.cat((2 * self.stretch * error * (1 - squashed.square()), 0.02 * (own_log_std - log_std)))

    @torch.no_grad()
    def mean_action(self, obs: Tensor) -> Tensor:
        """(batch, obs_dim) -> clamp(stretch tanh(mean)), (batch, action_dim): the deterministic policy."""
        return self.bounded(self.mlp.forward(obs.mT)[0][0, : self.action_dim].tanh()).mT

    def bounded(self, squashed: Tensor) -> Tensor:
        """clamp(stretch * squashed, -1, 1)."""
        return squashed if self.stretch == 1.0 else (self.stretch * squashed).clamp(-1.0, 1.0)

    @torch.no_grad()
    def forward(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, ActorTape]:
        """Action (batch, action_dim) and log-probability (batch,) for standard normal `noise` (batch, action_dim), and the tape."""
        output, tape = self.mlp.forward(obs.mT)
        mean, raw_log_std = output[0].split(self.action_dim)
        log_std, noise = raw_log_std.clamp(*self.log_std_range), noise.mT
        action, log_prob = tanh_gaussian_sample(mean, log_std, noise, dim=0)
        return self.bounded(action).mT, log_prob, ActorTape(tape, noise, raw_log_std, log_std, action)

    @torch.no_grad()
    def backward(self, tape: ActorTape, grad_action: Tensor, grad_log_prob: Tensor) -> Tensor:
        """dL/dflat from dL/daction (batch, action_dim) and dL/dlog_prob (batch,) or (1,): the network's own buffer.

        Fewer rows than the forward pass had are the first ones, as in `MLP.backward`.
        """
        rows = grad_action.shape[0]
        mlp_tape, noise, raw_log_std, log_std, action = tape
        log_std = log_std[:, :rows]
        grad_mean, grad_log_std = tanh_gaussian_gradient(
            action[:, :rows], log_std, noise[:, :rows], self.stretch * grad_action.mT, grad_log_prob
        )
        grad_log_std = torch.where(log_std == raw_log_std[:, :rows], grad_log_std, 0)
        return self.mlp.backward(mlp_tape, torch.cat((grad_mean, grad_log_std)).unsqueeze(0))


class DeterministicActor:
    """Deterministic policy a = clamp(stretch tanh(u), -1, 1) with u the network's output; see `Actor`. `options` go to the `MLP`."""

    def __init__(
        self, obs_dim: int, action_dim: int, *, hidden: Sequence[int] = (64, 64), stretch: float = 1.0, **options
    ):
        self.action_dim, self.stretch = action_dim, stretch
        self.mlp = MLP((obs_dim, *hidden, action_dim), **options)

    def policy(self, obs: Tensor) -> Tensor:
        """(batch, obs_dim) -> actions (batch, action_dim), differentiable."""
        return self._bounded(self.mlp(obs.mT)[0].tanh()).mT

    @torch.no_grad()
    def mean_action(self, obs: Tensor) -> Tensor:
        """(batch, obs_dim) -> actions (batch, action_dim)."""
        return self._bounded(self.mlp.forward(obs.mT)[0][0].tanh()).mT

    def _bounded(self, squashed: Tensor) -> Tensor:
        return squashed if self.stretch == 1.0 else (self.stretch * squashed).clamp(-1.0, 1.0)

    @torch.no_grad()
    def forward(self, obs: Tensor) -> tuple[Tensor, tuple[Tape, Tensor]]:
        """Actions (batch, action_dim), and the tape."""
        output, tape = self.mlp.forward(obs.mT)
        squashed = output[0].tanh()
        return self._bounded(squashed).mT, (tape, squashed)

    @torch.no_grad()
    def backward(self, tape: tuple[Tape, Tensor], grad_action: Tensor) -> Tensor:
        """dL/dflat from dL/daction (batch, action_dim); gradients pass the clamp unchanged."""
        mlp_tape, squashed = tape
        return self.mlp.backward(mlp_tape, (self.stretch * grad_action.mT * (1 - squashed.square())).unsqueeze(0))

    @torch.no_grad()
    def imitation(self, out: Tensor, action: Tensor, log_std: float) -> tuple[Tensor, Tensor]:
        """As `Actor.imitation`, without a standard deviation: the loss is mean |a − a*|²."""
        squashed = out.tanh()
        error = self._bounded(squashed) - action
        return error, 2 * self.stretch * error * (1 - squashed.square())


class Critic:
    """Ensemble of action values: (observation, action) -> Q of every member. `options` go to the `MLP`."""

    def __init__(self, obs_dim: int, action_dim: int, *, hidden: Sequence[int] = (64, 64), members: int = 2, **options):
        self.obs_dim = obs_dim
        self.mlp = MLP((obs_dim + action_dim, *hidden, 1), members=members, **options)

    def __call__(self, obs: Tensor, action: Tensor) -> Tensor:
        """(batch, obs_dim), (batch, action_dim) -> (members, batch). Differentiable to any order, also in both arguments."""
        return self.mlp(torch.cat((obs.mT, action.mT))).squeeze(1)

    @torch.no_grad()
    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tape]:
        """The same values, and the tape for the two gradients below."""
        q, tape = self.mlp.forward(torch.cat((obs.mT, action.mT)))
        return q.squeeze(1), tape

    def backward(self, tape: Tape, grad: Tensor) -> Tensor:
        """dL/dflat from dL/dQ (members, batch): the network's own buffer."""
        return self.mlp.backward(tape, grad.unsqueeze(1))

    def action_gradient(self, tape: Tape, grad: Tensor) -> Tensor:
        """dL/daction (batch, action_dim) from dL/dQ (members, batch)."""
        return self.mlp.input_gradient(tape, grad.unsqueeze(1)).sum(0)[self.obs_dim :].mT
