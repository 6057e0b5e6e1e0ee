"""The functions as this server knows them."""
