"""Jobs that journal each of their runs, and do what their arguments say."""
