package main

import (
	"bytes"
	"crypto/sha256"
	"io"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	homingv1 "homing.dev/go/homing/v1"
)

const (
	succeeded = homingv1.InvocationState_INVOCATION_STATE_SUCCEEDED
	failed    = homingv1.InvocationState_INVOCATION_STATE_FAILED
	stopped   = homingv1.InvocationState_INVOCATION_STATE_STOPPED
	scheduled = homingv1.InvocationState_INVOCATION_STATE_SCHEDULED
)

// invokes a function and has its answer, with the id before it.
func (s *Suite) invokes() {
	s.deploy("shown", "sh", "-c", `echo "$Http_X_Color"; cat`)
	shown := spec("shown", []byte("hello"))
	shown.Http = &homingv1.HttpOptions{Headers: []*homingv1.Header{
		{Name: "X-Color", Value: "blue"}, {Name: "X-Color", Value: "red"},
	}}
	var header metadata.MD
	answer := must(s.root.Invoke(background, &homingv1.InvokeRequest{Spec: shown}, grpc.Header(&header))).Invocation
	equal(answer.State, succeeded, "the state")
	equal(answer.Result.StatusCode, 200, "the status code")
	equal(string(answer.Result.Payload.GetData()), "blue, red\nhello", "the answer")
	equalAll(header.Get("homing-invocation-id"), []string{answer.Id}, "the ids in the metadata")
}

// streams an answer: its head, its parts, and the end.
func (s *Suite) streams() {
	s.deploy("streamed", "cat")
	body := bytes.Repeat([]byte("0123456789abcdef"), 100*1024/16)
	request := &homingv1.InvokeStreamRequest{Spec: spec("streamed", body), Timeout: durationpb.New(time.Minute)}
	stream := must(s.root.InvokeStream(background, request))
	ids := must(stream.Header()).Get("homing-invocation-id")
	var heads []*homingv1.InvokeStreamResponse_Head
	var read []byte
	var ended *homingv1.Invocation
	for each := range messages(stream.Recv) {
		require(ended == nil, "%v came after the end", each)
		if head := each.GetHead(); head != nil {
			heads = append(heads, head)
		}
		read = append(read, each.GetData()...)
		ended = each.GetInvocation()
	}
	equal(len(heads), 1, "the number of heads")
	equal(heads[0].StatusCode, 200, "the status code")
	require(bytes.Equal(read, body), "the body is another one")
	equal(ended.GetState(), succeeded, "the state")
	equalAll(ids, []string{ended.GetId()}, "the ids in the metadata")
}

// accepts invocations, once for each request id.
func (s *Suite) accepts() {
	s.deploy("later", "cat")
	request := &homingv1.InvokeAsyncRequest{Spec: spec("later", []byte("now or later")), RequestId: s.named("once")}
	accepted := must(s.root.InvokeAsync(background, request))
	repeated := must(s.root.InvokeAsync(background, request))
	equal(repeated.Invocation.Id, accepted.Invocation.Id, "the invocation of the same request id")
	require(!accepted.Duplicate && repeated.Duplicate, "the second one is the duplicate")
	other := &homingv1.InvokeAsyncRequest{Spec: spec("later", []byte("else")), RequestId: s.named("once")}
	_, err := s.root.InvokeAsync(background, other)
	refused(err, codes.AlreadyExists, "REQUEST_ID_REUSED")

	ended := s.ended(accepted.Invocation.Id, succeeded)
	equal(string(ended.Result.Payload.GetData()), "now or later", "the answer")
	read := must(s.root.GetInvocation(background, &homingv1.GetInvocationRequest{Id: ended.Id, IncludePayload: true}))
	equal(string(read.Invocation.Spec.Payload.GetData()), "now or later", "the payload")
	require(len(read.Invocation.Events) > 0 && len(read.Invocation.Attempts) == 1, "its history is %v", read.Invocation)
}

