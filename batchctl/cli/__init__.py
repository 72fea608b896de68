"""The command line: one function a command, its options, what it prints and the exit code. No logic of its own."""
