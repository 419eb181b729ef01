"""What a person would rather look at: the ``table`` of a model's parameters."""