// batches tell of each invocation by itself, of those that are refused with the status that a call would have had.
func (s *Suite) batches() {
	s.deploy("many", "cat")
	batch := must(s.root.BatchInvokeAsync(background, &homingv1.BatchInvokeAsyncRequest{
		Requests: []*homingv1.InvokeAsyncRequest{{Spec: spec("many", nil)}, {Spec: spec("none", nil)}, {Spec: spec("many", nil)}},
	}))
	equal(len(batch.Results), 3, "the number of results")
	err := status.FromProto(batch.Results[1].GetError()).Err()
	info := refused(err, codes.NotFound, "FUNCTION_NOT_FOUND")
	equal(info.Metadata["function"], s.named("none"), "the function")
	for _, i := range []int{0, 2} {
		s.ended(batch.Results[i].GetAccepted().GetInvocation().GetId(), succeeded)
	}

	list := &homingv1.ListInvocationsRequest{Filter: only("many"), PageSize: 1, Order: homingv1.InvocationOrder_INVOCATION_ORDER_OLDEST_FIRST}
	page := must(s.root.ListInvocations(background, list))
	equal(page.Invocations[0].Id, batch.Results[0].GetAccepted().Invocation.Id, "the first one")
	list.PageToken = page.NextPageToken
	page = must(s.root.ListInvocations(background, list))
	equal(page.Invocations[0].Id, batch.Results[2].GetAccepted().Invocation.Id, "the second one")
	counts := must(s.root.CountInvocations(background, &homingv1.CountInvocationsRequest{Filter: only("many")})).Counts
	equal(len(counts), 1, "the number of states")
	equal(counts[0].State, succeeded, "the state")
	equal(counts[0].Count, 2, "the count")
}

// stops one, then all that match a filter, and runs them again.
func (s *Suite) stops() {
	s.deploy("stopped", "cat")
	later := spec("stopped", nil)
	later.ScheduleTime = timestamppb.New(time.Now().Add(time.Hour))
	var ids []string
	for range 3 {
		accepted := must(s.root.InvokeAsync(background, &homingv1.InvokeAsyncRequest{Spec: later})).Invocation
		equal(accepted.State, scheduled, "the state")
		ids = append(ids, accepted.Id)
	}
	one := must(s.root.StopInvocation(background, &homingv1.StopInvocationRequest{Id: ids[0], Reason: "one"})).Invocation
	equal(one.State, stopped, "the state")
	equal(one.StopRequest.Reason, "one", "the reason")
	_, err := s.root.StopInvocation(background, &homingv1.StopInvocationRequest{Id: ids[0]})
	refused(err, codes.FailedPrecondition, "INVOCATION_ENDED")

	filter := only("stopped")
	dry := done(s.root.BulkStop(background, &homingv1.BulkStopRequest{Filter: filter, DryRun: true}))
	equal(dry.Matched, 2, "what would be stopped")
	all := &homingv1.BulkStopRequest{Filter: filter, Reason: "all", RequestId: s.named("stop")}
	equal(done(s.root.BulkStop(background, all)).Stopped, 2, "what was stopped")
	equal(done(s.root.BulkStop(background, all)).Stopped, 2, "what was stopped by the call that is repeated")

	// A schedule is part of what is run again.
	s.deploy("again", "cat")
	ended := s.ended(s.invokeAsync("again", []byte("first")).Id, succeeded)
	rerun := must(s.root.RerunInvocation(background, &homingv1.RerunInvocationRequest{
		Id: ended.Id, Payload: spec("again", []byte("second")).Payload,
	})).Invocation
	equal(rerun.RerunOf, ended.Id, "what runs again")
	equal(string(s.ended(rerun.Id, succeeded).Result.Payload.GetData()), "second", "the answer")
	bulk := &homingv1.BulkRerunRequest{Filter: only("again"), RequestId: s.named("rerun"), IncludeRerun: true}
	equal(done(s.root.BulkRerun(background, bulk)).Accepted, 2, "what runs again")
	equal(done(s.root.BulkRerun(background, bulk)).Accepted, 2, "what ran again by the call that is repeated")
	counts := must(s.root.CountInvocations(background, &homingv1.CountInvocationsRequest{Filter: only("again")})).Counts
	var count int64
	for _, each := range counts {
		count += each.Count
	}
	equal(count, 4, "the number of invocations")
}

// progress is what calls about many answer, again and again.
type progress interface{ GetDone() bool }

// done returns the last answer of a call about many.
func done[T progress](stream interface{ Recv() (T, error) }, err error) T {
	check(err)
	var last T
	for each := range messages(stream.Recv) {
		last = each
	}
	require(last.GetDone(), "%v is not the end", last)
	return last
}

