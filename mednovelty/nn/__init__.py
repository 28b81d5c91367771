"""Networks only: no loss, no score, no paper."""
