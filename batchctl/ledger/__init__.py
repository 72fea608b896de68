"""What is known of every job, in one SQLite file a workspace: schema, guarded moves, and the questions asked of it."""
