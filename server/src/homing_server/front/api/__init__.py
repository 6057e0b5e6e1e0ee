"""The services of the API, and what serves their calls, whatever they come by."""