// large bodies are written and read apart.
func (s *Suite) largeBodies() {
	s.deploy("copied", "cat")
	body := bytes.Repeat([]byte("0123456789abcdef"), 3*mebi/16)
	upload := must(s.root.WritePayload(background))
	check(upload.Send(&homingv1.WritePayloadRequest{Part: &homingv1.WritePayloadRequest_Size{Size: int64(len(body))}}))
	for part := body; len(part) > 0; {
		size := min(len(part), mebi)
		check(upload.Send(&homingv1.WritePayloadRequest{Part: &homingv1.WritePayloadRequest_Data{Data: part[:size]}}))
		part = part[size:]
	}
	blob := must(upload.CloseAndRecv()).Blob
	digest := sha256.Sum256(body)
	require(bytes.Equal(blob.Sha256, digest[:]), "the digest is another one")

	copied := spec("copied", nil)
	copied.Payload.Body = &homingv1.Payload_Blob{Blob: blob}
	answer := must(s.root.Invoke(background, &homingv1.InvokeRequest{Spec: copied})).Invocation
	result := answer.Result.Payload.GetBlob()
	require(result != nil, "%v has no reference to its result", answer)
	var read []byte
	download := must(s.root.ReadPayload(background, &homingv1.ReadPayloadRequest{BlobId: result.Id}))
	for each := range messages(download.Recv) {
		read = append(read, each.Data...)
	}
	require(bytes.Equal(read, body), "the body is another one")

	upload = must(s.root.WritePayload(background))
	check(upload.Send(&homingv1.WritePayloadRequest{Part: &homingv1.WritePayloadRequest_Size{Size: 65 * mebi}}))
	_, err := upload.CloseAndRecv()
	refused(err, codes.InvalidArgument, "INVALID_REQUEST")
	equal(len(detail[*errdetails.BadRequest](err).GetFieldViolations()), 1, "the number of fields")
}

// logs are followed to their end.
func (s *Suite) logs() {
	s.deploy("talks", "sh", "-c", "echo one >&2; echo two >&2; cat")
	accepted := s.invokeAsync("talks", nil)
	tail := must(s.root.TailLogs(background, &homingv1.TailLogsRequest{Id: accepted.Id, Follow: true}))
	var lines []string
	for line := range messages(tail.Recv) {
		equal(line.Stream, homingv1.LogStream_LOG_STREAM_STDERR, "the stream")
		lines = append(lines, line.Text)
	}
	equal(strings.Join(lines, ","), "one,two", "the log")
	request := &homingv1.TailFunctionLogsRequest{Function: s.named("talks"), Tail: 1}
	whole := must(s.root.TailFunctionLogs(background, request))
	for line := range messages(whole.Recv) {
		equal(line.Text, "two", "the last line of the function")
		equal(line.InvocationId, accepted.Id, "whose it is")
	}
}

// deadLetters are listed, redriven and purged.
func (s *Suite) deadLetters() {
	s.deploy("fails", "false")
	once := spec("fails", nil)
	once.RetryPolicy = &homingv1.RetryPolicy{MaxAttempts: new(int32(1))}
	for range 2 {
		accepted := must(s.root.InvokeAsync(background, &homingv1.InvokeAsyncRequest{Spec: once})).Invocation
		ended := s.ended(accepted.Id, failed)
		equal(ended.Failure.Reason, "EXIT_STATUS", "why it failed")
	}
	filter := &homingv1.DeadLetterFilter{Functions: []string{s.named("fails")}}
	letters := must(s.root.ListDeadLetters(background, &homingv1.ListDeadLettersRequest{Filter: filter})).DeadLetters
	equal(len(letters), 2, "the number of dead letters")
	equal(letters[0].Kind, homingv1.DeadLetterKind_DEAD_LETTER_KIND_INVOCATION, "the kind")
	one := &homingv1.DeadLetterFilter{Ids: []string{letters[0].Id}}
	redrive := &homingv1.RedriveDeadLettersRequest{Filter: one}
	equal(done(s.root.RedriveDeadLetters(background, redrive)).Rerun, 1, "what runs again")
	purge := &homingv1.PurgeDeadLettersRequest{Filter: &homingv1.DeadLetterFilter{Ids: []string{letters[1].Id}}, DryRun: true}
	equal(done(s.root.PurgeDeadLetters(background, purge)).Matched, 1, "what would be forgotten")
	purge.DryRun = false
	equal(done(s.root.PurgeDeadLetters(background, purge)).Purged, 1, "what was forgotten")
}

// messages yields those of a stream to its end.
func messages[T any](receive func() (T, error)) func(func(T) bool) {
	return func(yield func(T) bool) {
		for {
			message, err := receive()
			if err == io.EOF {
				return
			}
			if !yield(must(message, err)) {
				return
			}
		}
	}
}

// ended waits for the end of an invocation.
func (s *Suite) ended(id string, state homingv1.InvocationState) *homingv1.Invocation {
	invocation := must(s.root.WaitInvocation(background, &homingv1.WaitInvocationRequest{Id: id})).Invocation
	equal(invocation.State, state, "the state")
	return invocation
}
