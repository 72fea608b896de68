"""Publishing: every target read with its own client; twice is once, killed and carried on is once."""
