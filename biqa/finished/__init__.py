"""What a finished run is good for: its answers looked into, and pictures that no data set holds."""
