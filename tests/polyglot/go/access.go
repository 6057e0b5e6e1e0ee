package main

import (
	"google.golang.org/grpc/codes"

	homingv1 "homing.dev/go/homing/v1"
)

// keys are wanted, and have to be good ones.
func (s *Suite) keys() {
	anonymous := s.connect(s.Target)
	defer anonymous.close()
	_, err := anonymous.ListFunctions(background, &homingv1.ListFunctionsRequest{})
	refused(err, codes.Unauthenticated, "KEY_MISSING")

	wrong := s.connect(s.Target, withKey(s.RootKey+"x"))
	defer wrong.close()
	_, err = wrong.ListFunctions(background, &homingv1.ListFunctionsRequest{})
	refused(err, codes.Unauthenticated, "KEY_INVALID")
	watch := must(wrong.WatchResults(background, &homingv1.WatchResultsRequest{}))
	_, err = watch.Recv()
	refused(err, codes.Unauthenticated, "KEY_INVALID")
}

// scopes allow what they say and nothing else, for the functions of the key.
func (s *Suite) scopes() {
	s.deploy("mine", "cat")
	s.deploy("theirs", "cat")
	client := s.connect(s.Target, withKey(s.createKey(&homingv1.Key{
		Name:      s.named("limited"),
		Scopes:    []homingv1.Scope{homingv1.Scope_SCOPE_INVOKE},
		Functions: []string{s.named("mine")},
	})))
	defer client.close()
	must(client.Invoke(background, &homingv1.InvokeRequest{Spec: spec("mine", []byte("hello"))}))

	_, err := client.Invoke(background, &homingv1.InvokeRequest{Spec: spec("theirs", []byte("hello"))})
	info := refused(err, codes.PermissionDenied, "FUNCTION_NOT_ALLOWED")
	equal(info.Metadata["function"], s.named("theirs"), "the function")
	_, err = client.ListFunctions(background, &homingv1.ListFunctionsRequest{})
	info = refused(err, codes.PermissionDenied, "SCOPE_MISSING")
	equal(info.Metadata["scope"], "read", "the scope")
}
