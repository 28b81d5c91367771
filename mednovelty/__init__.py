"""mednovelty: what in this scan would surprise a model that has only seen healthy ones?"""
