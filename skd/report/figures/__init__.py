"""The report's figures, each with the numbers it shows. Refuses to know files."""
