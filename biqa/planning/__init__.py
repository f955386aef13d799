"""What is known before anything runs: which runs there are to be, and what they take."""
