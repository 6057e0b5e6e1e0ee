"""What a type checker must complain of, and with what. Never run, only checked."""

from typing import TypedDict

from homing import AsyncClient, Client, InvocationRequest, InvocationState, Limits, RetryPolicy


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


class In(TypedDict):
    width: int


def many(client: Client) -> None:
    client.invoke_batch("f")  # error: arg-type
    client.invoke_batch(["f"])  # error: list-item
    client.invoke_batch("f", ["x"], request_id="r")  # error: call-overload
    client.list_invocations(order="random")  # error: arg-type
    client.list_invocations(created_since="today")  # error: arg-type
    client.map("f", 5)  # error: call-overload
    InvocationRequest("f")  # error: call-arg
    Client(interceptors=[5])  # error: list-item


def controlled(client: Client) -> None:
    client.stop("id", "enough")  # error: call-arg
    client.stop("id", reason=5)  # error: arg-type
    client.rerun("id", {"a": 1})  # error: call-arg
    client.logs("id", follow="yes")  # error: arg-type
    client.count(state=InvocationState.FAILED)  # error: call-arg
    client.bulk_stop(labels={"a": 1})  # error: dict-item
    client.bulk_rerun(max_per_second="5")  # error: arg-type
    client.bulk_stop(function="f", on_progress=lambda counts: counts.accepted)  # error: attr-defined
    client.functions.scale("f", 1, 5)  # error: call-arg


def typed(client: Client) -> None:
    client.function("f")  # error: call-arg
    resize = client.function("resize", input=In, output=str)
    resize({"width": "x"})  # error: typeddict-item
    resize("x")  # error: arg-type
    resize({"width": 5}, callback_url="http://localhost")  # error: call-arg
    resize({"width": 5}, labels={"a": 1})  # error: dict-item
    _: int = resize({"width": 5})  # error: assignment
    resize.invoke_async(5)  # error: arg-type
    resize.map(["x"])  # error: list-item


async def aio(client: AsyncClient) -> None:
    _ = client.invoke("f").text  # error: attr-defined
    await client.handle("id")  # error: misc
    for _ in client.watch_results():  # error: attr-defined
        pass
    with client:  # error: attr-defined
        pass
