"""What both clients share: everything but the calls themselves."""
