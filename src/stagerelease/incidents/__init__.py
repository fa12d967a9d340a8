"""Floor 9: reports of misuse, from the first word to closing, and the figures watched for it."""
