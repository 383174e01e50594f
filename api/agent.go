package api

import (
	"context"

	"google.golang.org/grpc"

	"daybreak/orchestrator/build"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Sessions is the control plane's end of the agents' sessions; orchestrator/dispatch has the real one.
type Sessions interface {
	Watch(*v1.WatchAssignmentsRequest, grpc.ServerStreamingServer[v1.Assignments]) error
	Report(context.Context, *v1.ReportRequest) (*v1.ReportResponse, error)
	Answer(context.Context, *v1.AnswerRequest) (*v1.AnswerResponse, error)
	// Screenshot asks a desktop's host for a picture of its screen, PNG.
	Screenshot(ctx context.Context, desktop string) ([]byte, error)
	build.Caller
}

// agentService is what agents call: sessions, and the goods.
type agentService struct {
	v1.UnsafeAgentServiceServer
	Sessions
	*content
	builds *build.Relay
	mirror *store.Mirror
}
