"""What every rank is doing, how long it takes, and which one the others wait for."""
