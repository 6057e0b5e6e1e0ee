"""Text in, text out: the smallest function there is."""

from homing_function import Context, function


@function
def greeting(name: str, ctx: Context) -> str:
    """Greet whoever is named."""
    return f"Hello {name or 'you'}, this is attempt {ctx.attempt}\n"
