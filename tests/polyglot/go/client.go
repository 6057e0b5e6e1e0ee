package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	homingv1 "homing.dev/go/homing/v1"
)

// Client has all services of a server over one connection, and counts what passes.
type Client struct {
	homingv1.DeadLetterServiceClient
	homingv1.FunctionServiceClient
	homingv1.InvocationServiceClient
	homingv1.KeyServiceClient
	homingv1.LogServiceClient
	homingv1.PayloadServiceClient
	homingv1.SecretServiceClient
	homingv1.SigningKeyServiceClient
	conn        *grpc.ClientConn
	connections atomic.Int32
	sent        atomic.Int64
	received    atomic.Int64
}

// bearer shows an API key with each call, with or without TLS.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

func withKey(key string) grpc.DialOption { return grpc.WithPerRPCCredentials(bearer(key)) }

// withTLS trusts a CA and shows a certificate, where there is one.
func withTLS(ca, cert, key string) grpc.DialOption {
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	require(config.RootCAs.AppendCertsFromPEM(must(os.ReadFile(ca))), "%s has no certificate", ca)
	if cert != "" {
		config.Certificates = []tls.Certificate{must(tls.LoadX509KeyPair(cert, key))}
	}
	return grpc.WithTransportCredentials(credentials.NewTLS(config))
}

// background is for calls that need nothing else: the connection gives them a deadline.
var background = context.Background()

const deadline = `{"methodConfig": [{"name": [{}], "timeout": "60s"}]}`

// connect returns a client; later options win.
func (s *Suite) connect(target string, options ...grpc.DialOption) *Client {
	client := &Client{}
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(deadline),
		grpc.WithContextDialer(client.dial),
		grpc.WithChainUnaryInterceptor(s.noteUnary),
		grpc.WithChainStreamInterceptor(s.noteStream),
	}, options...)
	client.conn = must(grpc.NewClient(target, options...))
	client.DeadLetterServiceClient = homingv1.NewDeadLetterServiceClient(client.conn)
	client.FunctionServiceClient = homingv1.NewFunctionServiceClient(client.conn)
	client.InvocationServiceClient = homingv1.NewInvocationServiceClient(client.conn)
	client.KeyServiceClient = homingv1.NewKeyServiceClient(client.conn)
	client.LogServiceClient = homingv1.NewLogServiceClient(client.conn)
	client.PayloadServiceClient = homingv1.NewPayloadServiceClient(client.conn)
	client.SecretServiceClient = homingv1.NewSecretServiceClient(client.conn)
	client.SigningKeyServiceClient = homingv1.NewSigningKeyServiceClient(client.conn)
	return client
}

func (c *Client) close() { c.conn.Close() }

func (c *Client) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c.connections.Add(1)
	return &countingConn{Conn: conn, client: c}, nil
}

type countingConn struct {
	net.Conn
	client *Client
}

func (c *countingConn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	c.client.received.Add(int64(n))
	return n, err
}

func (c *countingConn) Write(data []byte) (int, error) {
	n, err := c.Conn.Write(data)
	c.client.sent.Add(int64(n))
	return n, err
}

func (s *Suite) noteUnary(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	err := invoke(ctx, method, request, reply, conn, options...)
	if err == nil {
		s.answered(strings.TrimPrefix(method, "/"))
	}
	return err
}

func (s *Suite) noteStream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, options...)
	return &notingStream{ClientStream: stream, suite: s, method: strings.TrimPrefix(method, "/")}, err
}

type notingStream struct {
	grpc.ClientStream
	suite  *Suite
	method string
}

func (n *notingStream) RecvMsg(message any) error {
	err := n.ClientStream.RecvMsg(message)
	if err == nil {
		n.suite.answered(n.method)
	}
	return err
}
