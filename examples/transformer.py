"""A small transformer whose state is its cache: the keys and values of the last steps.

    python train.py --mode aligned --model examples.transformer:CachedAttention --model-options "window=6"

The cache has a fixed length, so that one lane of it can be reset alone; `is_there` says which places hold something.
"""

import torch
from torch import Tensor, nn

from echo_torch import one_hot_encode


class CachedAttention(nn.Module):
    """One layer of attention over the last `window` steps and the current one, with a learned bias for each distance.

    Args:
        vocabulary_size: Number of different symbols.
        width: Numbers that stand for a symbol, a multiple of `heads`.
        heads: Attention heads.
        window: Steps that the cache holds.
    """

    def __init__(self, vocabulary_size: int, width: int = 64, heads: int = 2, window: int = 6):
        super().__init__()
        self.vocabulary_size, self.heads, self.window = vocabulary_size, heads, window
        self.read = nn.Linear(vocabulary_size, 3 * width, bias=False)
        self.nearness = nn.Parameter(torch.zeros(heads, window + 1))
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, vocabulary_size))

    def initial_state(self, num_lanes: int) -> dict[str, Tensor]:
        """An empty cache: keys and values (lanes, heads, window, width / heads), is_there (lanes, window)."""
        shape = (num_lanes, self.heads, self.window, self.read.out_features // 3 // self.heads)
        empty = self.read.weight.new_zeros(shape)
        return {"keys": empty, "values": empty, "is_there": torch.zeros_like(empty[:, 0, :, 0], dtype=torch.bool)}

    def forward(self, symbols: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Symbols (lanes, steps) to logits (lanes, steps, vocabulary_size) and the cache after the last step."""
        lanes, steps = symbols.shape
        inputs = self.read(one_hot_encode(symbols, self.vocabulary_size).to(self.read.weight.dtype))
        queries, *new = inputs.view(lanes, steps, self.heads, -1).transpose(1, 2).chunk(3, dim=-1)
        keys, values = torch.cat([state["keys"], new[0]], dim=2), torch.cat([state["values"], new[1]], dim=2)
        is_there = torch.cat([state["is_there"], torch.ones_like(symbols, dtype=torch.bool)], dim=1)
        place = torch.arange(steps + self.window, device=symbols.device)
        distance = place[self.window :, None] - place  # 0 is the step itself, negative what is still to come
        is_seen = (distance >= 0) & (distance <= self.window) & is_there[:, None, None]
        scores = queries @ keys.transpose(2, 3) + self.nearness[:, distance.clamp(0, self.window)]
        found = scores.masked_fill(~is_seen, -torch.inf).softmax(dim=-1) @ values
        kept = {"keys": keys[:, :, steps:], "values": values[:, :, steps:], "is_there": is_there[:, steps:]}
        return self.head(found.transpose(1, 2).flatten(2)), kept
