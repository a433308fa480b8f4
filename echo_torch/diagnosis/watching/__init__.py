"""What does a training do with its state? Seen at the recurrent layers, without a word from the user."""
