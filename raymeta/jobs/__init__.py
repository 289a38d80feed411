"""Running a verb on a Ray cluster: what is sent, submitting it, following and stopping it."""
