"""What a loss or a block does to parameters, and putting everything back."""
