"""JAX: `jit` of `grad` of `vmap` over users; the compiled reference."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from works import HEADS, LAYERS, WIDTH, Arrays, Work

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_platforms", "cpu")


def prepare(work: Work, values: Arrays, batch: Arrays) -> Callable[[], Arrays]:
    params = {name: jnp.asarray(value) for name, value in values.items()}
    rows = {name: jnp.asarray(value) for name, value in batch.items()}
    slow = {name: value for name, value in params.items() if name.startswith("slow.")}
    fast = {name: value for name, value in params.items() if name.startswith("fast.")}
    features, predict = FORWARD[work.kind if work.kind == "sin" else f"{work.kind}_{work.fast}"]

    def task_loss(slow, fast, task):
        support, query = features(slow, task["support_x"]), features(slow, task["query_x"])

        def inner(weights):
            return loss(work, predict(slow, weights, support), task["support_y"])

        for _ in range(work.steps):
            found = jax.grad(inner)(fast)
            fast = {name: w - work.inner_lr * found[name] for name, w in fast.items()}
        return loss(work, predict(slow, fast, query), task["query_y"])

    def objective(slow, fast, rows):
        return jax.vmap(task_loss, in_axes=(None, None, 0))(slow, fast, rows).mean()

    gradient = jax.jit(jax.grad(objective, argnums=(0, 1)))

    def step() -> dict[str, jax.Array]:
        slow_gradient, fast_gradient = jax.block_until_ready(gradient(slow, fast, rows))
        return {**slow_gradient, **fast_gradient}

    return step


def linear(p, name, x):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def hidden(p, part, x):
    x = jax.nn.relu(linear(p, f"{part}.hidden.0", x))
    return jax.nn.relu(linear(p, f"{part}.hidden.2", x))


def head(p, x):
    return linear(p, "fast.head.linear", x)[..., 0]


def embed(p, part, x):
    return p[f"{part}.embedding.weight"][x].reshape(*x.shape[:-1], -1)


def rank(p, name, features):
    state, positive, negative = jnp.split(features, 3, axis=-1)
    wanted = linear(p, name, state)
    return jnp.stack([(wanted * positive).sum(-1), (wanted * negative).sum(-1)], axis=-1)


def norm(p, name, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def transformer(p, lora, x):
    vectors = p["slow.items.weight"][x]
    state, positive, negative = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    length = len(x)
    state = state + p["slow.positions"][:length]
    later = np.triu(np.ones((length, length), bool), 1)
    for layer in range(LAYERS):
        block = f"slow.blocks.{layer}"
        h = norm(p, f"{block}.attention_norm", state)
        parts = {name: linear(p, f"{block}.{name}", h) for name in ("query", "key", "value")}
        if lora is not None:
            for name in ("query", "value"):
                down, up = (lora[f"fast.{layer}_{name}_{side}"] for side in ("down", "up"))
                parts[name] = parts[name] + h @ down.T @ up.T
        query, key, value = (
            parts[name].reshape(length, HEADS, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / np.sqrt(WIDTH // HEADS)
        mixed = jax.nn.softmax(jnp.where(later, -1e9, scores)) @ value
        state = state + linear(p, f"{block}.out", mixed.swapaxes(0, 1).reshape(length, WIDTH))
        inside = linear(p, f"{block}.ffn_in", norm(p, f"{block}.ffn_norm", state))
        state = state + linear(p, f"{block}.ffn_out", jax.nn.relu(inside))
    return jnp.concatenate([norm(p, "slow.norm", state), positive, negative], axis=-1)


def same(_slow, x):
    return x


def loss(work, out, y):
    if work.kind == "seq":
        losses = jax.nn.softplus(-out[..., 0]) + jax.nn.softplus(out[..., 1])
        return (y * losses).sum() / y.sum()
    return ((out - y) ** 2).mean()


# work -> (what does not change in the inner loop, prediction from it)
FORWARD = {
    "sin": (same, lambda _s, f, x: head(f, hidden(f, "fast", x))),
    "mel_head": (lambda s, x: hidden(s, "slow", embed(s, "slow", x)), lambda _s, f, x: head(f, x)),
    "mel_dense": (lambda s, x: embed(s, "slow", x), lambda _s, f, x: head(f, hidden(f, "fast", x))),
    "mel_all": (same, lambda _s, f, x: head(f, hidden(f, "fast", embed(f, "fast", x)))),
    "seq_head": (
        lambda s, x: transformer(s, None, x),
        lambda _s, f, features: rank(f, "fast.linear", features),
    ),
    "seq_lora": (same, lambda s, f, x: rank(s, "slow.head.linear", transformer(s, f, x))),
}
