"""What is said: findings, the errors that carry them, and their text."""
