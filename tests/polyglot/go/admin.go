package main

import (
	"strings"

	"google.golang.org/grpc/codes"

	homingv1 "homing.dev/go/homing/v1"
)

// secrets are made, changed, listed and deleted, and never shown.
func (s *Suite) secrets() {
	name := s.named("token")
	made := must(s.root.CreateSecret(background, &homingv1.CreateSecretRequest{Name: name, Value: []byte("first value")}))
	equal(made.Secret.Version, 1, "the version")
	_, err := s.root.CreateSecret(background, &homingv1.CreateSecretRequest{Name: name, Value: []byte("other value")})
	refused(err, codes.AlreadyExists, "SECRET_EXISTS")
	changed := must(s.root.UpdateSecret(background, &homingv1.UpdateSecretRequest{Name: name, Value: []byte("other value")}))
	equal(changed.Secret.Version, 2, "the version")
	found := false
	for _, each := range must(s.root.ListSecrets(background, &homingv1.ListSecretsRequest{PageSize: 1000})).Secrets {
		found = found || each.Name == name
	}
	require(found, "it is not listed")
	must(s.root.DeleteSecret(background, &homingv1.DeleteSecretRequest{Name: name}))
	_, err = s.root.DeleteSecret(background, &homingv1.DeleteSecretRequest{Name: name})
	refused(err, codes.NotFound, "SECRET_NOT_FOUND")
}

// signingKeys are rotated, once for each request id, listed and revoked.
func (s *Suite) signingKeys() {
	function := s.deploy("signed", "cat").Name
	request := &homingv1.RotateSigningKeyRequest{Function: function, RequestId: s.named("rotate")}
	made := must(s.root.RotateSigningKey(background, request))
	require(strings.HasPrefix(made.Key, "whsec_"), "the key is none")
	repeated := must(s.root.RotateSigningKey(background, request))
	require(repeated.Duplicate && repeated.Key == made.Key, "the same request id made another key")
	listed := must(s.root.ListSigningKeys(background, &homingv1.ListSigningKeysRequest{Function: function})).SigningKeys
	equal(len(listed), 1, "the number of keys")
	equal(listed[0].Id, made.SigningKey.Id, "the id")
	must(s.root.RevokeSigningKey(background, &homingv1.RevokeSigningKeyRequest{Id: made.SigningKey.Id}))
	_, err := s.root.RevokeSigningKey(background, &homingv1.RevokeSigningKeyRequest{Id: made.SigningKey.Id})
	refused(err, codes.NotFound, "SIGNING_KEY_NOT_FOUND")
}

// apiKeys are made, once for each request id, listed, and good until they are revoked.
func (s *Suite) apiKeys() {
	request := &homingv1.CreateKeyRequest{
		Key:       &homingv1.Key{Name: s.named("reader"), Scopes: []homingv1.Scope{homingv1.Scope_SCOPE_READ}},
		RequestId: s.named("reader"),
	}
	made := must(s.root.CreateKey(background, request))
	repeated := must(s.root.CreateKey(background, request))
	require(repeated.Duplicate && repeated.Secret == made.Secret, "the same request id made another key")
	found := false
	for _, each := range must(s.root.ListKeys(background, &homingv1.ListKeysRequest{PageSize: 1000})).Keys {
		found = found || each.Id == made.Key.Id
	}
	require(found, "it is not listed")

	reader := s.connect(s.Target, withKey(made.Secret))
	defer reader.close()
	must(reader.ListFunctions(background, &homingv1.ListFunctionsRequest{}))
	must(s.root.RevokeKey(background, &homingv1.RevokeKeyRequest{Key: made.Key.Id}))
	_, err := reader.ListFunctions(background, &homingv1.ListFunctionsRequest{})
	refused(err, codes.Unauthenticated, "KEY_INVALID")
}
