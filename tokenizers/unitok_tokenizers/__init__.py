"""Words and pictures to ids and back."""
