package example;

import com.google.protobuf.ByteString;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.homing.v1.Command;
import dev.homing.v1.DeployFunctionRequest;
import dev.homing.v1.Function;
import dev.homing.v1.FunctionServiceGrpc;
import dev.homing.v1.InvocationServiceGrpc;
import dev.homing.v1.InvocationSpec;
import dev.homing.v1.InvokeRequest;
import dev.homing.v1.Payload;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.concurrent.TimeUnit;

/** Deploys a function and invokes it. */
public final class FirstCall {
  public static void main(String[] args) throws Exception {
    ManagedChannel channel =
        Grpc.newChannelBuilder("localhost:50051", InsecureChannelCredentials.create())
            .keepAliveTime(30, TimeUnit.SECONDS)
            .maxInboundMessageSize(16 << 20)
            .build();
    Metadata metadata = new Metadata();
    metadata.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER),
        "Bearer " + System.getenv("HOMING_API_KEY"));
    var showKey = MetadataUtils.newAttachHeadersInterceptor(metadata);
    var functions = FunctionServiceGrpc.newBlockingStub(channel).withInterceptors(showKey);
    var invocations = InvocationServiceGrpc.newBlockingStub(channel).withInterceptors(showKey);

    functions
        .withDeadlineAfter(10, TimeUnit.SECONDS)
        .deployFunction(
            DeployFunctionRequest.newBuilder()
                .setFunction(
                    Function.newBuilder()
                        .setName("shout")
                        .setCommand(Command.newBuilder().addArgs("tr").addArgs("a-z").addArgs("A-Z")))
                .build());
    var spec =
        InvocationSpec.newBuilder()
            .setFunction("shout")
            .setPayload(Payload.newBuilder().setData(ByteString.copyFromUtf8("later is better")));
    try {
      var answer =
          invocations
              .withDeadlineAfter(30, TimeUnit.SECONDS)
              .invoke(InvokeRequest.newBuilder().setSpec(spec).build());
      System.out.println(answer.getInvocation().getResult().getPayload().getData().toStringUtf8());
    } catch (StatusRuntimeException error) {
      // Why, for programs, and after what time to come again where that may help.
      for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          System.err.println(detail.unpack(ErrorInfo.class).getReason());
        } else if (detail.is(RetryInfo.class)) {
          System.err.println(detail.unpack(RetryInfo.class).getRetryDelay());
        }
      }
      throw error;
    } finally {
      channel.shutdown();
    }
  }
}
