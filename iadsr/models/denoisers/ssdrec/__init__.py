"""SSDRec (ICDE 2024)."""
