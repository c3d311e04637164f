"""The dispatcher: takes the tasks of all pools of a cluster, and gives them to their processes."""
