package main

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	homingv1 "homing.dev/go/homing/v1"
)

// functions are deployed, changed, listed, paused and deleted.
func (s *Suite) functions() {
	deployed := s.deploy("plain", "cat")
	equal(deployed.Revision, 1, "the revision")
	changed := must(s.root.DeployFunction(background, &homingv1.DeployFunctionRequest{
		Function:         &homingv1.Function{Name: deployed.Name, Labels: map[string]string{"team": "polyglot"}},
		UpdateMask:       &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
		ExpectedRevision: &deployed.Revision,
	})).Function
	equalAll(changed.GetCommand().GetArgs(), []string{"cat"}, "the arguments")
	equal(changed.Labels["team"], "polyglot", "the label")
	_, err := s.root.DeployFunction(background, &homingv1.DeployFunctionRequest{
		Function: deployed, ExpectedRevision: &deployed.Revision,
	})
	refused(err, codes.Aborted, "REVISION_MISMATCH")

	read := must(s.root.GetFunction(background, &homingv1.GetFunctionRequest{Name: deployed.Name})).Function
	require(proto.Equal(read, changed), "it is %v, not %v", read, changed)
	s.deploy("another", "cat")
	request := &homingv1.ListFunctionsRequest{PageSize: 1}
	names := map[string]bool{}
	for len(names) == 0 || request.PageToken != "" {
		page := must(s.root.ListFunctions(background, request))
		equal(len(page.Functions), 1, "the size of a page")
		names[page.Functions[0].Name] = true
		request.PageToken = page.NextPageToken
	}
	require(names[s.named("plain")] && names[s.named("another")], "they are not among %v", names)

	paused := must(s.root.PauseFunction(background, &homingv1.PauseFunctionRequest{Name: deployed.Name})).Function
	require(paused.Paused, "it is not paused")
	waiting := s.invokeAsync("plain", nil)
	equal(waiting.WaitReason, homingv1.WaitReason_WAIT_REASON_PAUSED, "why it waits")
	resumed := must(s.root.ResumeFunction(background, &homingv1.ResumeFunctionRequest{Name: deployed.Name})).Function
	require(!resumed.Paused, "it is paused")
	scaled := must(s.root.ScaleFunction(background, &homingv1.ScaleFunctionRequest{
		Name: deployed.Name, MaxInstances: proto.Int32(2),
	})).Function
	equal(scaled.MaxInstances, 2, "the largest number of instances")
	s.ended(waiting.Id, homingv1.InvocationState_INVOCATION_STATE_SUCCEEDED)

	must(s.root.DeleteFunction(background, &homingv1.DeleteFunctionRequest{Name: deployed.Name}))
	_, err = s.root.GetFunction(background, &homingv1.GetFunctionRequest{Name: deployed.Name})
	refused(err, codes.NotFound, "FUNCTION_NOT_FOUND")
}
