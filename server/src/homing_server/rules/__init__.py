"""What requests may say: validation, filters and page tokens; pure."""
