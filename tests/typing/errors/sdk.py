"""What a type checker must complain of, and with what. Never run, only checked."""

from homing import AsyncClient, Client, InvocationState, Limits, RetryPolicy


def sync(client: Client) -> None:
    Client(50051)  # error: arg-type
    Client("localhost:50051", "key")  # error: call-arg
    client.invoke(7)  # error: arg-type
    client.invoke("f", "x", 5)  # error: call-arg
    client.invoke("f", timeout="5")  # error: arg-type
    client.invoke("f", callback_url="http://localhost")  # error: call-arg
    client.invoke("f", labels={"a": 1})  # error: dict-item
    client.invoke("f", retry_policy=3)  # error: arg-type
    client.invoke_async("f", schedule_time=5)  # error: arg-type
    _ = client.invoke_async("f").result().missing  # error: attr-defined
    client.functions.deploy("f", image="f:1")  # error: call-arg
    client.functions.deploy(image="f:1")  # error: call-arg
    client.functions.deploy(name="f", limits={"pids": 5})  # error: arg-type
    client.functions.deploy(name="f", command=[1])  # error: list-item
    client.watch_results(states=["FAILED"])  # error: list-item
    client.get("id").state = InvocationState.FAILED  # error: misc
    Limits(memory="64Mi")  # error: call-arg
    RetryPolicy(3)  # error: call-arg


async def aio(client: AsyncClient) -> None:
    _ = client.invoke("f").text  # error: attr-defined
    await client.handle("id")  # error: misc
    for _ in client.watch_results():  # error: attr-defined
        pass
    with client:  # error: attr-defined
        pass
