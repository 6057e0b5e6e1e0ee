package main

import (
	"bytes"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	homingv1 "homing.dev/go/homing/v1"
)

const mebi = 1 << 20

// ownCA connects by TLS where the server's authority is trusted, and only there.
func (s *Suite) ownCA() {
	trusting := s.connect(s.TLS.Target, withTLS(s.TLS.CA, "", ""), withKey(s.RootKey))
	defer trusting.close()
	must(trusting.ListFunctions(background, &homingv1.ListFunctionsRequest{}))

	for what, options := range map[string][]grpc.DialOption{
		"of another authority": {withTLS(s.TLS.StrangerCA, "", "")},
		"without TLS":          {},
	} {
		stranger := s.connect(s.TLS.Target, append(options, withKey(s.RootKey))...)
		_, err := stranger.ListFunctions(background, &homingv1.ListFunctionsRequest{})
		require(status.Code(err) == codes.Unavailable, "%s: %v", what, err)
		stranger.close()
	}
}

// certificates shows one to a server that wants it.
func (s *Suite) certificates() {
	known := s.connect(s.MTLS.Target, withTLS(s.MTLS.CA, s.MTLS.Cert, s.MTLS.Key), withKey(s.RootKey))
	defer known.close()
	must(known.ListFunctions(background, &homingv1.ListFunctionsRequest{}))

	for what, option := range map[string]grpc.DialOption{
		"no certificate":     withTLS(s.MTLS.CA, "", ""),
		"that of a stranger": withTLS(s.MTLS.CA, s.MTLS.StrangerCert, s.MTLS.StrangerKey),
	} {
		stranger := s.connect(s.MTLS.Target, option, withKey(s.RootKey))
		_, err := stranger.ListFunctions(background, &homingv1.ListFunctionsRequest{})
		require(status.Code(err) == codes.Unavailable, "%s: %v", what, err)
		stranger.close()
	}
}

// keepalive leaves a connection alone for longer than it takes a server that minds the pings to close it.
func (s *Suite) keepalive() {
	client := s.connect(s.TLS.Target, withTLS(s.TLS.CA, "", ""), withKey(s.RootKey),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 11 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true,
		}))
	defer client.close()
	must(client.ListFunctions(background, &homingv1.ListFunctionsRequest{}))
	sent, received := client.sent.Load(), client.received.Load()
	time.Sleep(46 * time.Second)
	require(client.sent.Load() > sent, "no pings were sent")
	require(client.received.Load() > received, "no pings were answered")
	must(client.ListFunctions(background, &homingv1.ListFunctionsRequest{}))
	equal(client.connections.Load(), 1, "the number of connections")
}

// compression sends and gets a body in a tenth of its size.
func (s *Suite) compression() {
	s.deploy("compressed", "cat")
	client := s.connect(s.Target, withKey(s.RootKey), grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	defer client.close()
	body := bytes.Repeat([]byte("homing "), 30_000)
	answer := must(client.Invoke(background, &homingv1.InvokeRequest{Spec: spec("compressed", body)}))
	require(bytes.Equal(answer.Invocation.Result.Payload.GetData(), body), "the body is another one")
	limit := int64(len(body) / 10)
	require(client.sent.Load() < limit, "%d bytes were sent", client.sent.Load())
	require(client.received.Load() < limit, "%d bytes were received", client.received.Load())
}

// sizes meets the limits of messages: those of clients for answers, and the server's for requests.
func (s *Suite) sizes() {
	s.deploy("large", "cat")
	must(s.root.PauseFunction(background, &homingv1.PauseFunctionRequest{Name: s.named("large")}))
	requests := make([]*homingv1.InvokeAsyncRequest, 20)
	for i := range requests {
		requests[i] = &homingv1.InvokeAsyncRequest{Spec: spec("large", bytes.Repeat([]byte("x"), 256<<10))}
	}
	batch := must(s.root.BatchInvokeAsync(background, &homingv1.BatchInvokeAsyncRequest{Requests: requests}))
	for _, result := range batch.Results {
		require(result.GetAccepted() != nil, "%v was not accepted", result)
	}

	// Pages fit into the 4 MiB that clients take, however many records are asked for.
	list := &homingv1.ListInvocationsRequest{Filter: only("large"), PageSize: 1000, IncludePayload: true}
	var found, pages int
	for ; pages == 0 || list.PageToken != ""; pages++ {
		page := must(s.root.ListInvocations(background, list))
		found += len(page.Invocations)
		list.PageToken = page.NextPageToken
	}
	equal(found, len(requests), "the number of records")
	require(pages > 1, "5 MiB fit into one page")

	_, err := s.root.Invoke(background, &homingv1.InvokeRequest{Spec: spec("large", make([]byte, 17*mebi))})
	require(status.Code(err) == codes.ResourceExhausted, "17 MiB fit into 16: %v", err)
	require(len(status.Convert(err).Details()) == 0, "to try again would help: %v", err)
}
