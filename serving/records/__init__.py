"""What stays behind of a request and proves where it was served: the audit log, receipts, the keys that sign both."""
