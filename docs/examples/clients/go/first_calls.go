// First calls with homing from Go: now, later, and watching.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"math/rand/v2"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	homingv1 "homing.dev/go/homing/v1"
)

// connect returns a connection that shows an API key with each call. It connects with the first one.
func connect(target, key string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(apiKey(key)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	)
}

type apiKey string

func (k apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(k)}, nil
}

// RequireTransportSecurity is true where keys must not travel without TLS.
func (apiKey) RequireTransportSecurity() bool { return false }

// reason returns why a call was refused, for programs; it is empty where no server of homing's answered.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "homing.dev" {
			return info.Reason
		}
	}
	return ""
}

// fields returns what is wrong with a request, by the path of the field.
func fields(err error) map[string]string {
	wrong := map[string]string{}
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.FieldViolations {
				wrong[violation.Field] = violation.Description
			}
		}
	}
	return wrong
}

// retried makes an idempotent call again while that may help and its context lasts.
func retried[T any](ctx context.Context, call func() (T, error)) (T, error) {
	for backoff := 200 * time.Millisecond; ; backoff = min(2*backoff, 5*time.Second) {
		answer, err := call()
		delay, again := retryDelay(err, backoff)
		if !again {
			return answer, err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return answer, err
		}
	}
}

// retryDelay says whether a call may be made again, and when: where the server could not be reached, or said when.
func retryDelay(err error, backoff time.Duration) (time.Duration, bool) {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.RetryDelay.AsDuration(), true
		}
	}
	return time.Duration(rand.Int64N(int64(backoff))), status.Code(err) == codes.Unavailable
}

// results yields what ends, each once, and bookmarks, of which the first says that the watch is in place. It goes on where
// a connection was lost, and ends with an error that is to be looked at.
func results(
	ctx context.Context, client homingv1.InvocationServiceClient, filter *homingv1.InvocationFilter,
) iter.Seq2[*homingv1.WatchResultsResponse, error] {
	return func(yield func(*homingv1.WatchResultsResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		request := &homingv1.WatchResultsRequest{Filter: filter}
		for {
			stream, err := client.WatchResults(ctx, request)
			for err == nil {
				var message *homingv1.WatchResultsResponse
				if message, err = stream.Recv(); err == nil {
					if !yield(message, nil) {
						return
					}
					request.ResumeToken = message.ResumeToken
				}
			}
			delay, again := retryDelay(err, time.Second)
			if !again && !errors.Is(err, io.EOF) && reason(err) != "SLOW_CONSUMER" {
				yield(nil, err)
				return
			}
			time.Sleep(delay)
		}
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := connect(os.Getenv("HOMING_TARGET"), os.Getenv("HOMING_API_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	functions := homingv1.NewFunctionServiceClient(conn)
	invocations := homingv1.NewInvocationServiceClient(conn)

	_, err = functions.DeployFunction(ctx, &homingv1.DeployFunctionRequest{Function: &homingv1.Function{
		Name:   "shout",
		Source: &homingv1.Function_Command{Command: &homingv1.Command{Args: []string{"tr", "a-z", "A-Z"}}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	spec := &homingv1.InvocationSpec{
		Function: "shout",
		Payload:  &homingv1.Payload{Body: &homingv1.Payload_Data{Data: []byte("later is better")}},
	}
	now, err := invocations.Invoke(ctx, &homingv1.InvokeRequest{Spec: spec})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", now.Invocation.Result.Payload.GetData())

	later, err := retried(ctx, func() (*homingv1.InvokeAsyncResponse, error) {
		return invocations.InvokeAsync(ctx, &homingv1.InvokeAsyncRequest{Spec: spec, RequestId: "order-7"})
	})
	if err != nil {
		log.Fatal(err)
	}
	ended, err := invocations.WaitInvocation(ctx, &homingv1.WaitInvocationRequest{Id: later.Invocation.Id})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ended.Invocation.State)

	_, err = invocations.Invoke(ctx, &homingv1.InvokeRequest{Spec: &homingv1.InvocationSpec{Function: "No such"}})
	fmt.Println(status.Code(err), reason(err), fields(err))

	asked := false
	for message, err := range results(ctx, invocations, &homingv1.InvocationFilter{Functions: []string{"shout"}}) {
		if err != nil {
			log.Fatal(err)
		}
		if !asked {
			asked = true
			if _, err := invocations.InvokeAsync(ctx, &homingv1.InvokeAsyncRequest{Spec: spec}); err != nil {
				log.Fatal(err)
			}
		}
		if ended := message.GetInvocation(); ended != nil {
			fmt.Println("watched", ended.State)
			break
		}
	}
}
