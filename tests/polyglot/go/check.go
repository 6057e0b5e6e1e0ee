package main

import (
	"fmt"
	"slices"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// require ends a case that does not hold.
func require(holds bool, format string, args ...any) {
	if !holds {
		panic(fmt.Sprintf(format, args...))
	}
}

func must[T any](value T, err error) T {
	require(err == nil, "%v", err)
	return value
}

func check(err error) { require(err == nil, "%v", err) }

func equal[T comparable](got, want T, what string) {
	require(got == want, "%s is %v, not %v", what, got, want)
}

func equalAll[T comparable](got, want []T, what string) {
	require(slices.Equal(got, want), "%s are %v, not %v", what, got, want)
}

// refused checks the code of an error, and the reason that its google.rpc.ErrorInfo has, which is returned.
func refused(err error, code codes.Code, reason string) *errdetails.ErrorInfo {
	require(status.Code(err) == code, "the answer is %v, not %v", err, code)
	info := detail[*errdetails.ErrorInfo](err)
	require(info != nil, "%v has no ErrorInfo", err)
	equal(info.Reason, reason, "the reason")
	equal(info.Domain, "homing.dev", "the domain")
	return info
}

// detail returns the detail of a type that an error carries, or nil.
func detail[T any](err error) T {
	var none T
	for _, each := range status.Convert(err).Details() {
		if found, ok := each.(T); ok {
			return found
		}
	}
	return none
}
