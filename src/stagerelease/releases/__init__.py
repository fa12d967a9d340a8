"""Floor 5: plans, tracks, promotion requests, gates, approvals and holds."""
