"""Other people's checkpoints: tables of names, no logic."""
