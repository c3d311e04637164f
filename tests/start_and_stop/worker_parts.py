WORKER_PARTS: list = []
