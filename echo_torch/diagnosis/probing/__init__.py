"""Does a model do with a state what it must? One input is changed at a time."""
