"""Teaching a student: objectives, taps, teacher outputs and the training loop."""
