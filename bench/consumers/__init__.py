"""What `brokerjobs consume` runs in a bench."""
