"""Several worker processes under one parent: started, watched, replaced, drained, and never left behind."""
