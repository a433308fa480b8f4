"""Forward and backward passes written out by hand, of many networks of one shape side by side."""
