CLUSTER_PARTS: list = []
