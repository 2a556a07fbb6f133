"""What "good" means for a task, and where its data comes from."""
