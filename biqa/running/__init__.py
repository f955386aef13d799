"""The work of one run, from its config to result.json."""
