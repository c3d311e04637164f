CLIENT_PARTS: list = []
