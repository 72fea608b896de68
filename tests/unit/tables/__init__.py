"""Reading and writing tables. A package, so that its helper is importable and its file names are its own."""
