package main

import (
	"context"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	homingv1 "homing.dev/go/homing/v1"
)

// errorInfo reads the reason of an error, and what it is about.
func (s *Suite) errorInfo() {
	_, err := s.root.GetFunction(background, &homingv1.GetFunctionRequest{Name: "nobody"})
	info := refused(err, codes.NotFound, "FUNCTION_NOT_FOUND")
	equal(info.Metadata["function"], "nobody", "the function")
}

// badRequest reads which fields break rules, all of them at once.
func (s *Suite) badRequest() {
	s.deploy("picky", "cat")
	wrong := spec("picky", make([]byte, 300<<10))
	wrong.AttemptTimeout = durationpb.New(48 * time.Hour)
	_, err := s.root.Invoke(background, &homingv1.InvokeRequest{Spec: wrong})
	refused(err, codes.InvalidArgument, "INVALID_REQUEST")
	fields := map[string]string{}
	for _, violation := range detail[*errdetails.BadRequest](err).GetFieldViolations() {
		fields[violation.Field] = violation.Description
	}
	equal(len(fields), 2, "the number of fields")
	for _, field := range []string{"spec.payload.data", "spec.attempt_timeout"} {
		require(fields[field] != "", "nothing is said of %s: %v", field, fields)
	}
}

// retryInfo reads when to come again, and does.
func (s *Suite) retryInfo() {
	client := s.connect(s.Target, withKey(s.createKey(&homingv1.Key{
		Name: s.named("hurried"), Scopes: []homingv1.Scope{homingv1.Scope_SCOPE_READ}, MaxPerSecond: 0.5,
	})))
	defer client.close()
	var err error
	for err == nil {
		_, err = client.ListFunctions(background, &homingv1.ListFunctionsRequest{})
	}
	refused(err, codes.ResourceExhausted, "RATE_LIMITED")
	wait := detail[*errdetails.RetryInfo](err).GetRetryDelay().AsDuration()
	require(0 < wait && wait <= 2*time.Second, "it is to come again in %s", wait)
	time.Sleep(wait)
	must(client.ListFunctions(background, &homingv1.ListFunctionsRequest{}))
}

// deadlines end the wait of the caller; what runs may still end, and its id has come before.
func (s *Suite) deadlines() {
	s.deploy("late", "sleep", "5")
	watch := must(s.root.WatchResults(background, &homingv1.WatchResultsRequest{Filter: only("late")}))
	must(watch.Recv())
	ctx, cancel := context.WithTimeout(background, 3*time.Second)
	defer cancel()
	var header metadata.MD
	_, err := s.root.Invoke(ctx, &homingv1.InvokeRequest{Spec: spec("late", nil)}, grpc.Header(&header))
	require(status.Code(err) == codes.DeadlineExceeded, "the answer is %v", err)
	ids := header.Get("homing-invocation-id")
	equal(len(ids), 1, "the number of ids")
	seen := must(watch.Recv())
	for seen.GetInvocation() == nil {
		seen = must(watch.Recv())
	}
	equal(seen.GetInvocation().Id, ids[0], "the id of what ended")
}

// waits end before their deadline, with the record as it is then.
func (s *Suite) waits() {
	s.deploy("slow", "sleep", "60")
	accepted := s.invokeAsync("slow", nil)
	var waited *homingv1.WaitInvocationResponse
	err := status.Error(codes.DeadlineExceeded, "")
	// On a busy machine the quarter of a second that the server leaves may be too short.
	for tries := 0; tries < 5 && status.Code(err) == codes.DeadlineExceeded; tries++ {
		ctx, cancel := context.WithTimeout(background, 2*time.Second)
		waited, err = s.root.WaitInvocation(ctx, &homingv1.WaitInvocationRequest{Id: accepted.Id})
		cancel()
	}
	check(err)
	require(waited.Invocation.EndTime == nil, "it has ended: %v", waited.Invocation)
	must(s.root.StopInvocation(background, &homingv1.StopInvocationRequest{Id: accepted.Id}))
}

// cancels a call and a stream that are under way.
func (s *Suite) cancels() {
	s.deploy("cancelled", "sleep", "5")
	ctx, cancel := context.WithCancel(background)
	time.AfterFunc(300*time.Millisecond, cancel)
	_, err := s.root.Invoke(ctx, &homingv1.InvokeRequest{Spec: spec("cancelled", nil)})
	require(status.Code(err) == codes.Canceled, "the call ended with %v", err)

	ctx, cancel = context.WithCancel(background)
	watch := must(s.root.WatchResults(ctx, &homingv1.WatchResultsRequest{Filter: only("cancelled")}))
	must(watch.Recv())
	cancel()
	_, err = watch.Recv()
	require(status.Code(err) == codes.Canceled, "the watch ended with %v", err)
}
