"""The registry of clusters as clients follow it: who is a member now, in a thread beside the calls."""
