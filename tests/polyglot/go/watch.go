package main

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	homingv1 "homing.dev/go/homing/v1"
)

// resumes a watch, and repeats a call, after the server was killed: nothing is missed, repeated or run twice.
func (s *Suite) resumes() {
	s.deploy("resumed", "cat")
	filter := only("resumed")
	watch := must(s.root.WatchResults(background, &homingv1.WatchResultsRequest{Filter: filter}))
	bookmark := must(watch.Recv())
	require(bookmark.GetBookmark() != nil, "a watch begins with %v", bookmark)

	first := s.invokeAsync("resumed", nil)
	seen := must(watch.Recv())
	for seen.GetInvocation() == nil {
		seen = must(watch.Recv())
	}
	equal(seen.GetInvocation().Id, first.Id, "what ended first")
	token := seen.ResumeToken

	wanted := map[string]bool{}
	for range 3 {
		later := spec("resumed", nil)
		later.ScheduleTime = timestamppb.New(time.Now().Add(time.Second))
		accepted := must(s.root.InvokeAsync(background, &homingv1.InvokeAsyncRequest{Spec: later}))
		wanted[accepted.Invocation.Id] = true
	}
	s.ask("kill the server")
	var err error
	for err == nil {
		// What was on its way comes still.
		if seen, err = watch.Recv(); err == nil {
			token = seen.ResumeToken
			delete(wanted, seen.GetInvocation().GetId())
		}
	}
	require(status.Code(err) == codes.Unavailable, "the watch ended with %v", err)
	again := &homingv1.InvokeAsyncRequest{Spec: spec("resumed", nil), RequestId: s.named("again")}
	_, err = s.root.InvokeAsync(background, again)
	require(status.Code(err) == codes.Unavailable, "the call ended with %v", err)
	s.ask("start the server")

	made := must(s.root.InvokeAsync(background, again, grpc.WaitForReady(true)))
	repeated := must(s.root.InvokeAsync(background, again))
	equal(repeated.Invocation.Id, made.Invocation.Id, "the invocation of the same request id")
	require(!made.Duplicate && repeated.Duplicate, "the second one is the duplicate")
	wanted[made.Invocation.Id] = true

	watch = must(s.root.WatchResults(background, &homingv1.WatchResultsRequest{Filter: filter, ResumeToken: token}))
	for len(wanted) > 0 {
		ended := must(watch.Recv()).GetInvocation()
		if ended != nil {
			require(wanted[ended.Id], "%s was not to be expected, or not twice", ended.Id)
			equal(ended.State, homingv1.InvocationState_INVOCATION_STATE_SUCCEEDED, "the state")
			delete(wanted, ended.Id)
		}
	}
}

// oldTokens are refused where they are none.
func (s *Suite) oldTokens() {
	watch := must(s.root.WatchResults(background, &homingv1.WatchResultsRequest{ResumeToken: "none"}))
	_, err := watch.Recv()
	refused(err, codes.InvalidArgument, "INVALID_REQUEST")
}
