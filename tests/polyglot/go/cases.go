package main

import (
	homingv1 "homing.dev/go/homing/v1"
)

const prefix = "go-"

func (s *Suite) cases() []testCase {
	return []testCase{
		{"functions", s.functions},
		{"invoke", s.invokes},
		{"invoke-stream", s.streams},
		{"invoke-async", s.accepts},
		{"batch", s.batches},
		{"stop-and-rerun", s.stops},
		{"large-bodies", s.largeBodies},
		{"logs", s.logs},
		{"dead-letters", s.deadLetters},
		{"secrets", s.secrets},
		{"signing-keys", s.signingKeys},
		{"api-keys", s.apiKeys},
		{"error-info", s.errorInfo},
		{"bad-request", s.badRequest},
		{"retry-info", s.retryInfo},
		{"deadline", s.deadlines},
		{"wait", s.waits},
		{"cancel", s.cancels},
		{"keys", s.keys},
		{"scopes", s.scopes},
		{"tls", s.ownCA},
		{"mtls", s.certificates},
		{"compression", s.compression},
		{"message-sizes", s.sizes},
		{"wrong-token", s.oldTokens},
		// All clients come here before the server is killed.
		{"watch-resume", s.resumes},
	}
}

// named returns a name that no other client of the same servers has.
func (s *Suite) named(name string) string { return prefix + name }

// deploy deploys a program as a function.
func (s *Suite) deploy(name string, args ...string) *homingv1.Function {
	deployed := must(s.root.DeployFunction(background, &homingv1.DeployFunctionRequest{Function: &homingv1.Function{
		Name:   s.named(name),
		Source: &homingv1.Function_Command{Command: &homingv1.Command{Args: args}},
	}}))
	return deployed.Function
}

func (s *Suite) createKey(key *homingv1.Key) string {
	return must(s.root.CreateKey(background, &homingv1.CreateKeyRequest{Key: key})).Secret
}

func (s *Suite) invokeAsync(name string, body []byte) *homingv1.Invocation {
	return must(s.root.InvokeAsync(background, &homingv1.InvokeAsyncRequest{Spec: spec(name, body)})).Invocation
}

func spec(name string, body []byte) *homingv1.InvocationSpec {
	return &homingv1.InvocationSpec{
		Function: prefix + name,
		Payload:  &homingv1.Payload{ContentType: "text/plain", Body: &homingv1.Payload_Data{Data: body}},
	}
}

// only selects the invocations of a function.
func only(name string) *homingv1.InvocationFilter {
	return &homingv1.InvocationFilter{Functions: []string{prefix + name}}
}
