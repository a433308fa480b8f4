"""A loader of one's own, looked at by `reach_of`: what had a row of the batch read when it was asked?

The loader runs over the numbers 0, 1, 2, ... instead of the data: then a batch says itself where its rows stand.
"""

from torch.utils.data import DataLoader, Dataset

from echo_torch import explain, reach_of

STEPS, ROWS = 10, 4


class Windows(Dataset):
    """Consecutive windows of one long series, as one often meets them."""

    def __init__(self, series):
        self.series = series

    def __len__(self):
        return len(self.series) // STEPS

    def __getitem__(self, number):
        return self.series[number * STEPS : (number + 1) * STEPS]


def aligned(series):
    """The same windows in another order: row i of each batch goes on where row i of the batch before stopped."""
    windows, per_row = Windows(series), len(series) // STEPS // ROWS
    order = [row * per_row + place for place in range(per_row) for row in range(ROWS)]
    return DataLoader(windows, batch_size=ROWS, sampler=order)


def look(name, make_loader, lag=12):
    """The answer lies twelve steps back, in the chunk before: only the carried state can bring it."""
    found = reach_of(make_loader, length=1000, lag=lag)
    print(f"{name}: gap {found.gap}, answers read before: {found.reachable_share:.0%}\n  {explain(found)}")
    return found


if __name__ == "__main__":
    look("windows in order", lambda series: DataLoader(Windows(series), batch_size=ROWS))
    look("windows by row", aligned)
