"""The files of a finished run as typed values. Refuses to compute statistics and to write words."""
