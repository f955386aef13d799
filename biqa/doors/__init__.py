"""What the doors share: how they are opened and how a mistake is told, options, help, sweeps."""
