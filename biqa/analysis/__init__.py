"""What a finished run looks like from inside: does the verdict follow from the description, where is it decided, what is attended to."""
