"""What each command does, from rows to results. Knows every room below it and nothing of the terminal."""
